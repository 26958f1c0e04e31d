"""Checkpoints as the record holds them: those of a run, of a version, of all."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_llm import digest
from mlops_llm.component import near
from mlops_llm.errors import UserError
from mlops_llm.files import cache_folder, whole_folder
from mlops_llm.tracking.store import Store, local_path

_TOGETHER = 1000
"""Checkpoints in one query."""
WHOLE = "full"
"""Param `peft` of a checkpoint that is no adapter."""
ORIGIN = "imported.checkpoint"
"""Tag of an imported checkpoint: the id that it was made with, in another record."""
REMOVED = "removed"
"""Value of the tag `checkpoint.files` when the files are gone and the numbers stay."""


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


def of_run(store: Store, run: str) -> list[CheckpointRow]:
    """A run's checkpoints by step, finished or not; at a step averaged weights stand before the raw ones."""
    experiment = store.client.get_run(run).info.experiment_id
    rows: list[CheckpointRow] = []
    token = None
    while True:
        page = store.client.search_logged_models(
            [experiment], filter_string=f"source_run_id = '{run}'", max_results=100, page_token=token
        )
        rows += [row_of(model) for model in page]
        token = page.token
        if not token:
            return sorted(rows, key=lambda row: (row.step, not row.name.endswith("-ema")))


def everywhere(store: Store, query: str | None = None) -> Iterator[CheckpointRow]:
    """Every whole checkpoint of the record whose files are there, or those that a query of MLflow's finds."""
    experiments = [each.experiment_id for each in store.client.search_experiments()]
    token = None
    while True:
        page = store.client.search_logged_models(experiments, query, max_results=_TOGETHER, page_token=token)
        rows = map(row_of, page)
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


def find(store: Store, run: str, name: str, experiment: str = "") -> Any:
    """MLflow's LoggedModel of a run's checkpoint, or None; the run's experiment is looked up where it is not given."""
    experiment = experiment or store.client.get_run(run).info.experiment_id
    found = store.client.search_logged_models(
        [experiment], filter_string=f"source_run_id = '{run}' AND name = '{name}'", max_results=1
    )
    return found[0] if found else None


def id_of(store: Store, run: str, name: str) -> str:
    """LoggedModel id of a run's checkpoint."""
    model = find(store, run, name)
    if model is None:
        raise UserError(f"run {run} has no checkpoint '{name}'")
    return str(model.model_id)


def place_of(store: Store, row: CheckpointRow) -> Path:
    """The folder of a checkpoint's files, downloaded if the store is remote.

    Raises:
        UserError: it is unfinished, or its files are gone.
    """
    if row.status != "READY":
        raise UserError(f"{row.name} of run {row.run} is unfinished", remedy="take an earlier one or resume the run")
    if row.tags.get("checkpoint.files") == REMOVED:
        why = f"op=gc, run {row.tags['gc.run']}" if "gc.run" in row.tags else "trainer.save_total_limit"
        raise UserError(f"the files of {row.name} were removed ({why})", remedy="take another checkpoint")
    if row.tags.get("checkpoint.storage") == "reference":
        place = local_path(row.tags["checkpoint.uri"])
    else:
        place = local_path(row.location)
    if place is None:
        return _downloaded(store, row)
    if not place.is_dir():
        if kept(row.id).is_dir():  # sent here before
            return kept(row.id)
        host = row.tags.get("checkpoint.host")
        elsewhere = bool(host) and host != socket.gethostname()
        raise UserError(
            f"the files of {row.name} of run {row.run} are {'on another machine' if elsewhere else 'gone'}",
            f"{host}:{place}" if host else str(place),
            "copy them here by hand, or train with checkpoints.storage=upload" if elsewhere else "take another checkpoint",
        )
    return place


def kept(model: str) -> Path:
    """Where the files of a checkpoint are kept on a machine that has only a copy of them; they never change."""
    return cache_folder() / "checkpoints" / model


def _downloaded(store: Store, row: CheckpointRow) -> Path:
    """A checkpoint's files from afar: downloaded once on this machine, and only kept if the weights are those of the record.

    Raises:
        UserError: they are others.
    """
    folder = kept(row.id)
    if folder.is_dir():
        return folder
    try:
        with whole_folder(folder) as draft:
            download(store, row.id, draft)
            wanted = row.tags.get("digest.weights")
            if wanted and list(draft.glob("*.safetensors")) and digest.weights(draft) != wanted:
                remedy = "ask who keeps the server; another checkpoint may be whole"
                raise UserError(f"the weights of {row.name} that came are not those that were recorded", row.location, remedy)
    except UserError:
        if not folder.is_dir():  # else another process was faster
            raise
    return folder


def download(store: Store, model: str, folder: Path) -> None:
    """Download a checkpoint's files into an empty folder."""
    from mlflow.artifacts import download_artifacts

    got = Path(download_artifacts(f"models:/{model}", dst_path=str(folder), tracking_uri=store.address))
    if got.resolve() != folder.resolve():
        for each in got.iterdir():
            each.rename(folder / each.name)


def by_id(store: Store, model: str) -> CheckpointRow:
    """A checkpoint by its LoggedModel id, or by the one that it had where it was imported from."""
    from mlflow.exceptions import MlflowException

    try:
        return row_of(store.client.get_logged_model(model))
    except MlflowException as error:
        imported = by_origin(store, model)
        if imported:
            return imported
        raise UserError(f"no checkpoint has the id {model}") from error


def by_origin(store: Store, model: str, run: str = "") -> CheckpointRow | None:
    """The checkpoint that was imported and had this LoggedModel id before, with `run` one of this run, or None."""
    experiments = [each.experiment_id for each in store.client.search_experiments()]
    query = f"tags.`{ORIGIN}` = '{model}'" + (f" AND source_run_id = '{run}'" if run else "")
    found = store.client.search_logged_models(experiments, filter_string=query, max_results=1) if "'" not in model else []
    return row_of(found[0]) if found else None


def by_weights(store: Store, weights: str) -> CheckpointRow | None:
    """The oldest whole checkpoint with weights of this digest that a run of ours made, or None."""
    experiments = [each.experiment_id for each in store.client.search_experiments()]
    query = f"tags.`digest.weights` = '{weights}'"
    order = [{"field_name": "creation_timestamp", "ascending": True}]
    found = store.client.search_logged_models(experiments, filter_string=query, max_results=100, order_by=order)
    return next((row for row in map(row_of, found) if row.run and row.status == "READY"), None)


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
    return by_id(store, source.removeprefix("models:/"))


def row_of(model: Any) -> CheckpointRow:
    """A LoggedModel of MLflow's as a row."""
    told = model.metrics or []
    metrics = {metric.key: metric.value for metric in told}
    own = {metric.key: metric.value for metric in told if metric.run_id == model.source_run_id}
    return CheckpointRow(
        model.model_id,
        model.name,
        _step(model.params.get("step") or re.sub(r"\D", "", model.name)),
        str(model.status).rsplit(".", 1)[-1],
        model.artifact_location,
        model.source_run_id or "",
        dict(model.tags),
        metrics,
        own,
        model.params.get("peft", ""),
    )


def _step(text: str) -> int:
    """A step as somebody wrote it; 0 where it is none, so that one bad row does not hide all others."""
    try:
        return int(text)
    except ValueError:
        return 0
