"""What the record knows of a version and of the champion, as a policy asks for it, and what it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlops_llm import digest
from mlops_llm.component import near
from mlops_llm.data.read import Read
from mlops_llm.data.ref import open_dataset
from mlops_llm.errors import UserError
from mlops_llm.eval.outcome import Score
from mlops_llm.eval.recorded import Recorded, evaluations, read, side_by_side
from mlops_llm.eval.recording import BESIDE, PREFIX, named
from mlops_llm.eval.report.source import ROWS
from mlops_llm.models import code
from mlops_llm.registry.decision import Beside, Evidence, Value
from mlops_llm.registry.policy import Floor, Policy
from mlops_llm.tracking import checkpoints, ledger
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.registered import VersionRow
from mlops_llm.tracking.store import Store

SIGNED = "signed_off."
"""How tags of a version begin that say who signed it off."""


@dataclass(frozen=True)
class Rows:
    """Rows that a policy asks about."""

    dataset: str
    """As the policy names it."""
    limit: int | None
    digest: str
    """Canonical, of the rows that count."""
    count: int

    @property
    def said(self) -> str:
        """For a person."""
        return f"{self.dataset}[{self.count}]" if self.limit else self.dataset


@dataclass(frozen=True)
class Lack:
    """Evidence that the record does not have, and an evaluation would give."""

    check: str
    """Name of the check that needs it."""
    version: VersionRow
    is_champion: bool
    rows: Rows
    score: str
    why: str

    @property
    def key(self) -> tuple[int, str]:
        """Which evaluation would give it: version and rows."""
        return self.version.version, self.rows.digest

    def __str__(self) -> str:
        """For a person."""
        who = f"the champion (version {self.version.version})" if self.is_champion else f"version {self.version.version}"
        return f"{who} {self.why}"


@dataclass(frozen=True)
class Gathered:
    """Evidence, and what would complete it."""

    evidence: Evidence
    lacks: tuple[Lack, ...]


class Asked:
    """A policy with the rows that it names, read once."""

    def __init__(self, policy: Policy, how: Read) -> None:
        """Read the rows.

        Raises:
            UserError: a dataset is unknown, or has fewer rows than are to count.
        """
        policy.check()
        self.policy = policy
        self._how = how
        self._read = dict[tuple[str, int | None], Rows]()
        self.primary = self._rows(policy.dataset, policy.limit, "policy.limit") if policy.dataset else None
        self.floors = [
            self._rows(each.dataset, each.limit, "policy.floors.limit") if each.dataset else None for each in policy.floors
        ]

    def _rows(self, dataset: str, limit: int | None, setting: str) -> Rows:
        key = (dataset, limit)
        if key not in self._read:
            source = open_dataset(dataset, self._how)
            if limit and limit > len(source.rows):
                raise UserError(f"is {limit}, {dataset} has {len(source.rows)} rows", setting, "give a smaller one, or null")
            count = limit or len(source.rows)
            self._read[key] = Rows(dataset, limit, digest.canonical(source.rows[at] for at in range(count)), count)
        return self._read[key]

    @property
    def sets(self) -> list[Rows]:
        """All rows that are asked about, each once."""
        return list(self._read.values())


@dataclass
class _Side:
    """A version with its evaluations."""

    row: VersionRow
    is_champion: bool
    there: list[RunRow]
    kept: dict[str, Recorded] = field(default_factory=dict)

    def telling(self, rows: Rows, score: str) -> list[RunRow]:
        """Evaluations of the rows that have a score, the newest first."""
        return [each for each in self.there if each.tags[ROWS] == rows.digest and score in each.metrics]

    def recorded(self, store: Store, run: RunRow) -> Recorded:
        if run.id not in self.kept:
            self.kept[run.id] = read(store, [run.id])[0]
        return self.kept[run.id]


def gather(store: Store, asked: Asked, version: VersionRow, champion: VersionRow | None, seed: int = 0) -> Gathered:
    """Read what the record knows.

    Args:
        store: the record.
        asked: the policy.
        version: that wants to become the champion.
        champion: that it is held against; None where there is none.
        seed: of what the paired test draws.
    """
    own, other = _side(store, version, False), _side(store, champion, True) if champion else None
    lacks, why = list[Lack](), dict[str, str]()
    found = Evidence(version.version, champion.version if champion else None, why=why)
    found = _with_primary(store, asked, own, other, found, lacks, why, seed)
    values = list[Value | None]()
    for number, (floor, rows) in enumerate(zip(asked.policy.floors, asked.floors, strict=True), 1):
        values.append(_floor(store, floor, rows, own, f"floor {number}", lacks, why))
    tags = version.checkpoint.tags if version.checkpoint else {}
    found = replace(
        found,
        floors=values,
        certificate=tags.get("certificate", ""),
        operation=tags.get("operation", ""),
        code=tags.get(code.TAG) or _own_code(store, version),
        overlap=_overlap(asked, own, why),
        agreement=_agreement(store, asked, why),
        signed=sorted(key.removeprefix(SIGNED) for key in version.tags if key.startswith(SIGNED)),
    )
    return Gathered(found, tuple(lacks))


def _own_code(store: Store, version: VersionRow) -> str:
    """Digest of the code by which a model is loaded that no run of ours made: nobody's word is taken that it has none."""
    row = version.checkpoint
    if row is None or (row.run and checkpoints.ORIGIN not in row.tags):
        return ""
    try:
        return code.of_model(checkpoints.place_of(store, row))
    except UserError:  # what cannot be loaded runs nothing
        return ""


def _side(store: Store, row: VersionRow, is_champion: bool) -> _Side:
    weights = row.checkpoint.tags.get("digest.weights", "") if row.checkpoint else ""
    return _Side(row, is_champion, evaluations(store, weights))


def _with_primary(
    store: Store,
    asked: Asked,
    own: _Side,
    other: _Side | None,
    found: Evidence,
    lacks: list[Lack],
    why: dict[str, str],
    seed: int,
) -> Evidence:
    rows, score = asked.primary, asked.policy.primary
    if rows is None:
        return found
    mine = own.telling(rows, score)
    if not mine:
        lacks.append(_lack(store, "primary", own, rows, score))
        why["primary"] = str(lacks[-1])
    theirs = other.telling(rows, score) if other else []
    if other and not theirs:
        lacks.append(_lack(store, "champion", other, rows, score))
        why["champion"] = str(lacks[-1])
    if not mine:
        return found
    if not other or not theirs:
        return replace(found, primary=_value(own.recorded(store, mine[0]), score, rows))
    pair = next(((a, b) for a in mine for b in theirs if _settings(a) == _settings(b)), None)
    if pair is None:
        differ = _differing(mine[0], theirs[0])
        for side in (own, other):
            lacks.append(Lack("champion", side.row, side.is_champion, rows, score, f"was asked with other settings ({differ})"))
        why["champion"] = f"the two were asked with other settings ({differ})"
        return replace(found, primary=_value(own.recorded(store, mine[0]), score, rows))
    both = [own.recorded(store, pair[0]), other.recorded(store, pair[1])]
    values = [_value(each, score, rows) for each in both]
    try:
        beside = _beside(both, score, seed)
    except UserError as error:
        beside, why["champion"] = None, f"it cannot be compared with the champion: {error.what}"
    return replace(found, primary=values[0], of_champion=values[1], beside=beside)


def _beside(both: Sequence[Recorded], score: str, seed: int) -> Beside:
    """The paired test of one score, which is named before anybody looks, so that its p needs no adjusting.

    Raises:
        UserError: nothing can be tested; why is said.
    """
    if not all(each.facts["texts"] for each in both):  # then rows are paired by their places
        both = [replace(each, facts={**each.facts, "texts": False}) for each in both]
    compared = side_by_side(both, common=True, seed=seed)
    row = next((each for each in compared.rows if named(each.score.name) == score), None)
    if row is None or not row.pairs:
        raise UserError(row.untested if row and row.untested else f"{score} is not known sample by sample")
    test, sign = row.pairs[0].found, 1 if row.score.higher_is_better else -1
    low, high = sorted(sign * each for each in test.interval) if test.interval else (None, None)
    return Beside(sign * test.difference, low, high, test.p, test.count, test.test)


def _floor(
    store: Store, floor: Floor, rows: Rows | None, own: _Side, name: str, lacks: list[Lack], why: dict[str, str]
) -> Value | None:
    if rows is not None:
        there = own.telling(rows, floor.score)
        if not there:
            lacks.append(_lack(store, name, own, rows, floor.score))
            why[name] = str(lacks[-1])
            return None
        return _value(own.recorded(store, there[0]), floor.score, rows)
    weights = own.row.checkpoint.tags.get("digest.weights", "") if own.row.checkpoint else ""
    runs = ledger.tagged(store, {"stage": "eval", "digest.weights": weights}) if weights else []
    told = [each for each in runs if each.status == "FINISHED" and floor.score in each.metrics]
    if not told:
        known = sorted({key for each in runs for key in each.metrics if key.startswith(PREFIX)})
        why[name] = f"no evaluation of version {own.row.version} tells {floor.score}{near(floor.score, known)}"
        return None
    return _value(own.recorded(store, told[0]), floor.score, None)


def _lack(store: Store, check: str, side: _Side, rows: Rows, score: str) -> Lack:
    of_rows = [each for each in side.there if each.tags[ROWS] == rows.digest]
    known = logged(store, rows)
    hint = near(score, known) if score not in known else ""
    why = f"has no {score}{hint} on {rows.said}" if of_rows else f"was not evaluated on {rows.said} by {score}{hint}"
    return Lack(check, side.row, side.is_champion, rows, score, why)


def logged(store: Store, rows: Rows) -> list[str]:
    """Names of the scores that any evaluation of some rows has told."""
    runs = ledger.evaluations_of(store, rows.digest, 50)
    return sorted({key for run in runs for key in run.metrics if key.startswith(PREFIX) and not key.endswith(BESIDE)})


def _value(one: Recorded, score: str, rows: Rows | None) -> Value | None:
    found: Score | None = next((each for each in one.outcome.scores if named(each.name) == score), None)
    if found is None or found.higher_is_better is None:
        return None
    return Value(found.value, found.higher_is_better, one.run.name, rows.count if rows else found.count)


def _overlap(asked: Asked, own: _Side, why: dict[str, str]) -> float | None:
    if asked.policy.overlap is None:
        return None
    shares = list[float]()
    for rows in asked.sets:
        runs = [each for each in own.there if each.tags[ROWS] == rows.digest]
        share = next((each.metrics["overlap/share"] for each in runs if "overlap/share" in each.metrics), None)
        if share is None:
            said = "its training data is not known" if runs else "it was not evaluated"
            why["overlap"] = f"whether {rows.said} was met in training cannot be told: {said}"
            return None
        shares.append(share)
    return max(shares)


def _agreement(store: Store, asked: Asked, why: dict[str, str]) -> float | None:
    """Rank correlation of people's overall rating with that of the judge who rated the most of the same answers."""
    if asked.policy.agreement is None or asked.primary is None:
        return None
    from mlops_llm.eval.config import Eval
    from mlops_llm.eval.judge import OVERALL
    from mlops_llm.eval.people.calibration import calibrated

    try:
        found = calibrated(Eval(op=None, dataset=asked.primary.dataset), store)
    except UserError as error:
        why["agreement"] = str(error)
        return None
    of = [each for each in found.agreement if each.dimension == OVERALL and each.found.spearman.is_known]
    if not of:
        why["agreement"] = "people and judge rated nothing in common"
        return None
    return max(of, key=lambda each: each.found.count).found.spearman.value


def _settings(run: RunRow) -> Mapping[str, str]:
    """How answers were asked for."""
    return {key: value for key, value in run.params.items() if key.startswith("sampling.") and key != "sampling.batch_size"}


def _differing(one: RunRow, other: RunRow) -> str:
    a, b = _settings(one), _settings(other)
    return ", ".join(f"{key} {a.get(key, '-')} / {b.get(key, '-')}" for key in sorted({*a, *b}) if a.get(key) != b.get(key))
