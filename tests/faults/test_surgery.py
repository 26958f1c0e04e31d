"""An operation that dies leaves no folder that looks whole; it goes on as the same run, or is simply given again."""

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


def test_kill_9_while_the_certificate_is_made_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        miniatures.model(tmp_path / name, seed=seed, hidden_size=128, num_hidden_layers=6)
    words = ["op=merge_linear", "models=[a,b]", "output=out/half", "run_name={}"]
    process = start(tmp_path, *(each.format("killed") for each in words), stage="surgery")

    def configs() -> list[Path]:
        return list((tmp_path / "out").glob(".half.*/config.json"))

    wait_for(lambda: any(each.is_symlink() for each in configs()), process)
    (seen,) = configs()
    assert seen.is_file(), "it can be read as long as the process lives"
    process.kill()
    process.communicate()
    (left,) = (tmp_path / "out").iterdir()
    assert left.name.startswith(".half.") and (left / "model.safetensors").is_file() and (left / "tokenizer.json").is_file()
    assert not (left / "config.json").exists()
    again = start(tmp_path, *(each.format("again") for each in words), stage="surgery")
    out, err = again.communicate(timeout=400)
    assert again.returncode == 0, out + err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["half"], "another run with this output clears it"
    assert (tmp_path / "out" / "half" / "config.json").is_file() and not (
        tmp_path / "out" / "half" / "config.json"
    ).is_symlink()
