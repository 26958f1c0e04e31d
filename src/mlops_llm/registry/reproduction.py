"""Whether a training repeats itself: what it began from, then and now, and its steps side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

REPRODUCED, DRIFTED = "reproduced", "drifted"
FIRST = ("mlops-llm", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "numpy")
"""Packages that are named before others where several differ."""
HARDWARE = ("host.cpu", "host.gpu", "device.name", "torch.threads", "python", "host.system")
"""Tags of a run that say what it ran on."""
INPUTS = {
    "data.train.digest.canonical": ("data", "training rows"),
    "data.validation.digest.canonical": ("data", "validation rows"),
    "data.evaluation.digest.canonical": ("data", "rows of the score that chooses"),
    "data.train.digest.seen": ("data", "token ids of the training rows"),
    "digest.base": ("weights", "the model that it started from"),
    "digest.teacher": ("weights", "the teacher"),
    "digest.reward.model": ("weights", "the reward model"),
    "digest.template": ("template", "the chat template"),
}
"""Tags of a training that say what it read -> kind and name of that."""
_EQUAL = 1e-12


@dataclass(frozen=True)
class Difference:
    """Something that a training began from and that is another now."""

    kind: str
    """`setting`, `data`, `weights`, `template`, `code`, `package` or `hardware`."""
    what: str
    then: str
    now: str

    def __str__(self) -> str:
        """For a person."""
        return f"{self.kind}: {self.what} was {self.then or 'not there'}, is {self.now or 'not there'}"


@dataclass(frozen=True)
class Drift:
    """The first step that is another."""

    step: int
    what: str
    """`loss`, `lr`, `batch` (the token ids), `tokens`, or `missing`."""
    then: str
    now: str

    def __str__(self) -> str:
        """For a person."""
        return f"step {self.step}: {self.what} was {self.then}, is {self.now}"


def settings(then: Mapping[str, str], now: Mapping[str, str], own: Collection[str]) -> list[Difference]:
    """Settings that came out otherwise: of an experiment's file that was edited, say.

    Args:
        then: of the training.
        now: of the other run.
        own: settings that may differ.
    """
    names = [name for name in then if name not in own and then[name] != now.get(name, "")]
    return [Difference("setting", name, then[name], now.get(name, "")) for name in names]


def inputs(then: Mapping[str, str], now: Mapping[str, str]) -> list[Difference]:
    """What two trainings read, by the digests in their tags, as far as both tell it."""
    told = [(key, *named) for key, named in INPUTS.items() if key in then and key in now and then[key] != now[key]]
    return [Difference(kind, what, f"{then[key][:12]}…", f"{now[key][:12]}…") for key, kind, what in told]


def packages(then: Mapping[str, str], now: Mapping[str, str]) -> list[Difference]:
    """Packages of another version, those that decide about numbers first."""
    names = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    names.sort(key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    return [Difference("package", name, then.get(name, ""), now.get(name, "")) for name in names]


def hardware(then: Mapping[str, str], now: Mapping[str, str]) -> list[Difference]:
    """What of the machine is another, as far as both tell it."""
    told = [key for key in HARDWARE if key in then and key in now]
    return [Difference("hardware", key, then[key], now[key]) for key in told if then[key] != now[key]]


def steps(text: str) -> list[dict[str, Any]]:
    """The steps of `steps.jsonl`, in their order; a line that was cut off does not count."""
    found = dict[int, dict[str, Any]]()
    for line in text.splitlines():
        try:
            row = json.loads(line)
            found[int(row["step"])] = row
        except (ValueError, KeyError, TypeError):
            continue
    return [found[step] for step in sorted(found)]


def drift(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], most: int | None = None) -> Drift | None:
    """The first step in which a training does not repeat itself, or None.

    Args:
        before: its steps.
        after: those of the other run.
        most: steps that count; None takes all.
    """
    there = {int(each["step"]): each for each in after}
    for each in before:
        step = int(each["step"])
        if most is not None and step > most:
            return None
        other = there.get(step)
        if other is None:
            return Drift(step, "missing", "there", "not reached")
        for name in ("batch", "tokens", "lr", "loss"):  # what comes first in the making of a step
            if name in each and not _same(each[name], other.get(name)):
                return Drift(step, name, str(each[name]), str(other.get(name)))
    return None


def weights(before: Mapping[str, str], after: Mapping[str, str]) -> Drift | None:
    """The first checkpoint of both trainings whose weights are others, or None.

    Args:
        before: its checkpoints: `checkpoint-<step>` -> digest, in their order.
        after: those of the other run.
    """
    for name, digest in before.items():
        if name in after and after[name] != digest:
            return Drift(int("".join(filter(str.isdigit, name)) or 0), "weights", digest[:12], after[name][:12])
    return None


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=_EQUAL, abs_tol=0.0) or (math.isnan(one) and math.isnan(other))
    return bool(one == other)
