"""Versions as a person reads them: one line each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_llm import console
from mlops_llm.eval.recording import BESIDE, PREFIX
from mlops_llm.record import Grid
from mlops_llm.registry.policy import Policy
from mlops_llm.tracking import registered
from mlops_llm.tracking.checkpoints import REMOVED, CheckpointRow
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.lineage import PARENTS, checkpoint_ids, listed
from mlops_llm.tracking.registered import Measured, VersionRow
from mlops_llm.tracking.store import Store

MOST_SCORES = 4
"""Columns of scores."""
MOST_TOLD = 200
"""Versions whose runs are read; of more, which are many settings to read for one word each, only these tell what made them."""
_OVERLAP = "overlap/share"


@dataclass(frozen=True)
class Column:
    """A score on one set of rows."""

    score: str
    dataset: str
    digest: str

    @property
    def head(self) -> str:
        """For a person."""
        return f"{self.score.removeprefix(PREFIX)} on {self.dataset}" if self.dataset else self.score.removeprefix(PREFIX)

    def value(self, version: VersionRow) -> float | None:
        """What a version has."""
        return next((each.value for each in version.measured if _is_of(each, self)), None)


@dataclass(frozen=True)
class Line:
    """A version with what is said of it."""

    version: VersionRow
    scores: Mapping[str, float]
    """Head of a column -> value."""
    certificate: str
    overlap: float | None
    bytes: int | None
    origin: str
    """Where it comes from, in one line."""

    @property
    def values(self) -> dict[str, Any]:
        """As JSON."""
        row = self.version
        return {
            "model": row.model,
            "version": row.version,
            "aliases": list(row.aliases),
            "scores": dict(self.scores),
            "certificate": self.certificate,
            "overlap": self.overlap,
            "bytes": self.bytes,
            "created": row.created,
            "origin": self.origin,
            "decision": row.tags.get("decision", ""),
            "checkpoint": row.checkpoint.id if row.checkpoint else "",
        }


def columns(versions: Sequence[VersionRow], policy: Policy) -> list[Column]:
    """The scores that matter: those of the policy on the rows that most versions were asked; without any, what most have."""
    counts = Counter[Column]()
    for version in versions:
        counts.update(
            {
                Column(each.name, each.dataset, each.digest)
                for each in version.measured
                if each.name.startswith(PREFIX) and not each.name.endswith(BESIDE)
            }
        )
    wanted = [(policy.primary, policy.dataset), *((each.score, each.dataset) for each in policy.floors)]
    found = list[Column]()
    for score, dataset in wanted:
        there = [each for each in counts if each.score == score]
        named = [each for each in there if dataset and each.dataset.partition("[")[0] == dataset.partition("@")[0]]
        if there:
            found.append(max(named or there, key=lambda each: counts[each]))
    by_head = {each.head: each for each, _ in reversed(counts.most_common())}
    most = sorted(by_head.values(), key=lambda each: (-counts[each], each.head))
    return list(dict.fromkeys(found or most))[:MOST_SCORES]


def lines(store: Store, versions: Sequence[VersionRow], shown: Sequence[Column]) -> list[Line]:
    """Say what there is to say of versions; where they come from takes two more queries.

    Args:
        store: the record.
        versions: in their order.
        shown: the scores.
    """
    ids = {name for each in versions if each.checkpoint for name in checkpoint_ids(each.checkpoint.tags.get(PARENTS, ""))}
    parents = registered.by_ids(store, ids)
    told = sorted(versions, key=lambda each: not each.aliases)[:MOST_TOLD]
    runs = registered.runs(store, [*(each.run for each in told), *(each.run for each in parents.values())])
    return [_line(each, shown, parents, runs) for each in versions]


def grid(title: str, found: Sequence[Line], shown: Sequence[Column], *, with_model: bool) -> Grid:
    """A table of them."""
    heads = [*(["model"] if with_model else []), "version", "aliases", *(each.head for each in shown)]
    heads += ["certificate", "overlap", "size", "age", "decision", "from"]
    rows = [
        [
            *([each.version.model] if with_model else []),
            each.version.version,
            ", ".join(each.version.aliases) or "-",
            *(each.scores.get(column.head) for column in shown),
            each.certificate or "-",
            f"{each.overlap:.0%}" if each.overlap is not None else "-",
            console.size(each.bytes) if each.bytes is not None else "-",
            console.seconds(max(0.0, time.time() - each.version.created / 1000)),
            each.version.tags.get("decision", "-"),
            each.origin,
        ]
        for each in found
    ]
    return Grid(title, heads, rows)


def origin(version: VersionRow, parents: Mapping[str, CheckpointRow], runs: Mapping[str, RunRow]) -> str:
    """Where a version comes from, in one line."""
    row = version.checkpoint
    if row is None:
        return "no checkpoint of this record"
    gone = " (its files were removed)" if row.tags.get("checkpoint.files") == REMOVED else ""
    own = _named(row, runs)
    if made_of := listed(row.tags.get(PARENTS, "")):
        made = row.tags.get("method") or row.tags.get("operation", "made")
        return f"{own}: {made} of {', '.join(_short(each, parents, runs) for each in made_of)}{gone}"
    if row.tags.get("checkpoint.origin"):
        return f"{row.tags['checkpoint.origin']}, from elsewhere{gone}"
    run = runs.get(version.run)
    if run is None:
        return f"{own}{gone}"
    rows, label = run.tags.get("data.train.name", ""), run.tags.get("data.train.version", "")
    on = f" on {rows}" + (f"@{label}" if label and "/" not in label else "") if rows else ""
    base = f" of {run.tags['base']}" if run.tags.get("base") else ""
    return f"{own}: {run.params.get('choice.algo', 'trained')}{base}{on}{gone}"


def _line(
    version: VersionRow, shown: Sequence[Column], parents: Mapping[str, CheckpointRow], runs: Mapping[str, RunRow]
) -> Line:
    tags = version.checkpoint.tags if version.checkpoint else {}
    scores = {each.head: value for each in shown if (value := each.value(version)) is not None}
    shares = [each.value for each in version.measured if each.name == _OVERLAP]
    of_first = [each.value for each in version.measured if each.name == _OVERLAP and shown and each.digest == shown[0].digest]
    return Line(
        version,
        scores,
        tags.get("certificate", ""),
        max(of_first or shares, default=None),
        int(tags["bytes"]) if tags.get("bytes", "").isdecimal() else None,
        origin(version, parents, runs),
    )


def _is_of(each: Measured, column: Column) -> bool:
    return (each.name, each.dataset, each.digest) == (column.score, column.dataset, column.digest)


def _short(ref: str, parents: Mapping[str, CheckpointRow], runs: Mapping[str, RunRow]) -> str:
    row = parents.get(ref.removeprefix("models:/"))
    return _named(row, runs) if row else ref


def _named(row: CheckpointRow, runs: Mapping[str, RunRow]) -> str:
    run = runs.get(row.run)
    return f"{run.name}/{row.name}" if run else f"{row.name} of {row.run[:8]}…" if row.run else row.name
