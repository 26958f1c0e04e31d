"""Runs whose files were made on another machine and have come here: the record is told of their new place."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlops_llm import digest
from mlops_llm.errors import UserError
from mlops_llm.files import write_text
from mlops_llm.tracking import checkpoints, deliver, ledger
from mlops_llm.tracking.checkpoints import REMOVED, CheckpointRow
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.opening import recorded_text
from mlops_llm.tracking.store import Store, local_path

SETTINGS = "config.yaml"
"""Artifact of a run's settings."""


@dataclass(frozen=True)
class There:
    """A run whose folder is on another machine, and its whole checkpoints there."""

    run: RunRow
    output: str
    """Its folder there."""
    checkpoints: tuple[CheckpointRow, ...]

    def place(self, row: CheckpointRow) -> str:
        """Folder there of a checkpoint's files."""
        return str(local_path(row.tags["checkpoint.uri"]))


def runs(store: Store, run: str, folder: str) -> list[There]:
    """A run and others whose files lie below a folder of another machine, the outermost first.

    Args:
        store: the record.
        run: id of the one that was sent.
        folder: absolute, on the other machine.
    """
    below = ledger.tagged(store, {"output": f"{folder}/%"})
    found = {each.id: each for each in (ledger.find_run(store, run), *below)}
    mine = [each for each in found.values() if each.tags.get("output", "").startswith(f"{folder}/")]
    return [_there(store, each, folder) for each in sorted(mine, key=lambda each: len(each.tags["output"]))]


def _there(store: Store, run: RunRow, folder: str) -> There:
    rows = [row for row in checkpoints.of_run(store, run.id) if row.status == "READY"]
    kept = [row for row in rows if _is_below(row, folder) and row.tags.get("checkpoint.files") != REMOVED]
    return There(run, run.tags["output"], tuple(kept))


def _is_below(row: CheckpointRow, folder: str) -> bool:
    written = row.tags.get("checkpoint.uri")
    return bool(written) and str(local_path(written or "")).startswith(f"{folder}/")


def point(store: Store, run: str, output: Path | str, folder: Path | str) -> None:
    """Say where a run's files are, and the folder in which its relative paths mean what they meant."""
    for key, value in {"output": output, "folder": folder}.items():
        store.client.set_tag(run, key, str(value))


def output_of(store: Store, run: str) -> tuple[str, str, str]:
    """Folder of a run's files, the folder where it was typed, and the address of its artifacts."""
    found = store.client.get_run(run)
    return found.data.tags["output"], found.data.tags.get("folder", ""), found.info.artifact_uri


def is_whole(row: CheckpointRow, folder: Path) -> bool:
    """Whether a folder holds a checkpoint's weights."""
    wanted = row.tags.get("digest.weights")
    if not folder.is_dir():
        return False
    if not wanted or not any(folder.glob("*.safetensors")):
        return True
    try:
        return digest.weights(folder) == wanted
    except (OSError, ValueError):
        return False


def settle(store: Store, row: CheckpointRow, folder: Path) -> None:
    """Let the record know a checkpoint's files, which lie here now, as it knows those that were made here."""
    model = store.client.get_logged_model(row.id)
    storage = row.tags.get("checkpoint.storage", "")
    how = storage if storage == "upload" else deliver.bring(store, model, folder, "auto")
    tags = {"checkpoint.storage": how, "checkpoint.uri": folder.as_uri()}
    if how == "reference":
        tags["checkpoint.host"] = socket.gethostname()
    store.client.set_logged_model_tags(row.id, tags)
    if how != "reference" and "checkpoint.host" in row.tags:
        store.client.delete_logged_model_tag(row.id, "checkpoint.host")


def rename_in_result(store: Store, run: str, output: Path, names: Mapping[str, str]) -> None:
    """Let a run's result name folders of this machine.

    Args:
        store: the record.
        run: its id.
        output: its folder here.
        names: folder there -> the folder here that it stands for; the first that fits counts.
    """
    file = output / "result.json"
    if not file.is_file():
        return
    text = file.read_text("utf-8")
    renamed = _renamed(text, names)
    if renamed != text:
        write_text(file, renamed, "backslashreplace")
        store.client.log_artifact(run, str(file))


def rename_in_settings(store: Store, run: str, names: Mapping[str, str]) -> None:
    """Let the settings with which a run can go on name other folders, as `rename_in_result` does; its params stay."""
    try:
        text = recorded_text(store, run, SETTINGS)
    except UserError:
        return
    renamed = _renamed(text, names)
    if renamed != text:
        store.client.log_text(run, renamed, SETTINGS)


def rename_in_tags(store: Store, run: RunRow, names: Mapping[str, str]) -> None:
    """Let a run's tags name folders of this machine, as `rename_in_result` does."""
    for key, value in run.tags.items():
        renamed = _renamed(value, names)
        if renamed != value and not key.startswith("mlflow."):
            store.client.set_tag(run.id, key, renamed)


def _renamed(text: str, names: Mapping[str, str]) -> str:
    for there, here in names.items():
        text = text.replace(there, here)
    return text
