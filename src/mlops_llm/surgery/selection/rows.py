"""The checkpoints of a training with all that the record knows of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from mlops_llm.eval import recording
from mlops_llm.eval.outcome import Score
from mlops_llm.eval.recorded import Recorded, evaluations, read, side_by_side
from mlops_llm.eval.recording import PREFIX, named
from mlops_llm.eval.report.source import ROWS
from mlops_llm.surgery.selection.rules import LOSS, Candidate, Seen
from mlops_llm.tracking import checkpoints, ledger
from mlops_llm.tracking.checkpoints import CheckpointRow
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.store import Store

FAILED = "failed"


@dataclass(frozen=True)
class Rows:
    """A training's checkpoints, by step."""

    run: RunRow
    checkpoints: Sequence[CheckpointRow]
    losses: Mapping[int, float]
    """Step -> training loss."""
    evaluations: Mapping[str, Sequence[Recorded]] = field(default_factory=dict)
    """Checkpoint -> its evaluations on the rows in question, newest first; each tells a score that no newer one does."""
    asked: str = ""
    """Canonical digest of these rows; empty where nothing was asked."""

    @cached_property
    def candidates(self) -> list[Candidate]:
        """All of them, as the rules see them."""
        return [self._candidate(each) for each in self.checkpoints]

    def _candidate(self, row: CheckpointRow) -> Candidate:
        values = {name: value for name, value in row.own.items() if name not in self._evaluated}
        steps = [step for step in self.losses if step <= row.step]
        if LOSS not in values and steps:
            values[LOSS] = self.losses[max(steps)]
        for found in reversed(self.evaluations.get(row.name, ())):
            values |= {named(each.name): each.value for each in found.outcome.scores}
        return Candidate(row.name, row.step, values, row.tags.get("overfit", ""), _gone(row))

    @cached_property
    def _evaluated(self) -> set[str]:
        """Scores that evaluations of the same rows tell: what a checkpoint has of others does not compare with them."""
        return {named(score.name) for held in self.evaluations.values() for each in held for score in each.outcome.scores}

    def _telling(self, checkpoint: str, name: str) -> Recorded | None:
        """The newest evaluation of a checkpoint that tells a score."""
        return next((each for each in self.evaluations.get(checkpoint, ()) if _score(each, name)), None)

    def _scores(self, name: str) -> list[Score]:
        """A score of each checkpoint that has it."""
        held = [each for checkpoint in self.evaluations if (each := self._telling(checkpoint, name))]
        return [score for each in held if (score := _score(each, name))]

    def higher(self, name: str) -> bool:
        """Whether larger values of a number are better: as its metric says, else by the name."""
        if scores := self._scores(name):
            return bool(scores[0].higher_is_better)
        return bool(recording.higher(name))

    def test(self, first: Candidate, second: Candidate, name: str) -> Seen | None:
        """The difference of two checkpoints by a score, on the samples that both were asked; None where it is not known."""
        found = [self._telling(each.name, name) for each in (first, second)]
        there = [each for each in found if each is not None]
        if len(there) < 2:
            return None
        compared = side_by_side(there, common=True)
        row = next((each for each in compared.rows if named(each.score.name) == name), None)
        if row is None or not row.pairs:
            return None
        alone = replace(compared, rows=[row]).resolved(row)
        pair = row.pairs[0].found
        return Seen(pair.p, pair.count, alone[0] if alone else None)

    def samples(self, name: str) -> int | None:
        """Of how many samples a score is, at the checkpoint with the fewest; None where fewer than two have it."""
        scores = self._scores(name)
        return min(each.count for each in scores) if len(scores) > 1 else None

    def tests(self, name: str) -> bool:
        """Whether a number is one of an evaluation, whose samples are known."""
        return name in self._evaluated


def _score(recorded: Recorded, name: str) -> Score | None:
    return next((each for each in recorded.outcome.scores if named(each.name) == name), None)


def _gone(row: CheckpointRow) -> str:
    if row.status != "READY":
        return "is unfinished"
    if row.tags.get("checkpoint.files") == checkpoints.REMOVED:
        return "its files were removed"
    return "its certificate failed" if row.tags.get("certificate") == FAILED else ""


def rows(store: Store, ref: str, asked: str = "", by: Sequence[str] = ()) -> Rows:
    """Read a training's checkpoints with their numbers and evaluations.

    Args:
        store: the record.
        ref: id or name of the training.
        asked: canonical digest of the rows that evaluations are to be of; empty takes those that most checkpoints were asked.
        by: the numbers in question; where rows are not named, evaluations that tell none of them do not count.

    Raises:
        UserError: there is no such run.
    """
    run = ledger.find_run(store, ref)
    made = sorted(checkpoints.of_run(store, run.id), key=lambda each: (each.step, each.name))
    losses = {each.step: each.value for each in ledger.history(store, run.id, LOSS) if math.isfinite(each.value)}
    found = {each.name: _evaluations(store, each) for each in made}
    if not asked:
        counts: dict[str, int] = {}
        for of_rows in found.values():
            for digest, runs in of_rows.items():
                told = {name for each in runs for name in each.metrics}
                if told & set(by) or not any(name.startswith(PREFIX) for name in by):
                    counts[digest] = counts.get(digest, 0) + 1
        asked = max(counts, key=lambda digest: counts[digest], default="")
    there = {name: of_rows[asked] for name, of_rows in found.items() if asked in of_rows}
    held = {name: [read(store, [each.id])[0] for each in runs] for name, runs in there.items()}
    return Rows(run, made, losses, held, asked)


def _evaluations(store: Store, row: CheckpointRow) -> dict[str, list[RunRow]]:
    """Digest of rows -> finished evaluations of a checkpoint on them, newest first, that tell what no newer one does."""
    made, known = dict[str, list[RunRow]](), dict[str, set[str]]()
    for each in evaluations(store, row.tags.get("digest.weights", "")):
        digest, told = each.tags[ROWS], {name for name in each.metrics if name.startswith(PREFIX)}
        if told - known.get(digest, set()):
            made.setdefault(digest, []).append(each)
            known.setdefault(digest, set()).update(told)
    return made
