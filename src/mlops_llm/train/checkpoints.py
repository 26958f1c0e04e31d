"""Checkpoints of one training: which are whole, which is best, which may go."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlops_llm import digest
from mlops_llm.component import near
from mlops_llm.errors import UserError
from mlops_llm.files import write_text
from mlops_llm.launch import stopping
from mlops_llm.record import Checkpoint, Run
from mlops_llm.train.config import Best
from mlops_llm.train.evaluate import PREFIX

Curves = Mapping[str, Mapping[int, Any]]
"""Name -> step -> value."""
COMPLETE = ".complete.json"
"""Written last into a checkpoint's folder: what lacks it was cut off in mid-write."""
AVERAGED = "-ema"
"""Ends the name of a checkpoint of averaged weights; it is written before the raw one of its step."""
ASIDE = "aside"
"""Tag, in its own folder only, of a checkpoint that a training wrote because it was told to stop."""


def whole(output: Path) -> list[Checkpoint]:
    """The whole checkpoints in an output folder, by step, averages before the raw weights."""
    found = []
    for mark in output.glob(f"checkpoint-*/{COMPLETE}"):
        facts = json.loads(mark.read_text("utf-8"))
        found.append(Checkpoint(mark.parent.name, facts["step"], mark.parent, facts["tags"]))
    return sorted(found, key=lambda each: (each.step, not is_average(each)))


def is_average(checkpoint: Checkpoint) -> bool:
    """Whether these are averaged weights, from which no training goes on."""
    return checkpoint.name.endswith(AVERAGED)


def is_aside(checkpoint: Checkpoint) -> bool:
    """Whether it was written between the regular ones, only to go on from after an interruption."""
    return ASIDE in checkpoint.tags


def curves(folder: Path) -> dict[str, dict[int, Any]]:
    """The numbers up to a whole checkpoint: name -> step -> value."""
    found = json.loads((folder / COMPLETE).read_text("utf-8")).get("curves", {})
    return {name: {int(step): value for step, value in curve.items()} for name, curve in found.items()}


def drop_unfinished(output: Path) -> None:
    """Remove folders of a run's checkpoints that were cut off in mid-write, and averages whose raw weights were.

    These are newer than all raw weights that are whole. An older average stays: its raw weights may have been rotated away.
    """
    found = whole(output)
    reached = max((each.step for each in found if not is_average(each)), default=-1)
    kept = {each.folder for each in found if not is_average(each) or each.step <= reached}
    for folder in output.glob("checkpoint-*"):
        if folder not in kept:
            shutil.rmtree(folder)


class Shelf:
    """Publishes checkpoints, remembers their numbers, and keeps no more than wanted."""

    def __init__(self, run: Run, best: Best, limit: int | None, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Begin empty.

        Args:
            run: where checkpoints are published.
            best: which number decides.
            limit: most checkpoints to keep besides best, last and registered ones.
            params: parameters of every checkpoint (base, algo, ...).
            tags: tags of every checkpoint (template digest, ...).
        """
        self._run, self._best, self._limit, self._params, self._tags = run, best, limit, params, tags
        self._metrics: dict[str, dict[str, float]] = {}
        self._asides: list[Path] = []
        self.checkpoints: list[Checkpoint] = []

    def mark(self, tags: Mapping[str, str]) -> None:
        """Give every later checkpoint these tags too."""
        self._tags = {**self._tags, **tags}

    def restore(self, output: Path) -> None:
        """Take up the whole checkpoints of an earlier process."""
        for each in whole(output):
            if is_aside(each):
                self._asides.append(each.folder)
                continue
            self.checkpoints.append(each)
            self._metrics[each.name] = json.loads((each.folder / COMPLETE).read_text("utf-8"))["metrics"]

    def note(self, metrics: Mapping[str, float], step: int, checkpoint: Checkpoint | None = None, prefix: str = "") -> None:
        """Record numbers of an evaluation, each with the dataset that it is of: scores have one of their own.

        Args:
            metrics: the numbers.
            step: optimizer steps done.
            checkpoint: whose they are; None where none is due.
            prefix: before the names in the record.
        """
        scores = {prefix + name: value for name, value in metrics.items() if name.startswith(PREFIX)}
        losses = {prefix + name: value for name, value in metrics.items() if not name.startswith(PREFIX)}
        for values, dataset in ((losses, "validation"), (scores, "evaluation")):
            if values:
                self._run.metrics(values, step, checkpoint, dataset)

    def add(
        self, folder: Path, step: int, metrics: Mapping[str, float], curves: Curves | None = None, prefix: str = ""
    ) -> Checkpoint:
        """Publish a checkpoint whose files are all written, with the numbers of its step.

        Args:
            folder: its files; the folder's name is the checkpoint's.
            step: optimizer steps done.
            metrics: numbers of its evaluation.
            curves: all numbers so far that the pictures at the end need; a resumed run finds them with the checkpoint.
            prefix: before the names of the metrics in the record.
        """
        from mlops_llm.tracking.deliver import published_bytes

        tags = {**self._tags, "digest.weights": digest.weights(folder), "bytes": str(published_bytes(folder))}
        checkpoint = Checkpoint(folder.name, step, folder, tags)
        self.note(metrics, step, checkpoint, prefix)
        self._run.checkpoint(checkpoint, {**self._params, "step": step})
        facts = {"step": step, "tags": tags, "metrics": dict(metrics), "curves": curves or {}}
        write_text(folder / COMPLETE, json.dumps(facts, indent=2))
        self.checkpoints.append(checkpoint)
        self._metrics[checkpoint.name] = dict(metrics)
        self._rotate()
        if not is_average(checkpoint):
            stopping.saved(f"saved at step {step}")
            self._clear()
        return checkpoint

    def set_aside(self, folder: Path, step: int, curves: Curves) -> None:
        """Keep a checkpoint to go on from, in no record; it goes when the next regular one is whole.

        Args:
            folder: its files, all written.
            step: optimizer steps done.
            curves: all numbers so far.
        """
        tags = {"digest.weights": digest.weights(folder), ASIDE: "true"}
        write_text(folder / COMPLETE, json.dumps({"step": step, "tags": tags, "metrics": {}, "curves": curves}, indent=2))
        stopping.saved(f"saved at step {step}")
        self._clear()
        self._asides = [folder]

    def metrics(self, checkpoint: Checkpoint) -> Mapping[str, float]:
        """The numbers of a checkpoint's evaluation."""
        return self._metrics.get(checkpoint.name, {})

    @property
    def compared(self) -> int:
        """How many checkpoints have the deciding number, those included that were not kept."""
        return sum(str(self._best.metric) in metrics for metrics in self._metrics.values())

    def score(self, checkpoint: Checkpoint) -> float | None:
        """The deciding number of a checkpoint, if it is finite."""
        value = self.metrics(checkpoint).get(str(self._best.metric))
        return value if value is not None and math.isfinite(value) else None

    def check(self, metrics: Mapping[str, float]) -> None:
        """Check at the first evaluation that the number which is to decide is there.

        Raises:
            UserError: it is not; those that are, are named.
        """
        if self._best.metric not in metrics:
            raise UserError(
                f"no evaluation gives '{self._best.metric}'{near(str(self._best.metric), metrics)}",
                "best.metric",
                f"one of: {', '.join(sorted(metrics))}",
            )

    def best(self) -> Checkpoint | None:
        """The best checkpoint by the deciding number (the earlier of equals), or the last where none has it."""
        scored = [each for each in self.checkpoints if self.score(each) is not None]
        if not scored:
            return self.checkpoints[-1] if self.checkpoints else None
        sign = -1.0 if self._best.higher_is_better else 1.0
        return min(scored, key=lambda each: sign * float(self.score(each) or 0.0))

    def _clear(self) -> None:
        for each in self._asides:
            shutil.rmtree(each, ignore_errors=True)
        self._asides = []

    def _rotate(self) -> None:
        if self._limit is None:
            return
        keep = {self.checkpoints[-1].step, getattr(self.best(), "step", None)}
        for step in sorted({each.step for each in self.checkpoints} - keep):
            if sum(not is_average(each) for each in self.checkpoints) <= self._limit:
                return
            for each in [each for each in self.checkpoints if each.step == step]:
                if self._run.forget(each):
                    shutil.rmtree(each.folder)
                    self.checkpoints.remove(each)
