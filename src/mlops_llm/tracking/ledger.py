"""Questions to the record, answered with typed rows."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_llm.component import near
from mlops_llm.errors import UserError
from mlops_llm.tracking.store import Store, local_path

REMOVED = "removed"
"""Value of the tag `checkpoint.files` when the files are gone and the numbers stay."""
WHOLE = "full"
"""Param `peft` of a checkpoint that is no adapter."""
_TRIES, _TOGETHER = 5, 1000
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


@dataclass(frozen=True)
class CheckpointRow:
    """A checkpoint as the record holds it."""

    id: str
    name: str
    step: int
    status: str
    location: str
    run: str
    tags: dict[str, str]
    metrics: dict[str, float]
    """Of every run that told any; of the same name the last."""
    own: dict[str, float] = field(default_factory=dict)
    """Those that the run which made it told, so that they are of the same rows at each checkpoint."""
    peft: str = ""
    """How a training changed it: `WHOLE`, or the kind of adapter that it is; empty of what no training made."""


def find_run(store: Store, ref: str) -> RunRow:
    """Find a run by id or by its unique name, in all projects.

    Raises:
        UserError: there is none; near names are given.
    """
    from mlflow.exceptions import MlflowException

    if re.fullmatch(r"[0-9a-f]{32}", ref):
        try:
            return row_of(store.client.get_run(ref))
        except MlflowException as error:
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


def children(store: Store, parent: str) -> list[RunRow]:
    """Jobs of a multirun, in the order of their start."""
    return [row_of(run) for run in reversed(_all(store, f"tags.`mlflow.parentRunId` = '{parent}'", 5000))]


def running_here(store: Store, host: str) -> list[RunRow]:
    """Runs of processes on this machine (`name/boot`) that the record calls running, also from before its last start."""
    query = f"attributes.status = 'RUNNING' and tags.`run.host` LIKE '{host.partition('/')[0]}/%'"
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


def checkpoints(store: Store, run: str) -> list[CheckpointRow]:
    """A run's checkpoints by step, finished or not; at a step averaged weights stand before the raw ones."""
    experiment = store.client.get_run(run).info.experiment_id
    rows: list[CheckpointRow] = []
    token = None
    while True:
        page = store.client.search_logged_models(
            [experiment], filter_string=f"source_run_id = '{run}'", max_results=100, page_token=token
        )
        rows += [checkpoint_of(model) for model in page]
        token = page.token
        if not token:
            return sorted(rows, key=lambda row: (row.step, not row.name.endswith("-ema")))


def everywhere(store: Store, query: str | None = None) -> Iterator[CheckpointRow]:
    """Every whole checkpoint of the record whose files are there, or those that a query of MLflow's finds."""
    experiments = [each.experiment_id for each in store.client.search_experiments()]
    token = None
    while True:
        page = store.client.search_logged_models(experiments, query, max_results=_TOGETHER, page_token=token)
        rows = map(checkpoint_of, page)
        yield from (row for row in rows if row.status == "READY" and row.tags.get("checkpoint.files") != REMOVED)
        token = page.token
        if not token:
            return


def maybe_adapters(store: Store) -> Iterator[CheckpointRow]:
    """Every whole checkpoint that can be an adapter: trainings say so; operations, and what comes from elsewhere, do not.

    Of ten thousand checkpoints most are none, and reading them all takes many seconds.
    """
    for query in (f"params.peft != '{WHOLE}'", "tags.operation LIKE '%'", "tags.`checkpoint.origin` LIKE '%'"):
        yield from everywhere(store, query)


def find_checkpoint(store: Store, run: str, name: str, experiment: str = "") -> Any:
    """MLflow's LoggedModel of a run's checkpoint, or None; the run's experiment is looked up where it is not given."""
    experiment = experiment or store.client.get_run(run).info.experiment_id
    found = store.client.search_logged_models(
        [experiment], filter_string=f"source_run_id = '{run}' AND name = '{name}'", max_results=1
    )
    return found[0] if found else None


def checkpoint_id(store: Store, run: str, name: str) -> str:
    """LoggedModel id of a run's checkpoint."""
    model = find_checkpoint(store, run, name)
    if model is None:
        raise UserError(f"run {run} has no checkpoint '{name}'")
    return str(model.model_id)


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


def place_of_checkpoint(store: Store, row: CheckpointRow) -> Path:
    """The folder of a checkpoint's files, downloaded if the store is remote.

    Raises:
        UserError: it is unfinished, or its files are gone.
    """
    if row.status != "READY":
        raise UserError(f"{row.name} of run {row.run} is unfinished", remedy="take an earlier one or resume the run")
    if row.tags.get("checkpoint.files") == REMOVED:
        raise UserError(f"the files of {row.name} were removed (trainer.save_total_limit)", remedy="take another checkpoint")
    if row.tags.get("checkpoint.storage") == "reference":
        place = local_path(row.tags["checkpoint.uri"])
    else:
        place = local_path(row.location)
    if place is None:
        from mlflow.artifacts import download_artifacts

        return Path(download_artifacts(f"models:/{row.id}", tracking_uri=store.address))
    if not place.is_dir():
        host = row.tags.get("checkpoint.host")
        elsewhere = bool(host) and host != socket.gethostname()
        raise UserError(
            f"the files of {row.name} of run {row.run} are {'on another machine' if elsewhere else 'gone'}",
            f"{host}:{place}" if host else str(place),
            "copy them here by hand, or train with checkpoints.storage=upload" if elsewhere else "take another checkpoint",
        )
    return place


def by_model_id(store: Store, model: str) -> CheckpointRow:
    """A checkpoint by its LoggedModel id."""
    from mlflow.exceptions import MlflowException

    try:
        return checkpoint_of(store.client.get_logged_model(model))
    except MlflowException as error:
        raise UserError(f"no checkpoint has the id {model}") from error


def by_weights(store: Store, weights: str) -> CheckpointRow | None:
    """The oldest whole checkpoint with weights of this digest that a run of ours made, or None."""
    experiments = [each.experiment_id for each in store.client.search_experiments()]
    query = f"tags.`digest.weights` = '{weights}'"
    order = [{"field_name": "creation_timestamp", "ascending": True}]
    found = store.client.search_logged_models(experiments, filter_string=query, max_results=100, order_by=order)
    return next((row for row in map(checkpoint_of, found) if row.run and row.status == "READY"), None)


def by_version(store: Store, name: str, which: str, alias: bool) -> CheckpointRow:
    """The checkpoint behind a registered model's version or alias.

    Raises:
        UserError: model, version or alias is unknown; what there is, is named.
    """
    from mlflow.exceptions import MlflowException

    client = store.client
    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        names = [each.name for each in client.search_registered_models(max_results=100)]
        known = f"registered are: {', '.join(names)}" if names else "nothing is registered yet"
        raise UserError(f"no registered model is called '{name}'{near(name, names)}", remedy=known) from error
    try:
        version = client.get_model_version_by_alias(name, which) if alias else client.get_model_version(name, which)
    except MlflowException as error:
        if alias:
            remedy = f"it has: {', '.join(sorted(model.aliases)) or 'no alias'}"
        else:
            versions = client.search_model_versions(f"name = '{name}'")
            remedy = f"it has versions: {', '.join(sorted(str(each.version) for each in versions))}"
        raise UserError(f"'{name}' has no {'alias' if alias else 'version'} '{which}'", remedy=remedy) from error
    source = str(version.source)
    copied = re.fullmatch(r"models:/([^/@]+)/(\d+)", source)
    if copied:
        return by_version(store, copied[1], copied[2], alias=False)
    return by_model_id(store, source.removeprefix("models:/"))


def log_inputs(store: Store, run: str, inputs: list[Any]) -> None:
    """Name the datasets that a run reads.

    Where two runs name a new dataset at one moment, MLflow lets both insert it, and the database refuses one of them: to that
    one the dataset is there at the next try.
    """
    from mlflow.exceptions import MlflowException

    for tries_left in reversed(range(_TRIES)):
        try:
            store.client.log_inputs(run, datasets=inputs)
            return
        except MlflowException as error:
            if not tries_left or not re.search("unique constraint|duplicate entry", str(error), re.IGNORECASE):
                raise


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


def checkpoint_of(model: Any) -> CheckpointRow:
    """A LoggedModel of MLflow's as a row."""
    step = model.params.get("step") or re.sub(r"\D", "", model.name) or "0"
    told = model.metrics or []
    metrics = {metric.key: metric.value for metric in told}
    own = {metric.key: metric.value for metric in told if metric.run_id == model.source_run_id}
    return CheckpointRow(
        model.model_id,
        model.name,
        int(step),
        str(model.status).rsplit(".", 1)[-1],
        model.artifact_location,
        model.source_run_id or "",
        dict(model.tags),
        metrics,
        own,
        model.params.get("peft", ""),
    )
