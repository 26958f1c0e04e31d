"""A check-up of the record: runs of dead processes, moves that were cut off, files that are gone or have changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum

from mlops_llm.errors import UserError
from mlops_llm.models import digested
from mlops_llm.registry.finding import Finding, broken, fine, warning
from mlops_llm.tracking import champions, checkpoints, datasets, environment, ledger, registered
from mlops_llm.tracking.checkpoints import CheckpointRow
from mlops_llm.tracking.registered import VersionRow
from mlops_llm.tracking.store import Store, local_path

_SHOWN = 10
MENDED = "mended by this command"


class Digests(Enum):
    """Whose weights are read again."""

    aliased = "aliased"
    """What an alias points to."""
    every = "every"
    """Every checkpoint of the record."""
    none = "none"
    """Nobody's."""


def checkup(store: Store, digests: Digests) -> Iterator[Finding]:
    """Look at the record.

    Args:
        store: the record.
        digests: whose weights are read again.
    """
    yield fine("record", store.address if not store.is_server else f"a server answers at {store.address.rpartition('@')[2]}")
    yield from _stale(store)
    yield from _cut_off(store)
    versions = registered.versions(store)
    yield from _aliases(store, versions)
    yield from _files(store)
    yield from _datasets(store)
    yield from _digests(store, versions, digests)


def _stale(store: Store) -> Iterator[Finding]:
    dead = [each for each in ledger.running(store, {}) if not environment.believed_alive(each.tags)]
    foreign = [each for each in dead if "run.host" not in each.tags]  # of another program, or one that `mlflow run` left behind
    for each in foreign:
        said = f"{each.name} is called running by another program, and nobody can tell whether it is"
        yield warning("stale run", said, f"where it is not: MlflowClient().set_terminated('{each.id}', 'KILLED')")
    dead = [each for each in dead if each not in foreign]
    here = [each for each in dead if each.tags.get("run.host", "").partition("/")[0] == environment.host().partition("/")[0]]
    for each in here:
        yield warning("stale run", f"{each.name} is called running, and its process is gone", MENDED)
    for each in (each for each in dead if each not in here):
        where = each.tags["run.host"].partition("/")[0]
        yield warning("stale run", f"{each.name} of {where} has given no sign of life", f"start any command on {where}")
    if not dead:
        yield fine("runs", "none is called running whose process is gone")


def _cut_off(store: Store) -> Iterator[Finding]:
    for each in registered.models(store):
        if (left := champions.pending(each.tags)) and not champions.is_at_work(store, left):
            yield warning("champion", f"the {left.kind} of {each.name} version {left.version} was cut off", MENDED)


def _aliases(store: Store, versions: Sequence[VersionRow]) -> Iterator[Finding]:
    whole = list[VersionRow]()
    for each in (one for one in versions if one.aliases):
        named, row = f"{each.model}@{each.aliases[0]}", each.checkpoint
        remedy = f"give another version the alias: op=promote or op=rollback name={each.model}"
        if row is None:
            yield broken("alias", f"{named} is made of no checkpoint of this record", remedy)
        elif row.tags.get("checkpoint.files") == checkpoints.REMOVED:
            yield broken("alias", f"{named}: its files were removed", remedy)
        elif said := _gone(store, row):
            yield broken("alias", f"{named}: {said}", f"bring them back, or {remedy}")
        else:
            whole.append(each)
    if whole:
        yield fine("aliases", f"{sum(len(each.aliases) for each in whole)} in {len({each.model for each in whole})} models")


def _files(store: Store) -> Iterator[Finding]:
    rows = list(checkpoints.everywhere(store))
    gone = [(row, said) for row in rows if (said := _gone(store, row))]
    runs = registered.runs(store, (row.run for row, _ in gone[:_SHOWN]))
    for row, said in gone[:_SHOWN]:
        named = f"{runs[row.run].name}/{row.name}" if row.run in runs else f"{row.name} of {row.run or 'elsewhere'}"
        yield broken("files", f"{named}: {said}", "bring them back, or delete the checkpoint in MLflow")
    if len(gone) > _SHOWN:
        yield broken("files", f"and {len(gone) - _SHOWN} more", "see result.json")
    if not gone:
        yield fine("files", f"of {len(rows)} checkpoints are there")


def _gone(store: Store, row: CheckpointRow) -> str:
    """Why a checkpoint's files are not there; empty where they are, or lie with the server."""
    if row.tags.get("checkpoint.storage") == "upload":
        return ""
    try:
        return "" if any(checkpoints.place_of(store, row).iterdir()) else "its folder is empty"
    except UserError as error:
        return error.what
    except FileNotFoundError:
        return "its folder is gone"


def _datasets(store: Store) -> Iterator[Finding]:
    known = datasets.all_registered(store)
    gone = list[str]()
    for each in (version for one in known for version in one.versions):
        run = store.client.get_run(each.run)
        place = local_path(run.info.artifact_uri)
        if place is not None and not (place / run.data.tags["dataset.file"]).is_file():
            gone.append(f"{each.name}@{each.label}")
    for name in gone:
        remedy = f"register it again: data op=add name={name.partition('@')[0]}"
        yield broken("dataset", f"the file of {name} is gone from the record", remedy)
    if known and not gone:
        yield fine("datasets", f"{sum(len(each.versions) for each in known)} versions of {len(known)}")


def _digests(store: Store, versions: Sequence[VersionRow], digests: Digests) -> Iterator[Finding]:
    if digests is Digests.none:
        return
    rows = {each.checkpoint.id: each.checkpoint for each in versions if each.aliases and each.checkpoint}
    if digests is Digests.every:
        rows |= {each.id: each for each in checkpoints.everywhere(store)}
    read = 0
    for row in rows.values():
        wanted = row.tags.get("digest.weights")
        if not wanted or row.tags.get("checkpoint.storage") == "upload":
            continue
        try:
            now = digested.digest_now(checkpoints.place_of(store, row))
        except (UserError, OSError, ValueError) as error:
            if not isinstance(error, UserError):
                yield broken("weights", f"{row.name} of {row.run}: cannot be read ({error})", "take another checkpoint")
            continue
        read += 1
        if now != wanted:
            said = f"{row.name} of {row.run}: digest {now[:12]}… is not the recorded {wanted[:12]}…"
            yield broken("weights", said, "bring the old files back; until then use another version")
    yield fine("weights", f"of {read} checkpoints were read again")
