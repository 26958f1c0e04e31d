"""What an archive says is checked before anything of it is used; whoever made it may have sealed what he likes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mlops_llm import digest
from mlops_llm.errors import UserError
from mlops_llm.registry.moving.archive import opened, seal
from mlops_llm.registry.moving.contents import MANIFEST, Contents
from mlops_llm.tracking.portable import PortableCheckpoint, PortableModel, PortableRun
from tests.security import hostile

RUN, MODEL = "a" * 32, "m-" + "b" * 32


def sealed(
    folder: Path,
    run: Mapping[str, Any] | None = None,
    checkpoint: Mapping[str, Any] | None = None,
    models: Sequence[PortableModel] = (),
    weights: Mapping[str, str] | None = None,
) -> Path:
    """An archive of one run with a checkpoint, in a folder that may hold files already; what is given is said otherwise."""
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    of_run: dict[str, Any] = {"id": RUN, "origin": RUN, "name": "r", "experiment": "sales", "status": "FINISHED", "start": 1}
    of_run |= {"end": 2, "params": {}, "tags": {}, "metrics": [], "inputs": [], "uses": [], "makes": [[MODEL, 1]]}
    made: dict[str, Any] = {"id": MODEL, "origin": MODEL, "name": "checkpoint-1", "kind": "checkpoint", "status": "READY"}
    made |= {"run": RUN, "experiment": "sales", "params": {"step": "1"}, "tags": {}, "metrics": []}
    told = PortableRun(**of_run | dict(run or {})), PortableCheckpoint(**made | dict(checkpoint or {}))
    seal(folder, Contents(told[:1], told[1:], tuple(models), (), weights or {}), "somebody")
    return folder


def read(archive: Path) -> Contents:
    with opened(archive, archive.parent) as (_, contents):
        return contents


def test_what_runs_code_of_its_own_says_so(tmp_path: Path) -> None:
    """Else a policy would let it pass."""
    own = hostile.with_code(tmp_path / "archive/files" / MODEL, tmp_path / "marker")
    known = digest.weights(own)
    told = {"digest.weights": known}
    with pytest.raises(UserError, match=r"runs Python code of its own and does not say so \(digest.code\)"):
        read(sealed(tmp_path / "archive", checkpoint={"tags": told}, weights={MODEL: known}))
    said = sealed(tmp_path / "archive", checkpoint={"tags": told | {"digest.code": "d" * 64}}, weights={MODEL: known})
    assert read(said).checkpoints[0].tags["digest.code"]
    assert not (tmp_path / "marker").exists()
