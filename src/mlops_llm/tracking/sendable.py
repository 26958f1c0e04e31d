"""Checkpoints of the record whose files lie on this machine, for one that is to have them too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlops_llm.errors import UserError
from mlops_llm.tracking import checkpoints, refs
from mlops_llm.tracking.deliver import inference_files
from mlops_llm.tracking.store import connect, local_path

_PIN = re.compile(r"(.+)@[0-9a-f]{64}")


@dataclass(frozen=True)
class Files:
    """A checkpoint's files."""

    id: str
    files: Mapping[str, Path]
    """Name -> file."""


def files(ref: str) -> Files | None:
    """The files here of a checkpoint that a ref of the record (`models:/…`, `runs:/…`) names.

    None where it names none, or where a server has them: then the command itself says so, or fetches them.
    """
    store = connect()
    pinned = _PIN.fullmatch(ref)
    try:
        row = refs.checkpoint(store, pinned[1] if pinned else ref)
        if local_path(row.location) is None and row.tags.get("checkpoint.storage") != "reference":
            return None
        folder = checkpoints.place_of(store, row)
    except UserError:
        return None
    return Files(row.id, {file.name: file for file in inference_files(folder)})
