"""All that a report says, gathered from the record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from mlops_llm.eval.report import rated, rivals
from mlops_llm.eval.report.source import facts_of
from mlops_llm.tracking import ledger
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.store import Store

_MACHINE = {
    "command": "command", "commit": "git.commit", "uncommitted": "git.uncommitted", "python": "python", "system": "host.system",
    "cpu": "host.cpu", "memory_gb": "host.memory_gb", "gpu": "host.gpu", "prompt": "prompt",
}  # fmt: skip
_PACKAGES = "version."
_DIGITS = 12
"""Of a digest that stands for a version."""


def reported(store: Store, ref: str) -> dict[str, Any]:
    """An evaluation's facts with `record`, `comparison` and `people`.

    Args:
        store: the record.
        ref: id or name of the evaluation's run.

    Raises:
        UserError: there is no such run, it is no evaluation, or it holds no results.
    """
    run = ledger.find_run(store, ref)
    found = facts_of(store, run, ref)
    found["comparison"] = rivals.comparison(store, run, found)
    found["people"] = rated.people(store, found)
    found["record"] = _record(store, run)
    return without_places(found)


def without_places(found: Mapping[str, Any]) -> dict[str, Any]:
    """Facts in which no file's place on this machine stands for a version: a digest does, and elsewhere the file's name."""
    data, names = found["dataset"], dict[str, str]()
    for each in filter(None, [data, *found["benchmarks"]]):
        if PurePath(each["source"]).is_absolute():
            names[each["source"]] = PurePath(each["source"]).name
    made = dict(found)
    if data and data["version"] in names:
        version = f"sha256 {data['digests'].get('raw', data['digests']['canonical'])[:_DIGITS]}"
        made["dataset"] = data | {"version": version}
        made["dataset_name"] = found["dataset_name"].replace(data["version"], version)
    if made.get("comparison") and data:
        made["comparison"] = _renamed(made["comparison"], {data["version"]: made["dataset"]["version"]} | names)
    made["facts"], made["warnings"] = _renamed(found["facts"], names), _renamed(found["warnings"], names)
    return made


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for place, name in names.items():
            value = value.replace(place, name)
        return value
    if isinstance(value, Mapping):
        return {key: _renamed(each, names) for key, each in value.items()}
    return [_renamed(each, names) for each in value] if isinstance(value, list) else value


def _record(store: Store, run: RunRow) -> dict[str, Any]:
    return {
        "run": run.id,
        "name": run.name,
        "project": run.project,
        "status": run.status,
        "link": store.link(run.experiment, run.id),
        "machine": {name: run.tags[key] for name, key in _MACHINE.items() if key in run.tags},
        "packages": {key.removeprefix(_PACKAGES): value for key, value in run.tags.items() if key.startswith(_PACKAGES)},
        "settings": {key: value for key, value in sorted(run.params.items()) if value not in ("None", "", "[]")},
    }
