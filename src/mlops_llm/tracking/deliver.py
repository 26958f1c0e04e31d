"""Each kind of write, made true in MLflow."""

from __future__ import annotations

import os
import re
import socket
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlops_llm.files import link_files
from mlops_llm.tracking import checkpoints, evaluations, ledger
from mlops_llm.tracking.store import Store, local_path

CHECKPOINT = "checkpoint"
"""`model_type` of the LoggedModels that are ours."""


def deliver(store: Store, run: str, write: dict[str, Any], *, again: bool) -> None:
    """Make a write true.

    Args:
        store: the record.
        run: MLflow run id.
        write: `do` names the kind; the other keys are its content.
        again: the write may have been made already; look before writing what MLflow would double.
    """
    _KINDS[write["do"]](store, run, write, again)


def _metrics(store: Store, run: str, write: dict[str, Any], again: bool, models: Mapping[str, str] | None = None) -> None:
    """Rows are [key, value, time in ms, step, checkpoint or None, dataset name or None, dataset digest or None].

    A checkpoint is named, if it is one of the run, or its LoggedModel id is given; `models` are the ids of the checkpoints in
    them, where they are known.
    """
    from mlflow.entities import Metric

    rows = write["rows"]
    if again:
        had: dict[str, set[int]] = defaultdict(set)
        for key in {row[0] for row in rows}:
            had[key] = {metric.step for metric in ledger.history(store, run, key)}
        rows = [row for row in rows if row[3] not in had[row[0]]]
    owners = {row[4] for row in rows if row[4]}
    models = models or {name: _model(store, run, name) for name in owners}
    metrics = [
        Metric(key, value, time, step, model_id=models.get(name), dataset_name=dataset, dataset_digest=digest, run_id=run)
        for key, value, time, step, name, dataset, digest in rows
    ]
    for start in range(0, len(metrics), 1000):
        store.client.log_batch(run, metrics=metrics[start : start + 1000])


def _model(store: Store, run: str, owner: str) -> str:
    """LoggedModel id of a checkpoint that is given by it, or by its name in the run."""
    return owner if re.fullmatch(r"m-[0-9a-f]{32}", owner) else checkpoints.id_of(store, run, owner)


def _params(store: Store, run: str, write: dict[str, Any], again: bool) -> None:
    from mlflow.entities import Param

    had = store.client.get_run(run).data.params
    new = [Param(key, value) for key, value in write["values"].items() if key not in had]
    for start in range(0, len(new), 100):
        store.client.log_batch(run, params=new[start : start + 100])


def _tags(store: Store, run: str, write: dict[str, Any], again: bool) -> None:
    from mlflow.entities import RunTag

    store.client.log_batch(run, tags=[RunTag(key, value) for key, value in write["values"].items()])


def _input(store: Store, run: str, write: dict[str, Any], again: bool) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = Dataset(write["name"], write["digest"], "local", write["source"], schema=None, profile=write["profile"])
    tags = [InputTag("mlflow.data.context", write["context"])]
    tags += [InputTag(key, value) for key, value in write["tags"].items()]
    store.client.log_inputs(run, datasets=[DatasetInput(data, tags)])


def _artifact(store: Store, run: str, write: dict[str, Any], again: bool) -> None:
    folder = str(Path(write["name"]).parent)
    store.client.log_artifact(run, write["path"], None if folder == "." else folder)


def _answers(store: Store, run: str, write: dict[str, Any], again: bool) -> None:
    owner = write["checkpoint"]
    evaluations.show(store, run, write["rows"], _model(store, run, owner) if owner else "", write["time"])


def _checkpoint(store: Store, run: str, write: dict[str, Any], again: bool) -> None:
    """List the checkpoint as PENDING, bring its files and numbers, then call it READY."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    client, folder = store.client, Path(write["folder"])
    made = client.get_run(run)
    model = checkpoints.find(store, run, write["name"], made.info.experiment_id)
    begun = model is not None
    if model is None:
        model = client.create_logged_model(
            made.info.experiment_id,
            write["name"],
            source_run_id=run,
            tags=write["tags"],
            params=write["params"],
            model_type=CHECKPOINT,
        )
    if str(model.status) == str(LoggedModelStatus.READY):
        return
    linked = {output.model_id for output in made.outputs.model_outputs}
    if model.model_id not in linked:
        client.log_outputs(run, [LoggedModelOutput(model.model_id, write["step"])])
    how = bring(store, model, folder, write["storage"])
    client.set_logged_model_tags(model.model_id, {"checkpoint.storage": how, "checkpoint.uri": folder.as_uri()})
    if write["rows"]:
        _metrics(store, run, write, again or begun, {write["name"]: model.model_id})
    client.finalize_logged_model(model.model_id, "READY")


def bring(store: Store, model: Any, folder: Path, storage: str) -> str:
    """Put the files where MLflow looks for them; return how (hardlink, copy, reference or upload)."""
    place = local_path(model.artifact_location)
    if storage == "auto":
        storage = "hardlink" if place is not None else "reference"
    if storage == "hardlink" and place is None:
        storage = "reference"
    if storage == "hardlink":
        linked = link_files(inference_files(folder), place)  # type: ignore[arg-type]
        return "hardlink" if linked else "copy"
    if storage == "upload":
        store.client.log_model_artifacts(model.model_id, str(_only_inference(folder)))
    else:
        store.client.set_logged_model_tags(model.model_id, {"checkpoint.host": socket.gethostname()})
    return storage


def inference_files(folder: Path) -> list[Path]:
    """The files that another program needs to run the model: not optimizer, scheduler, random state or Trainer state."""
    state = {"optimizer.pt", "scheduler.pt", "scaler.pt", "ema.pt", "trainer_state.json", "training_args.bin"}
    state |= {"pytorch_model_fsdp.bin", "latest", "zero_to_fp32.py", "zero_to_torch.py"}  # of several processes
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and file.name not in state and not file.name.startswith(("rng_state", ".", "optimizer"))
    )


def _only_inference(folder: Path) -> Path:
    """A folder of links beside the checkpoint, since MLflow uploads folders."""
    upload = folder / ".upload"
    if not upload.exists():
        draft = folder / f".upload-{os.getpid()}"
        link_files(inference_files(folder), draft)
        draft.rename(upload)
    return upload


def _uses(store: Store, run: str, write: dict[str, Any], again: bool) -> None:
    from mlflow.entities import LoggedModelInput

    inputs = store.client.get_run(run).inputs
    if write["model"] not in {each.model_id for each in (inputs.model_inputs if inputs else [])}:
        store.client.log_inputs(run, models=[LoggedModelInput(write["model"])])


def _register(store: Store, run: str, write: dict[str, Any], again: bool) -> None:
    from mlops_llm.tracking.aliases import register

    register(store, write["run"], write["checkpoint"], write["model"], write["alias"], write["description"])


def _finish(store: Store, run: str, write: dict[str, Any], again: bool) -> None:
    if write["status"] != "FINISHED":
        for row in checkpoints.of_run(store, run):
            if row.status == "PENDING":  # cut off; a resumed run publishes it again
                store.client.finalize_logged_model(row.id, "FAILED")
    store.client.set_terminated(run, write["status"], end_time=write["time"])


def published_bytes(folder: Path) -> int:
    """Bytes of a checkpoint's inference files."""
    return sum(file.stat().st_size for file in inference_files(folder))


_KINDS = {
    "metrics": _metrics,
    "params": _params,
    "tags": _tags,
    "input": _input,
    "artifact": _artifact,
    "answers": _answers,
    "checkpoint": _checkpoint,
    "uses": _uses,
    "register": _register,
    "finish": _finish,
}
