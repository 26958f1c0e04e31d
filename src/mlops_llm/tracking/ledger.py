"""Questions to the record about runs, answered with typed rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlops_llm.component import near
from mlops_llm.errors import UserError
from mlops_llm.tracking.store import Store

ORIGIN = "imported.run"
"""Tag of an imported run: the id that it was made with, in another record."""
_PAGE = 100
"""Models that the registry is asked for at once."""


@dataclass(frozen=True)
class RunRow:
    """A run as the record holds it."""

    id: str
    name: str
    experiment: str
    project: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]


def find_run(store: Store, ref: str) -> RunRow:
    """Find a run by id (also the one that it had where it was imported from) or by its unique name, in all projects.

    Raises:
        UserError: there is none; near names are given.
    """
    from mlflow.exceptions import MlflowException

    if re.fullmatch(r"[0-9a-f]{32}", ref):
        try:
            return row_of(store.client.get_run(ref))
        except MlflowException as error:
            imported = tagged(store, {ORIGIN: ref}, 1)
            if imported:
                return imported[0]
            raise UserError(f"no run has the id {ref}", remedy="look at the list of runs in the MLflow UI") from error
    found = named(store, ref)
    if not found:
        names = [run.info.run_name for run in _all(store, "", 500)]
        raise UserError(f"no run is called '{ref}'{near(ref, names)}", remedy="look at the list of runs in the MLflow UI")
    return found[0]


def named(store: Store, name: str) -> list[RunRow]:
    """Runs of this name, oldest first."""
    quote = '"' if "'" in name else "'"
    if quote in name:
        return []
    return [row_of(run) for run in reversed(_all(store, f"attributes.run_name = {quote}{name}{quote}", 10))]


def tagged(store: Store, tags: Mapping[str, str], most: int = 1000) -> list[RunRow]:
    """Runs that have all of these tags, newest first; `%` in a value stands for any characters."""
    wanted = [f"tags.`{key}` {'LIKE' if '%' in value else '='} '{value}'" for key, value in tags.items()]
    return [row_of(run) for run in _all(store, " and ".join(wanted), most)]


def of_project(store: Store, project: str) -> list[RunRow]:
    """Every run of a project, newest first."""
    found = store.client.get_experiment_by_name(project)
    rows, token = list[RunRow](), None
    while found is not None:
        page = store.client.search_runs([found.experiment_id], max_results=1000, page_token=token)
        rows += map(row_of, page)
        token = page.token
        if not token:
            break
    return rows


def children(store: Store, parent: str) -> list[RunRow]:
    """Jobs of a multirun, in the order of their start."""
    return [row_of(run) for run in reversed(_all(store, f"tags.`mlflow.parentRunId` = '{parent}'", 5000))]


def open_here(store: Store, host: str, status: str) -> list[RunRow]:
    """Runs of processes on this machine (`name/boot`) that have this status in the record, also from before its last start."""
    query = f"attributes.status = '{status}' and tags.`run.host` LIKE '{host.partition('/')[0]}/%'"
    return [row_of(run) for run in _all(store, query, 1000)]


def running(store: Store, tags: Mapping[str, str]) -> list[RunRow]:
    """Runs that the record calls running and that have all of these tags."""
    wanted = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    return [row_of(run) for run in _all(store, " and ".join(["attributes.status = 'RUNNING'", *wanted]), 1000)]


def predicted(store: Store, same: Mapping[str, str], most: int) -> list[RunRow]:
    """Finished trainings whose needs were predicted and measured, newest first.

    Args:
        store: the record.
        same: what they have in common: `tags.NAME` or `params.NAME` -> value.
        most: how many.
    """
    wanted = ["attributes.status = 'FINISHED'", "metrics.`real/seconds` > 0"]
    for key, value in same.items():
        kind, _, name = key.partition(".")
        quote = '"' if "'" in value else "'"
        if quote in value:
            return []
        wanted.append(f"{kind}.`{name}` = {quote}{value}{quote}")
    return [row_of(run) for run in _all(store, " and ".join(wanted), most)]


def evaluations_of(store: Store, rows: str, most: int = 100) -> list[RunRow]:
    """Finished evaluations of rows with this canonical digest, newest first."""
    wanted = ["attributes.status = 'FINISHED'", "tags.stage = 'eval'", f"tags.`data.evaluation.digest.canonical` = '{rows}'"]
    return [row_of(run) for run in _all(store, " and ".join(wanted), most)]


def history(store: Store, run: str, key: str) -> list[Any]:
    """All values of a metric in a run, each with its step."""
    return list(store.client.get_metric_history(run, key))


def is_registered(store: Store, model: str) -> bool:
    """Whether a version in the registry is made of this LoggedModel, whoever registered it."""
    return bool(store.client.search_model_versions(f"source_path = 'models:/{model}'", max_results=1))


def registered(store: Store) -> Iterator[Any]:
    """Every registered model of MLflow, however many there are."""
    token = None
    while True:
        page = store.client.search_registered_models(max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _all(store: Store, query: str, most: int) -> list[Any]:
    experiments = [each.experiment_id for each in store.client.search_experiments()]
    return list(store.client.search_runs(experiments, query, max_results=most, order_by=["attributes.start_time DESC"]))


def row_of(run: Any) -> RunRow:
    """A run of MLflow's as a row."""
    info, data = run.info, run.data
    project = data.tags.get("project", "")
    return RunRow(
        info.run_id,
        info.run_name,
        info.experiment_id,
        project,
        info.status,
        dict(data.tags),
        dict(data.params),
        dict(data.metrics),
    )
