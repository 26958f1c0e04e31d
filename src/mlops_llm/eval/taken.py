"""What an evaluation took, and which of its questions the model knew: facts beside the scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlops_llm import console
from mlops_llm.eval.metrics.latency import Latency
from mlops_llm.eval.outcome import Outcome, Sample
from mlops_llm.eval.overlap import Checked
from mlops_llm.eval.plan import Plan
from mlops_llm.eval.score import Counts
from mlops_llm.inference.engine import Failure, Generation


@dataclass
class Taken:
    """What the asking took."""

    seconds: float = 0.0
    """Without opening the model."""
    opening: float = 0.0
    peak: int = 0
    gpu: int | None = None
    counts: dict[str, Counts] = field(default_factory=dict)
    results: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Benchmark -> lm-eval's own tables."""
    of_benchmarks: int = 0
    """How many of the scores, the last ones, are of benchmarks."""
    tokens: int | None = 0
    """Of all answers that were asked now; None where a server does not count them."""
    answering: float = 0.0
    """How long these took, from the first request to the last answer."""
    overlap: Checked | None = None
    """Which questions the model was trained on."""
    overlaps: dict[str, tuple[Checked, Sequence[Sample]]] = field(default_factory=dict)
    """Benchmark -> which of its items the model was trained on."""

    def add(self, answer: Generation | Failure) -> None:
        """Count an answer's tokens."""
        if isinstance(answer, Generation):
            is_counted = self.tokens is not None and (answer.tokens or not answer.text)
            self.tokens = (self.tokens or 0) + answer.tokens if is_counted else None

    @property
    def is_new(self) -> bool:
        """Whether all was asked now, so that its seconds are of this machine and these settings."""
        return not any(each.cached or each.resumed for each in self.counts.values())


def performance(outcome: Outcome, taken: Taken) -> dict[str, float]:
    """Seconds, bytes and rates of this evaluation; what was not measured now is left out."""
    found = {"seconds": taken.seconds, "opening_seconds": taken.opening}
    seconds = [each.seconds for each in outcome.samples if each.seconds]
    if seconds and taken.is_new:
        found["seconds_a_sample"] = sum(seconds) / len(seconds)
    if taken.peak and taken.is_new:
        found["peak_memory_bytes"] = float(taken.peak)
    if taken.answering and taken.tokens is not None:
        found["tokens_per_second"] = taken.tokens / taken.answering
    if taken.gpu is not None:
        found["peak_gpu_memory_bytes"] = float(taken.gpu)
    return found


def warnings(plan: Plan, taken: Taken) -> list[str]:
    """What a person must know to read the scores."""
    told, counts = list[str](), taken.counts.get("answers")
    if counts and not taken.is_new and any(isinstance(one, Latency) for one in plan.metrics.values()):
        before = counts.cached + counts.resumed
        told.append(
            f"latency: {before} of {before + counts.asked} answers were given before, maybe in other batches or elsewhere; "
            "cache=refresh measures anew"
        )
    checked = [*([taken.overlap] if taken.overlap else []), *(each for each, _ in taken.overlaps.values())]
    unknown = list(dict.fromkeys(each for one in checked for each in one.unknown))
    if unknown:
        told.append(f"training data not known ({'; '.join(unknown)}): the model may have seen these items")
    for each in told:
        console.warn(each)
    return told


def facts(plan: Plan, taken: Taken, outcome: Outcome) -> dict[str, str]:
    """What a person wants to know besides the scores."""
    how = plan.settings.sampling
    drawn = "greedy" if how.greedy else f"temperature {how.temperature:g}, top-p {how.top_p:g}, seed {plan.settings.seed}"
    told = {"ability": plan.ability} if plan.ability else {}
    told |= {"sampling": f"{drawn}, at most {how.max_new_tokens} tokens"} if plan.answers else {}
    counts = taken.counts.get("answers")
    if counts:
        parts = {"asked": counts.asked, "known from before": counts.cached, "of this run before it stopped": counts.resumed}
        told["answers"] = ", ".join(f"{count} {what}" for what, count in parts.items() if count)
    seconds = [each.seconds for each in outcome.samples if each.seconds]
    if seconds:
        told["seconds a sample"] = f"{sum(seconds) / len(seconds):.3f}" + ("" if taken.is_new else " (when they were asked)")
    if taken.answering and taken.tokens is not None:
        told["tokens/s"] = f"{taken.tokens / taken.answering:.1f}"
    told["opening the model"] = console.seconds(taken.opening) if taken.opening else "not needed"
    told["peak memory"] = console.size(taken.peak)
    if taken.gpu is not None:
        told["peak GPU memory"] = console.size(taken.gpu)
    if plan.settings.judge is not None:
        told |= dict(plan.settings.judge.facts())
    if taken.overlap:
        told |= taken.overlap.facts()
    for name, (checked, _) in taken.overlaps.items():
        told |= {f"{name}: {key}": value for key, value in checked.facts().items()}
    return told
