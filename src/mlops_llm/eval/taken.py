"""What an evaluation took, and which of its questions the model knew: facts beside the scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlops_llm import console
from mlops_llm.eval.outcome import Outcome, Sample
from mlops_llm.eval.overlap import Checked
from mlops_llm.eval.plan import Plan
from mlops_llm.eval.score import Counts


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
    tokens: int = 0
    """Of all answers that were asked now."""
    answering: float = 0.0
    """How long these took, from the first request to the last answer."""
    overlap: Checked | None = None
    """Which questions the model was trained on."""
    overlaps: dict[str, tuple[Checked, Sequence[Sample]]] = field(default_factory=dict)
    """Benchmark -> which of its items the model was trained on."""


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
        told["seconds a sample"] = f"{sum(seconds) / len(seconds):.3f}"
    if taken.answering:
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
