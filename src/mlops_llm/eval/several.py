"""Several models on the same rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.eval.comparison import Cost, Model
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

    @property
    def judged(self) -> Mapping[str, float]:
        """What rating it took, as `Judge.numbers` says; empty where nothing was rated now."""
        rated, judge = self.taken.counts.get("ratings"), self.plan.settings.judge
        return dict(judge.numbers()) if rated and rated.asked else {}

    @property
    def ref(self) -> str:
        """The model as it was asked for."""
        return self.plan.settings.model


def models(found: Sequence[Evaluated], costs: Sequence[Cost]) -> list[Model]:
    """Models as a comparison takes them.

    Args:
        found: what they did.
        costs: what each took; size and judge are filled in here.

    Raises:
        UserError: they are not of the same rows.
    """
    _refuse_others(found)
    return [_model(number, each, cost) for number, (each, cost) in enumerate(zip(found, costs, strict=True), 1)]


def _model(number: int, one: Evaluated, cost: Cost) -> Model:
    subject = one.plan.subject
    if subject is None:
        return Model(number, one.ref, one.outcome, replace(cost, judge=one.judged))
    place, whole = subject.place, replace(cost, bytes=subject.bytes, judge=one.judged)
    return Model(number, one.ref, one.outcome, whole, subject.digest, place.run, place.step, subject.vocabulary)


def _refuse_others(found: Sequence[Evaluated]) -> None:
    """See that all are of the same rows.

    Raises:
        UserError: they are not.
    """
    asked = [each.plan.questions.as_input().digests["canonical"] if each.plan.questions else "" for each in found]
    samples = [[(each.task, each.place) for each in one.outcome.samples] for one in found]
    for one, digest, places in zip(found, asked, samples, strict=True):
        if digest != asked[0] or places != samples[0]:
            what = f"was asked other rows than {found[0].ref}"
            raise UserError(what, one.ref, "the dataset changed meanwhile: give the command again")


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
    return [prepare(replace(settings, model=each, judge=deepcopy(settings.judge))) for each in models]


def evaluated(plans: list[Plan], folder: Path) -> Iterator[Evaluated]:
    """Carry the evaluations out, one after the other; what is cached is not asked again.

    Args:
        plans: see `plans`.
        folder: of the run's files; each model has one within it.

    Yields:
        Each model with what it did, before the next one is asked.

    Raises:
        UserError: a model cannot be opened, or a server fails.
    """
    for number, plan in enumerate(plans):
        console.detail(f"model {number + 1} of {len(plans)}: {plan.model}")
        yield Evaluated(plan, *carried_out(plan, folder / f"model-{number + 1}"))
