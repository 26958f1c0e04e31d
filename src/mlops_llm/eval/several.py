"""Several models on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.eval.config import Eval
from mlops_llm.eval.evaluation import carried_out
from mlops_llm.eval.outcome import Outcome
from mlops_llm.eval.plan import Plan, prepare
from mlops_llm.eval.taken import Taken


@dataclass(frozen=True)
class Evaluated:
    """One model with what it did."""

    plan: Plan
    outcome: Outcome
    taken: Taken
    judged: Mapping[str, float] = field(default_factory=dict)
    """What rating it took, as `Judge.numbers` says; empty where nothing was rated now."""

    @property
    def ref(self) -> str:
        """The model as it was asked for."""
        return self.plan.settings.model


def plans(settings: Eval) -> list[Plan]:
    """The evaluation of each of `settings.models`, checked; the rows of all are the same.

    Raises:
        UserError: there are fewer than two models, one is named twice, or something does not fit one of them.
    """
    models = list(settings.models)
    if len(models) < 2:
        raise UserError("names fewer than two models", "models", "name them: models=[A,B]")
    twice = next((each for each in models if models.count(each) > 1), None)
    if twice:
        raise UserError(f"names {twice} twice", "models", "name each once")
    return [prepare(replace(settings, model=each)) for each in models]


def evaluated(plans: list[Plan], folder: Path) -> list[Evaluated]:
    """Carry the evaluations out, one after the other; what is cached is not asked again.

    Args:
        plans: see `plans`.
        folder: of the run's files; each model has one within it.

    Raises:
        UserError: a model cannot be opened, or a server fails.
    """
    found = []
    for number, plan in enumerate(plans):
        console.detail(f"model {number + 1} of {len(plans)}: {plan.model}")
        outcome, taken = carried_out(plan, folder / f"model-{number + 1}")
        rated = taken.counts.get("ratings")
        found.append(Evaluated(plan, outcome, taken, dict(plan.settings.judge.numbers()) if rated and rated.asked else {}))
    return found
