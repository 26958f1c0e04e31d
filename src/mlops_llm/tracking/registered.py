"""What the model registry holds: versions with their aliases, numbers and origin, in a fixed number of queries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlops_llm.component import near
from mlops_llm.errors import UserError
from mlops_llm.tracking import checkpoints, ledger
from mlops_llm.tracking.checkpoints import CheckpointRow
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.store import Store

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
_TOGETHER = 1000
"""Checkpoints in one query."""


@dataclass(frozen=True)
class Measured:
    """A number of a checkpoint, with what it was measured on."""

    name: str
    dataset: str
    """Its name; empty of a number that is of no dataset."""
    digest: str
    """Of the rows, its first 32 characters."""
    value: float
    run: str
    """Id of the run that told it."""


@dataclass(frozen=True)
class VersionRow:
    """A version of a registered model."""

    model: str
    version: int
    aliases: tuple[str, ...]
    created: int
    """Milliseconds since 1970."""
    description: str
    tags: Mapping[str, str]
    run: str
    """Id of the run that made its checkpoint; empty of weights from elsewhere."""
    checkpoint: CheckpointRow | None
    """None where the record has lost it, or another program registered something else."""
    measured: tuple[Measured, ...] = ()
    """The newest value of each number on each dataset."""

    @property
    def ref(self) -> str:
        """How a person names it."""
        return f"models:/{self.model}/{self.version}"


@dataclass(frozen=True)
class ModelRow:
    """A registered model."""

    name: str
    aliases: Mapping[str, int]
    """Alias -> version."""
    tags: Mapping[str, str] = field(default_factory=dict)


def models(store: Store, name: str = "") -> list[ModelRow]:
    """The registered models, or the one of a name, by name.

    Raises:
        UserError: none has this name; near ones are given.
    """
    if name and "'" not in name:
        found = [_model(each) for each in store.client.search_registered_models(f"name = '{name}'")]
        if found:
            return found
    every = list(_pages(lambda token: store.client.search_registered_models(max_results=1000, page_token=token)))
    if name:
        names = [each.name for each in every]
        known = f"registered are: {', '.join(names[:20])}" if names else "nothing is registered yet"
        raise UserError(f"no registered model is called '{name}'{near(name, names)}", "name", known)
    return sorted((_model(each) for each in every), key=lambda each: each.name)


def model(store: Store, name: str) -> ModelRow:
    """One registered model.

    Raises:
        UserError: there is none of this name; near ones are given.
    """
    if not name:
        raise UserError("names no registered model", "name", "give name=NAME; op=list shows them")
    return models(store, name)[0]


def versions(store: Store, name: str = "", most: int | None = None) -> list[VersionRow]:
    """Versions of all registered models, or of one, the newest first.

    Two queries tell models and versions, one more for each thousand of them their checkpoints and numbers.

    Args:
        store: the record.
        name: of the registered model; empty takes all.
        most: versions of each model, besides those that have an alias; None takes all.
    """
    known = models(store, name)
    held = {(each.name, number) for each in known for number in each.aliases.values()}
    query = f"name = '{name}'" if name else None
    order = ["name ASC", "version_number DESC"]
    found = list(
        _pages(lambda token: store.client.search_model_versions(query, max_results=10_000, order_by=order, page_token=token))
    )
    taken, counts = list[Any](), dict[str, int]()
    for each in found:
        counts[each.name] = counts.get(each.name, 0) + 1
        if most is None or counts[each.name] <= most or (each.name, int(each.version)) in held:
            taken.append(each)
    return _rows(store, taken, known)


def version(store: Store, name: str, which: str) -> VersionRow:
    """A version by its number or alias.

    Raises:
        UserError: model, version or alias is unknown; what there is, is named.
    """
    from mlflow.exceptions import MlflowException

    known = model(store, name)
    if which.isdecimal():
        try:
            found = store.client.get_model_version(name, which)
        except MlflowException as error:
            there = sorted(int(each.version) for each in store.client.search_model_versions(f"name = '{name}'"))
            remedy = f"it has: {', '.join(map(str, there[-20:]))}" if there else "it has none"
            raise UserError(f"'{name}' has no version {which}, or it was deleted", "version", remedy) from error
    elif which in known.aliases:
        found = store.client.get_model_version(name, str(known.aliases[which]))
    else:
        remedy = f"it has: {', '.join(sorted(known.aliases)) or 'no alias'}"
        raise UserError(f"'{name}' has no alias '{which}'{near(which, known.aliases)}", "version", remedy)
    return _rows(store, [found], [known])[0]


def of_checkpoint(store: Store, logged: str, name: str = "") -> VersionRow | None:
    """The newest version that is made of a checkpoint, or None.

    Args:
        store: the record.
        logged: LoggedModel id.
        name: of the registered model; empty takes any.
    """
    there = store.client.search_model_versions(f"source_path = 'models:/{logged}'")
    found = [each for each in there if not name or each.name == name]
    newest = max(found, key=lambda each: (int(each.creation_timestamp), int(each.version)), default=None)
    return version(store, newest.name, str(newest.version)) if newest else None


def measured(store: Store, logged: str) -> tuple[Measured, ...]:
    """Numbers of a checkpoint, the newest of each on each dataset."""
    return tuple(_measured(store.client.get_logged_model(logged)))


def used(store: Store, run: str) -> list[str]:
    """LoggedModel ids of the weights that a run reads."""
    inputs = store.client.get_run(run).inputs
    return [each.model_id for each in inputs.model_inputs] if inputs else []


def runs(store: Store, ids: Iterable[str]) -> dict[str, RunRow]:
    """Runs by their ids, those that are there, in one query for each hundred."""
    wanted, found = sorted({each for each in ids if each}), dict[str, RunRow]()
    experiments = [each.experiment_id for each in store.client.search_experiments()] if wanted else []
    for first in range(0, len(wanted), 100):
        listed = ", ".join(f"'{each}'" for each in wanted[first : first + 100])
        for run in store.client.search_runs(experiments, f"attributes.run_id IN ({listed})", max_results=100):
            found[run.info.run_id] = ledger.row_of(run)
    return found


def by_ids(store: Store, ids: Iterable[str]) -> dict[str, CheckpointRow]:
    """Checkpoints by their LoggedModel ids, those that are there."""
    return {name: checkpoints.row_of(each) for name, each in _logged(store, set(ids)).items()}


def _rows(store: Store, found: Sequence[Any], known: Sequence[ModelRow]) -> list[VersionRow]:
    aliases = dict[tuple[str, int], list[str]]()
    for each in known:
        for alias, number in sorted(each.aliases.items()):
            aliases.setdefault((each.name, number), []).append(alias)
    sources = {id(each): _source(store, each) for each in found}
    logged = _logged(store, {each for each in sources.values() if each})
    return [_version(each, aliases.get((each.name, int(each.version)), []), logged.get(sources[id(each)])) for each in found]


def _logged(store: Store, ids: set[str]) -> dict[str, Any]:
    wanted, found = sorted(ids), dict[str, Any]()
    experiments = [each.experiment_id for each in store.client.search_experiments()] if wanted else []
    for first in range(0, len(wanted), _TOGETHER):
        listed = ", ".join(f"'{each}'" for each in wanted[first : first + _TOGETHER])
        query = f"model_id IN ({listed})"
        pages = _pages(
            lambda token, query=query: store.client.search_logged_models(
                experiments, filter_string=query, max_results=_TOGETHER, page_token=token
            )
        )
        found |= {each.model_id: each for each in pages}
    return found


def _source(store: Store, version: Any) -> str:
    """LoggedModel id that a version is made of, also where it is a copy of another version; empty where that is not known."""
    source = str(version.source)
    if logged := re.fullmatch(r"models:/(m-[0-9a-f]{32})", source):
        return logged[1]
    try:
        copied = re.fullmatch(r"models:/([^/@]+)/(\d+)", source)
        return checkpoints.by_version(store, copied[1], copied[2], alias=False).id if copied else ""
    except UserError:
        return ""


def _model(each: Any) -> ModelRow:
    return ModelRow(each.name, {alias: int(number) for alias, number in each.aliases.items()}, dict(each.tags))


def _version(each: Any, aliases: Sequence[str], logged: Any) -> VersionRow:
    return VersionRow(
        each.name,
        int(each.version),
        tuple(aliases),
        int(each.creation_timestamp),
        each.description or "",
        dict(each.tags),
        each.run_id or "",
        checkpoints.row_of(logged) if logged else None,
        tuple(_measured(logged)) if logged else (),
    )


def _measured(logged: Any) -> Iterator[Measured]:
    newest = dict[tuple[str, str, str], Any]()
    for each in logged.metrics or []:
        key = (each.key, each.dataset_name or "", each.dataset_digest or "")
        if key not in newest or (each.timestamp, each.step) > (newest[key].timestamp, newest[key].step):
            newest[key] = each
    for (name, dataset, digest), each in newest.items():
        yield Measured(name, dataset, digest, each.value, each.run_id or "")


def _pages(page: Any) -> Iterator[Any]:
    token = None
    while True:
        found = page(token)
        yield from found
        token = found.token
        if not token:
            return
