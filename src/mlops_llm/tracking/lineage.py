"""What a model was made of: every dataset behind it, through all trainings and all parents of merges.

A training says in its run's tags which rows it read and what it started from. An operation that makes one checkpoint of
several says so in the tag `parents` of the checkpoint or of its run: a JSON list of refs that mean the same for ever, such as
`["models:/m-…", "tiny"]`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mlops_llm.errors import UserError
from mlops_llm.tracking import checkpoints, ledger
from mlops_llm.tracking.store import Store, is_away

PARENTS = "parents"
"""Tag of a checkpoint, or of its run, that names what it was made of."""
KNOWN = ("tiny",)
"""Models from elsewhere whose own training rows can be written again."""
_PARTS = {"training": "data.train", "validation": "data.validation", "evaluation": "data.evaluation"}
_DIGEST_CHARACTERS = 32


@dataclass(frozen=True)
class Used:
    """Rows as a training used them."""

    name: str
    """The dataset's name."""
    version: str
    """Version label, or the path where it was no registered version."""
    source: str
    """Path or address of the file that was read."""
    context: str
    """`training`; `validation` or `evaluation` of rows that only chose the checkpoint."""
    rows: int
    digests: Mapping[str, str]
    """`raw` of the whole file, `canonical` and `seen` of the used rows."""
    run: str
    """Name of the run."""
    run_id: str
    holdout: float
    """Share of the file's rows that the run held out by their digests; 0 where the file is used whole."""
    read: Mapping[str, str] = field(default_factory=dict)
    """The run's settings for reading the file: `encoding`, and `columns.FIELD`."""


@dataclass(frozen=True)
class Lineage:
    """What the record knows of a model's past."""

    datasets: tuple[Used, ...]
    """The newest training's first."""
    unknown: tuple[str, ...]
    """What it cannot tell, for a person."""
    bases: tuple[str, ...] = ()
    """Models of `KNOWN` that it began with."""
    runs: tuple[str, ...] = ()
    """Names of the runs that made it, the newest first."""
    influences: tuple[str, ...] = ()
    """Teachers and reward models. Their own data is not followed: the model met their judgement, but none of those rows."""


class Named(Protocol):
    """A model as `models.ref.Place` names it."""

    @property
    def ref(self) -> str:
        """What a person asked for."""

    @property
    def checkpoint(self) -> str:
        """LoggedModel id; empty where the record does not hold it."""

    @property
    def run(self) -> str:
        """Run that made it."""


def listed(text: str) -> list[str]:
    """What a tag `parents` names; nothing where it is no list."""
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return []
    return [str(each) for each in found] if isinstance(found, list) else []


def checkpoint_ids(text: str) -> list[str]:
    """LoggedModel ids among what a tag `parents` names."""
    found = (re.fullmatch(r"(?:models:/)?(m-[0-9a-f]{32})", each) for each in listed(text))
    return [each[1] for each in found if each]


def trace(store: Store | None, place: Named, weights: str = "") -> Lineage:
    """Follow a model back to what it was made of.

    Args:
        store: the record; None where there is none.
        place: the model.
        weights: digest of its weights, by which a folder that holds a recorded checkpoint is known as that one.
    """
    return _walked(store, place, weights).lineage


@dataclass(frozen=True)
class Ancestor:
    """A model on the way back."""

    key: str
    """LoggedModel id; else id of the run that made it, or the ref of a model from elsewhere."""
    name: str
    """`RUN/CHECKPOINT` or a ref."""
    how: str
    """What made it: `sft`, `merge_slerp`; empty of a base."""
    run: str
    """Name of the run that made it."""
    datasets: tuple[Used, ...]
    parents: tuple[str, ...]
    """Keys of what it was made of or trained from."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Of its checkpoint."""


def tree(store: Store | None, place: Named, weights: str = "") -> tuple[dict[str, Ancestor], Lineage]:
    """Follow a model back as `trace` does, and tell what was made of what.

    Args:
        store: the record; None where there is none.
        place: the model.
        weights: digest of its weights, see `trace`.

    Returns:
        Key -> model, the one in question first; and what `trace` returns.
    """
    walk = _walked(store, place, weights)
    keys = list(dict.fromkeys(key for source in walk.edges for key in walk.edges[source]))
    return {key: walk.ancestor(key) for key in keys}, walk.lineage


def ancestors(store: Store, model: str) -> dict[str, str]:
    """All that a checkpoint came from, as far as the record knows.

    Returns:
        LoggedModel id -> empty of the checkpoint itself and of what it was made of; `teacher` or `reward model` of what any of
        these learned from, and of what that one was made of.
    """
    walk = _Walk(store)
    walk.checkpoint(model)
    found, asked, role = dict[str, str](), 0, ""
    while True:
        while walk.waiting:
            walk.follow(*walk.waiting.pop(0))
        for each in walk.met:
            if re.fullmatch(r"m-[0-9a-f]{32}", each):
                found.setdefault(each, role)
        if asked == len(walk.judges):
            return found
        role, ref, weights = walk.judges[asked]
        exact = checkpoints.by_weights(store, weights) if weights else None  # an alias in the ref has moved on
        if exact:
            walk.checkpoint(exact.id, exact.run)
        else:
            walk.named(ref, weights)
        asked += 1


def _walked(store: Store | None, place: Named, weights: str) -> _Walk:
    walk = _Walk(store)
    if place.checkpoint:
        walk.checkpoint(place.checkpoint, place.run)
    else:
        walk.named(place.ref, weights)
    while walk.waiting:
        walk.follow(*walk.waiting.pop(0))
    return walk


class _Walk:
    """The way back; what was met once is not followed again."""

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self.met: set[str] = set()
        """Checkpoints, runs and names that were met."""
        self.waiting: list[tuple[str, str]] = []
        """Checkpoint and run of what is still to be followed; one of them may be empty."""
        self.datasets: list[Used] = []
        self.unknown: list[str] = []
        self.bases: list[str] = []
        self.runs: list[str] = []
        self.influences: list[str] = []
        self.judges: list[tuple[str, str, str]] = []
        """Role, ref and digest of weights of each of these; whoever wants to know follows them."""
        self.edges: dict[str, list[str]] = {}
        """Checkpoint, or `run ID`, -> keys of what it was made of; the model in question is made of nothing yet."""
        self._at = ""
        self._rows: dict[str, tuple[checkpoints.CheckpointRow | None, Any]] = {}

    @property
    def lineage(self) -> Lineage:
        """What was met."""
        return Lineage(tuple(self.datasets), tuple(self.unknown), tuple(self.bases), tuple(self.runs), tuple(self.influences))

    def ancestor(self, key: str) -> Ancestor:
        """A model that was met."""
        row, run = self._rows.get(key, (None, None))
        made_of = [*self.edges.get(key, []), *(self.edges.get(f"run {run.info.run_id}", []) if run else [])]
        name = _name(run) if run else ""
        how = ""
        if row or run:
            how = (row.tags.get("operation", "") if row else "") or (run.data.params.get("choice.algo", "") if run else "")
        return Ancestor(
            key,
            f"{name}/{row.name}" if row and name else row.tags.get("ref") or row.name if row else name or key,
            how,
            name,
            tuple(each for each in self.datasets if run and each.run_id == run.info.run_id),
            tuple(dict.fromkeys(each for each in made_of if each != key)),
            row.tags if row else {},
        )

    def _link(self, key: str) -> None:
        self.edges.setdefault(self._at, []).append(key)

    def checkpoint(self, model: str, run: str = "") -> None:
        self._link(model or run)
        if self._is_new(model or run):
            self.waiting.append((model, run))

    def named(self, ref: str, weights: str = "") -> None:
        """A model by a ref that the record may not hold."""
        if ref in KNOWN:
            self._link(ref)
            if self._is_new(ref):
                self.bases.append(ref)
            return
        try:
            found = self._recorded(ref, weights)
        except UserError as error:
            if is_away(error):
                raise
            self._link(ref)
            self._tell(f"{ref}: {error.what}")
            return
        if found:
            self.checkpoint(found.id, found.run)
        else:
            self._link(ref)
            self._tell(f"{ref} comes from elsewhere: what it was trained on is not recorded")

    def follow(self, model: str, run: str) -> None:
        """Read what made a checkpoint, and note what that one was made of."""
        store, tags, row = self._store, dict[str, str](), None
        self._at = model or run
        assert store is not None  # only the record names checkpoints
        if model:
            try:
                row = checkpoints.by_id(store, model)
                tags, run = row.tags, row.run or run
            except UserError as error:
                if is_away(error):
                    raise
                if not run:
                    self._tell(f"checkpoint {model} is gone from the record")
        made = _run(store, run) if run else None
        self._rows[model or run] = (row, made)
        if run and made is None:
            self._tell(f"run {run}, which made {model or 'a checkpoint'}, is gone from the record")
        parents = tags.get(PARENTS) or (made.data.tags.get(PARENTS) if made else None)
        for each in self._listed(parents, model or run) if parents else ():
            self.named(each)
        if made is None:
            if tags.get("parent"):
                self.checkpoint(tags["parent"])
            elif tags.get("checkpoint.origin"):  # weights from elsewhere that were evaluated
                self.named(tags.get("ref") or tags["checkpoint.origin"], tags.get("digest.weights", ""))
            elif tags and not run and not parents:
                self._tell(f"checkpoint {model} does not say what made it")
        elif self._is_new(f"run {run}"):
            self._training(made, bool(parents))

    def _training(self, run: Any, has_parents: bool) -> None:
        """Note the rows of a run, and what it started from."""
        tags, name = run.data.tags, _name(run)
        self._at = f"run {run.info.run_id}"
        self.runs.append(name)
        self.datasets += [each for each in (_used(run, part) for part in _PARTS) if each]
        self._influences(run, name)
        base = tags.get("base", "")
        if tags.get("base.checkpoint") or tags.get("base.run"):
            self.checkpoint(tags.get("base.checkpoint", ""), tags.get("base.run", ""))
        elif base:
            self.named(base, tags.get("digest.base", ""))
        elif not has_parents:
            self._tell(f"run {name} does not say what it started from")

    def _influences(self, run: Any, name: str) -> None:
        tags, params = run.data.tags, run.data.params
        rewarding = params.get("reward.model.ref") if "digest.reward.model" in tags else None
        for role, ref in (("teacher", tags.get("teacher")), ("reward model", rewarding)):
            if ref:
                self.influences.append(f"{role} {ref} (run {name})")
                self.judges.append((role, ref, tags.get(f"digest.{role.replace(' ', '.')}", "")))

    def _recorded(self, ref: str, weights: str) -> checkpoints.CheckpointRow | None:
        """The checkpoint behind a ref, or behind a folder with its weights; None where the record holds none.

        Raises:
            UserError: the ref means a checkpoint, which is not there.
        """
        store = self._store
        if store is None:
            return None
        if found := re.fullmatch(r"(?:models:/)?(m-[0-9a-f]{32})", ref):
            return checkpoints.by_id(store, found[1])
        if found := re.fullmatch(r"models:/([^/@]+)(?:@([^/]+)|/(\d+))", ref):
            return checkpoints.by_version(store, found[1], found[2] or found[3], alias=bool(found[2]))
        if found := re.fullmatch(r"runs:/(.+)/(checkpoint-[^/]+)", ref):
            run = ledger.find_run(store, found[1])
            return checkpoints.by_id(store, checkpoints.id_of(store, run.id, found[2]))
        return checkpoints.by_weights(store, weights) if re.fullmatch("[0-9a-f]{64}", weights) else None

    def _listed(self, text: str, whose: str) -> list[str]:
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            self._tell(f"the tag '{PARENTS}' of {whose} is no list of models")
            return []
        return found

    def _tell(self, words: str) -> None:
        if words not in self.unknown:
            self.unknown.append(words)

    def _is_new(self, name: str) -> bool:
        is_new = bool(name) and name not in self.met
        self.met.add(name)
        return is_new


def _run(store: Store, run: str) -> Any:
    """MLflow's run, also a deleted one as long as the record still has it; None where it has not."""
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_run(run)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _name(run: Any) -> str:
    deleted = run.info.lifecycle_stage != "active"
    return f"{run.info.run_name}{' (deleted)' if deleted else ''}"


def used(store: Store, run: str, context: str) -> Used | None:
    """The rows of a run in a context, such as `training`; None where it used none."""
    made = _run(store, run)
    return _used(made, context) if made else None


def _used(run: Any, context: str) -> Used | None:
    """The rows of a run in a context; None where it used none, or where its score of them chose nothing."""
    tags, params = run.data.tags, run.data.params
    facts = {
        key.removeprefix(f"{_PARTS[context]}."): value for key, value in tags.items() if key.startswith(f"{_PARTS[context]}.")
    }
    chooses = context != "evaluation" or params.get("best.metric", "").startswith("score/")
    if "digest.canonical" not in facts or not chooses:
        return None
    has_own_file = params.get("validation", "None") not in ("None", "")
    digests = {key.removeprefix("digest."): value for key, value in facts.items() if key.startswith("digest.")}
    return Used(
        facts.get("name", "?"),
        facts.get("version", ""),
        _source(run, facts.get("name", ""), digests["canonical"]) or facts.get("version", ""),
        context,
        int(facts.get("rows", "0")),
        digests,
        _name(run),
        run.info.run_id,
        0.0 if has_own_file or context == "evaluation" else float(params.get("holdout", "0")),
        {key.removeprefix("read."): value for key, value in params.items() if key.startswith("read.") and value != "None"},
    )


def _source(run: Any, name: str, canonical: str) -> str:
    for each in run.inputs.dataset_inputs if run.inputs else ():
        if each.dataset.name == name and each.dataset.digest == canonical[:_DIGEST_CHARACTERS]:
            return str(json.loads(each.dataset.source).get("uri", ""))
    return ""
