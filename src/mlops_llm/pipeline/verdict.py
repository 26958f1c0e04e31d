"""What was tried, what came out best, and why: read from what the stages recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlops_llm.component import near
from mlops_llm.console import number
from mlops_llm.eval.recording import BESIDE, PREFIX, higher, named
from mlops_llm.pipeline.ended import Ended, State
from mlops_llm.tracking import ledger
from mlops_llm.tracking.store import Store

_WHY = {"selected.why": "chosen", "sweep.said": "sweep", "best.reason": "best checkpoint", "certificate": "certificate"}
"""Tags of runs that give a reason -> what it is a reason for."""

_REFUSED = "is not promoted"
_BECAME = {
    "promoted": "is the champion now",
    "forced": "is the champion now, against the policy",
    "champion": "is the champion",
    "refused": _REFUSED,
}
"""Verdict of the registry -> what became of the model."""


@dataclass(frozen=True)
class Scored:
    """A model, and the numbers of its evaluations."""

    model: str
    stage: str
    values: dict[str, float] = field(default_factory=dict)
    compared: bool = False
    """It was set beside others on the same rows, and differences were tested."""


@dataclass(frozen=True)
class Verdict:
    """What a flow came to."""

    scored: Sequence[Scored]
    score: str = ""
    """The number that models are set in order by; empty where there is none."""
    best: Scored | None = None
    why: Sequence[str] = ()
    """Reasons, a line each."""
    decisions: Sequence[str] = ()
    """What the registry decided, a line each."""
    higher_is_better: bool = True

    @property
    def names(self) -> list[str]:
        """Names of all scores."""
        return list(dict.fromkeys(name for each in self.scored for name in each.values))


def verdict(store: Store, ended: Sequence[Ended], score: str | None) -> Verdict:
    """Read what the stages recorded.

    Args:
        store: the record.
        ended: the stages that are behind us.
        score: the number that is wanted to decide; None takes the first that evaluations have in common.
    """
    found = dict[str, Scored]()
    for each in ended:
        for one in _evaluations(store, each):
            known = found.get(one.model, one)
            found[one.model] = replace(known, values=known.values | one.values, compared=known.compared or one.compared)
    scored = list(found.values())
    name = _decisive(scored, score)
    asked = [each for each in scored if name in each.values]
    rivals = [each for each in asked if each.compared] or asked  # what was never set beside the others wins nothing
    most = higher(name) is not False
    best = (max if most else min)(rivals, key=lambda each: each.values[name]) if rivals else None
    why = [*_compared(rivals, best, name), *_alone(asked, rivals, name), *_reasons(ended)]
    if len(rivals) > 1 and not rivals[0].compared:
        why.insert(1, "whether that is more than chance was not tested; a stage with eval op=compare tells it")
    if scored and score and not asked:
        why.insert(0, f"no model has {name}{near(name, {each for one in scored for each in one.values})}, so none won")
    return Verdict(scored, name, best, why, list(_decisions(ended)), most)


def _evaluations(store: Store, one: Ended) -> Iterator[Scored]:
    """Models that a stage evaluated, with their scores."""
    run, stage = one.made.run if one.made else None, one.step.name
    if run is None or one.made is None:
        return
    if run.tags.get("stage") == "surgery":
        values = _scores(run.metrics)
        if values and (ref := one.made.result.get("ref")):
            yield Scored(str(ref), stage, values)
        return
    if run.tags.get("stage") != "eval":
        return
    told = one.made.result.get("scores")
    if isinstance(told, Mapping) and told and all(isinstance(each, Mapping) for each in told.values()):
        for model, values in told.items():  # of a comparison
            known = {named(str(name)): float(value) for name, value in values.items() if value is not None}
            yield Scored(str(model), stage, known, compared=True)
        return
    for row in (run, *(ledger.children(store, run.id) if run.tags.get("kind") == "multirun" else ())):
        values = _scores(row.metrics)
        if values and row.tags.get("model"):
            yield Scored(row.tags["model"], stage, values)


def _scores(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith(PREFIX) and not name.endswith(BESIDE)}


def _decisive(scored: Sequence[Scored], wanted: str | None) -> str:
    """The number by which models are set in order: the wanted one, or that which most of them have."""
    if wanted:
        return wanted if wanted.startswith(PREFIX) else PREFIX + wanted
    counts: dict[str, int] = {}
    for each in scored:
        for name in each.values:
            if higher(name):
                counts[name] = counts.get(name, 0) + 1
    return max(counts, key=lambda name: counts[name], default="")


def _compared(rivals: Sequence[Scored], best: Scored | None, name: str) -> Iterator[str]:
    if best is None:
        return
    others = [each for each in rivals if each is not best]
    if not others:
        yield f"{name} of {best.model} is {number(best.values[name])}; no other model was asked"
        return
    said = ", ".join(f"{number(each.values[name])} ({each.model})" for each in others)
    tied = [each.model for each in others if each.values[name] == best.values[name]]
    also = f"; {', '.join(tied)} {'has' if len(tied) == 1 else 'have'} the same" if tied else ""
    yield f"{name} of {best.model} is {number(best.values[name])}; the others have {said}{also}"


def _alone(asked: Sequence[Scored], rivals: Sequence[Scored], name: str) -> Iterator[str]:
    for each in asked:
        if each not in rivals:
            yield f"{each.model} has {number(each.values[name])}, and was not compared with these"


def _decisions(ended: Sequence[Ended]) -> Iterator[str]:
    """What the registry made of models, and why."""
    for each in ended:
        told = each.made.result if each.made else {}
        said = _BECAME.get(str(told.get("verdict")))
        if each.step.words.room != "registry" or not said or not isinstance(told.get("reasons"), list):
            continue
        stays = f"; the champion stays version {told['champion']}" if said == _REFUSED and told.get("champion") else ""
        of = f" ({each.made.model})" if each.made and each.made.model else ""
        yield f"{told.get('ref') or each.step.name}{of} {said}{stays}: {'; '.join(map(str, told['reasons']))}"


def _reasons(ended: Sequence[Ended]) -> Iterator[str]:
    """What stages said of their own choices: comparisons, then the rest."""
    for each in ended:
        said = each.made.result.get("conclusion") if each.made else None
        if isinstance(said, list):
            yield from (f"{each.step.name}: {one}" for one in said)
    for each in ended:
        if each.made and each.made.result.get("proof"):
            yield f"{each.step.name}, proof: {each.made.result['proof']}"
        if each.state is State.left_out:
            yield f"{each.step.name} was left out: {each.reason}"
        run = each.made.run if each.made else None
        for tag, what in _WHY.items() if run else ():
            if run and tag in run.tags:
                yield f"{each.step.name}, {what}: {run.tags[tag]}"
