"""What is installed from the wheel works from an empty folder, without the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.commands import environment

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files."""
    pytest.importorskip("hatchling", reason="hatchling is not installed: no wheel can be built")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "site")
    return folder / "site"


def run(unpacked: Path, folder: Path, *words: str) -> str:
    """A command of the installed package in a folder."""
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment({"PYTHONPATH": str(unpacked)}), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_installed_copy_lists_and_trains_in_an_empty_folder(unpacked: Path, tmp_path: Path) -> None:
    where = run(unpacked, tmp_path, "-c", "import mlops_llm; print(mlops_llm.__file__)")
    assert Path(where.strip()).is_relative_to(unpacked)
    assert "sales_grpo" in run(unpacked, tmp_path, "-m", "mlops_llm.data", "op=list")
    assert "experiment" in run(unpacked, tmp_path, "-m", "mlops_llm.train", "--help")
    short = ["trainer.max_steps=1", "trainer.save_steps=1", "trainer.eval_steps=1", "samples.count=0", "run_name=one"]
    said = run(unpacked, tmp_path, "-m", "mlops_llm.train", "+experiment=sft_sales", *short)
    assert "registered" in said and (tmp_path / "outputs/one/checkpoint-1/model.safetensors").is_file()
