"""What an archive holds, and where: names of its files and folders, and what is said of one that is none of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlops_llm.errors import UserError
from mlops_llm.tracking.portable import PortableCheckpoint, PortableDataset, PortableModel, PortableRun

FORMAT = 1
MANIFEST, ARTIFACTS, FILES = "manifest.json", "artifacts", "files"


@dataclass(frozen=True)
class Contents:
    """What an archive holds besides files."""

    runs: tuple[PortableRun, ...]
    checkpoints: tuple[PortableCheckpoint, ...]
    models: tuple[PortableModel, ...]
    datasets: tuple[PortableDataset, ...]
    weights: Mapping[str, str]
    """Checkpoint -> digest of its weights."""


def files_of(folder: Path) -> list[Path]:
    """Every file below a folder."""
    return sorted(each for each in folder.rglob("*") if each.is_file())


def foul(place: Path, what: str) -> UserError:
    """What is said of an archive that somebody has altered."""
    return UserError(f"is not as op=export_runs wrote it: {what}", str(place), "copy it again; nothing was imported")
