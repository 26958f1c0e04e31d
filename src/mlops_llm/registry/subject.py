"""What a request is about: a version, or a model by its ref."""

from __future__ import annotations

from mlops_llm.errors import UserError
from mlops_llm.models import ref
from mlops_llm.models.ref import Place, resolve
from mlops_llm.registry.config import Registry
from mlops_llm.tracking import checkpoints, registered
from mlops_llm.tracking.registered import CHALLENGER, VersionRow
from mlops_llm.tracking.store import Store, connect


def version(store: Store, request: Registry) -> VersionRow:
    """The version that is meant: that with the alias challenger where none is named.

    Raises:
        UserError: model, version or alias is unknown; what there is, is named.
    """
    if request.version is None and CHALLENGER not in (known := registered.model(store, request.registered)).aliases:
        remedy = f"give {' or '.join(['version=N', *(f'version={each}' for each in sorted(known.aliases))])}"
        raise UserError(f"is not given, and '{known.name}' has no alias '{CHALLENGER}'", "version", remedy)
    return registered.version(store, request.registered, request.version or CHALLENGER)


def place(request: Registry) -> Place:
    """The model that is meant, by its ref or as a version.

    Raises:
        UserError: there is none.
    """
    return resolve(_ref(request))


def remembered(request: Registry) -> Place:
    """The model that is meant, as the record remembers it: its files may be gone or far away.

    Raises:
        UserError: there is none.
    """
    return ref.remembered(_ref(request))


def _ref(request: Registry) -> str:
    if request.model:
        return request.model
    if not request.name:
        raise UserError("names no model", "model", "give model=REF, or name=NAME version=champion")
    return version(connect(), request).ref


def maker(request: Registry) -> str:
    """Id of the run that made the model in question; empty where the record knows none.

    Raises:
        UserError: there is no such model.
    """
    if request.model:
        return ref.remembered(request.model).run
    store = connect()
    known = registered.model(store, request.registered)
    if not request.version and CHALLENGER not in known.aliases:
        rows = registered.versions(store, known.name, 1)
        return rows[0].run if rows else ""
    return version(store, request).run


def refuse_unusable(store: Store, version: VersionRow) -> None:
    """See that a version's files are there.

    Raises:
        UserError: they are not.
    """
    row = version.checkpoint
    if row is None:
        what = f"version {version.version} is made of no checkpoint of this record"
        raise UserError(what, "version", "name another version; op=show lists them")
    if row.id and row.tags.get("checkpoint.storage") != "upload":
        checkpoints.place_of(store, row)
