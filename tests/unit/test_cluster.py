"""The folder of a Ray of our own. No Ray is needed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from mlops_llm.errors import UserError
from mlops_llm.launch import cluster

SOCKET = "session_2026-11-29_01-26-49_314281_4194304/sockets/plasma_store"


@pytest.mark.parametrize(("longer", "there"), [(0, True), (1, False), (80, False)])
def test_rays_sockets_have_paths_that_the_system_takes(longer: int, there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as root:
        where = Path(root, "x" * (cluster._ROOM - len(root) - 1 + longer))
        where.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(where))
        folder = Path(cluster._folder())
        folder.rmdir()
        assert folder.parent == (where if there else Path("/tmp"))
        assert len(os.fsencode(folder / SOCKET)) <= 103


def test_without_a_folder_for_them_one_line_says_what_to_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 100)))
    monkeypatch.setattr(cluster, "_SHORT", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"Ray has no folder for its sockets .*: TMPDIR"):
        cluster._folder()
