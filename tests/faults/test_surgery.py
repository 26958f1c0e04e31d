"""A merge that dies leaves no folder that looks whole, and goes on as the same run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mlops_llm import digest
from tests import miniatures
from tests.commands import start, wait_for
from tests.record import checkpoints_of, client, run_of


def large(folder: Path) -> Path:
    """A model that takes seconds to merge."""
    settings = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 12}
    return miniatures.model(folder, seed=1, **settings)


def test_kill_9_in_mid_merge_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    large(tmp_path / "a")
    for name in ("b", "base"):
        shutil.copytree(tmp_path / "a", tmp_path / name, copy_function=os.link)
    words = ["op=merge_ties", "models=[a,b]", "base=base", "op.form=authors", "output=out/merged", "run_name=killed"]
    process = start(tmp_path, *words, stage="surgery")
    wait_for(lambda: any((tmp_path / "out").glob(".merged.*/*.safetensors")), process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "out" / "merged").exists()
    (left,) = (tmp_path / "out").iterdir()
    assert left.name.startswith(".merged.") and not (left / "config.json").exists()
    resumed = start(tmp_path, "resume=killed", stage="surgery")
    out, err = resumed.communicate(timeout=400)
    assert resumed.returncode == 0, out + err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["merged"], "what was left is gone"
    model = checkpoints_of(client(tmp_path), run_of(client(tmp_path), "killed"))["merged"]
    assert model.tags["digest.weights"] == digest.weights(tmp_path / "out" / "merged")
