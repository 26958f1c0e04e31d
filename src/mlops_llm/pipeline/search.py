"""Settings that are tried one after the other, each chosen by what came out before (Optuna's ask and tell)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlops_llm.errors import UserError, need
from mlops_llm.pipeline.config import Search

_STARTUP = 3
"""Tries that are never pruned: the median of fewer says little."""
_LOG = 100
"""From this ratio of its ends on a range is drawn from by the order of magnitude."""


@dataclass
class Study:
    """An Optuna study whose proposals depend on nothing but the seed and what was told."""

    search: Search
    seed: int
    higher_is_better: bool
    _study: Any = field(init=False)
    _trial: Any = None

    def __post_init__(self) -> None:
        """Begin.

        Raises:
            UserError: Optuna is not installed.
        """
        need("optuna", "search")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=_STARTUP) if self.search.prune else optuna.pruners.NopPruner()
        direction = "maximize" if self.higher_is_better else "minimize"
        sampler = optuna.samplers.TPESampler(seed=self.seed)
        self._study = optuna.create_study(direction=direction, sampler=sampler, pruner=pruner)

    def ask(self) -> dict[str, str]:
        """The settings of the next try, as typed."""
        self._trial = self._study.ask()
        return {key: _drawn(self._trial, key, between) for key, between in self.search.over.items()}

    def report(self, values: Mapping[int, float]) -> bool:
        """Tell what a try has come to at further steps; return whether it is to be given up.

        Args:
            values: step -> number; steps that were told before are left out.
        """
        told = self._study.trials[self._trial.number].intermediate_values
        for step, value in sorted(values.items()):
            if step not in told:
                self._trial.report(value, step)
        return bool(self._trial.should_prune())

    def tell(self, value: float | None, *, pruned: bool = False) -> None:
        """Say what a try came to; None of one that failed."""
        import optuna

        if pruned:
            self._study.tell(self._trial, state=optuna.trial.TrialState.PRUNED)
        elif value is None:
            self._study.tell(self._trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(self._trial, value)


def checked(name: str, search: Search) -> None:
    """See that a search can be made.

    Raises:
        UserError: it varies nothing, makes no try, or has no place to look in.
    """
    _shaped(name, search)
    need("optuna", "search")


def examples(name: str, search: Search) -> list[dict[str, str]]:
    """Settings of tries, as typed, among which each choice that can be drawn stands once; a range has its lower end.

    Raises:
        UserError: it varies nothing, or has no place to look in.
    """
    _shaped(name, search)
    first = {key: str(between[0]) for key, between in search.over.items()}
    others = [(key, each) for key, between in search.over.items() if not _range(between) for each in between[1:]]
    return [first, *({**first, key: str(each)} for key, each in others)]


def _shaped(name: str, search: Search) -> None:
    where = f"stages.{name}.search"
    if search.tries < 1:
        raise UserError(f"is {search.tries}", f"{where}.tries", "give a number from 1")
    if not search.over:
        raise UserError("varies nothing", f"{where}.over", "write over: {trainer.learning_rate: [1e-4, 1e-2]}")
    for key, between in search.over.items():
        if not isinstance(between, Sequence) or isinstance(between, str) or len(between) < 2:
            raise UserError("has no two ends, and no choices", f"{where}.over.{key}", f"write {key}: [LOW, HIGH] or [A, B, C]")
        ends = _range(between)
        if ends and ends[0] >= ends[1]:
            raise UserError(f"is {between}", f"{where}.over.{key}", "write the smaller number first")


def _range(between: Sequence[Any]) -> tuple[float, float] | None:
    """The ends of a range of numbers; None of choices."""
    ends = []
    for each in between:
        try:
            ends.append(float(each))
        except (TypeError, ValueError):
            return None
    return (ends[0], ends[1]) if len(ends) == 2 and not any(isinstance(each, bool) for each in between) else None


def _drawn(trial: Any, key: str, between: Sequence[Any]) -> str:
    ends = _range(between)
    if ends is None:
        return str(trial.suggest_categorical(key, [str(each) for each in between]))
    low, high = ends
    log = low > 0 and high / low >= _LOG
    if all(isinstance(each, int) for each in between):
        return str(trial.suggest_int(key, int(low), int(high), log=log))
    return f"{trial.suggest_float(key, low, high, log=log):.4g}"
