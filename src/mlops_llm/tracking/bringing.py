"""Checkpoints of another record, brought into this one with their files, which are the same here or are refused."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlops_llm import digest
from mlops_llm.errors import UserError
from mlops_llm.files import link_files
from mlops_llm.tracking import checkpoints
from mlops_llm.tracking.entered import Entered, known_checkpoint
from mlops_llm.tracking.portable import PortableCheckpoint
from mlops_llm.tracking.store import Store, local_path

_HERE = {"checkpoint.storage", "checkpoint.uri", "checkpoint.host", checkpoints.ORIGIN}
"""Tags that say where the files are in this record."""


def bring_checkpoint(store: Store, told: PortableCheckpoint, files: Path | None, entered: Entered) -> None:
    """Find a checkpoint, or make it with its files; its numbers come with the runs that told them.

    Raises:
        UserError: what the record has of the files afterwards is not what was brought.
    """
    model = known_checkpoint(store, told.origin, entered.runs.get(told.run, ""))
    if model is None:
        model = store.client.create_logged_model(
            store.client.get_run(entered.runs[told.run]).info.experiment_id
            if told.run in entered.runs
            else store.experiment(told.experiment),
            told.name,
            source_run_id=entered.runs.get(told.run),
            tags={checkpoints.ORIGIN: told.origin},
            params={key: entered.here(value) for key, value in told.params.items()},
            model_type=told.kind,
        )
    entered.checkpoints[told.id] = str(model.model_id)
    if str(model.status).endswith("PENDING"):
        entered.new_checkpoints.append(told.id)
        how = _bring(store, model, files) if files else _lying(told)
        if files is None and told.status == "READY" and told.run:
            how["checkpoint.files"] = checkpoints.REMOVED
        store.client.set_logged_model_tags(model.model_id, how)


def finish_checkpoint(store: Store, told: PortableCheckpoint, entered: Entered) -> None:
    """Say of a checkpoint what the archive says, with the ids of this record; then it is whole."""
    if told.id not in entered.new_checkpoints:
        return
    model = entered.checkpoints[told.id]
    tags = {key: entered.here(value) for key, value in told.tags.items() if key not in _HERE and not key.startswith("mlflow.")}
    if tags:
        store.client.set_logged_model_tags(model, tags)
    store.client.finalize_logged_model(model, "READY" if told.status == "READY" else "FAILED")


def _lying(told: PortableCheckpoint) -> dict[str, str]:
    """Where the files of one are that was brought without any: where it says, if its weights lie there; else nobody knows.

    A place that is not looked at would be read, and deleted one day, because somebody else wrote it down.
    """
    written = told.tags.get("checkpoint.uri")
    place = local_path(written) if written else None
    if place is None or not digest.is_of(place, told.tags.get("digest.weights")):
        return {}
    return {key: told.tags[key] for key in _HERE & {*told.tags} - {checkpoints.ORIGIN}}


def _bring(store: Store, model: Any, files: Path) -> dict[str, str]:
    """Put files where MLflow looks for them, and see that they are the same there."""
    place = local_path(model.artifact_location)
    if place is not None:
        for each in (place, *(place.iterdir() if place.is_dir() else ())):
            if each.is_file():
                each.unlink()  # what a killed import left
        linked = link_files(sorted(files.iterdir()), place)
        how = {"checkpoint.storage": "hardlink" if linked else "copy", "checkpoint.uri": place.as_uri()}
    else:
        store.client.log_model_artifacts(model.model_id, str(files))
        how = {"checkpoint.storage": "upload"}
    wanted = {each.name: digest.raw(each) for each in files.iterdir()}
    got = _there(store, str(model.model_id), place)
    if wanted != got:
        differs = sorted(name for name in wanted.keys() | got.keys() if wanted.get(name) != got.get(name))
        raise UserError(
            f"the record has other files than were brought: {', '.join(differs[:5])}", model.name, "import it again"
        )
    return how


def _there(store: Store, model: str, place: Path | None) -> dict[str, str]:
    """Name and digest of each file that the record has of a checkpoint, downloaded where it keeps them afar."""
    with TemporaryDirectory() as folder:
        if place is None:
            place = Path(folder)
            checkpoints.download(store, model, place)
        return {each.name: digest.raw(each) for each in place.iterdir() if each.is_file()}
