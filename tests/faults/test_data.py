"""Data operations that are stopped, or have no room or no right to write: nothing half-written is left."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import start, wait_for
from tests.faults.conftest import remount
from tests.record import client, run_of


def many(path: Path, rows: int) -> Path:
    """A file of rows, each of its own words."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            words = " ".join(f"w{number * 7919 % 100_003 + each * 31 % 997}" for each in range(20))
            file.write(json.dumps({"prompt": f"{number} {words}", "response": f"answer {number}"}) + "\n")
    return path


def drafts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize("op", ["add", "dedup_minhash", "validate"])
def test_ctrl_c_leaves_nothing_half_written(tmp_path: Path, op: str) -> None:
    (tmp_path / "datasets").mkdir()
    rows = many(tmp_path / "rows.jsonl", 60_000 if op == "add" else 30_000)
    words = {"validate": ["op.fix=true", "name=mended"], "add": ["name=mine"]}.get(op, [])
    process = start(tmp_path, f"op={op}", f"dataset={rows}", "run_name=stopped", *words, stage="data")

    def begun() -> bool:
        """In the middle of the work: a draft is being written, or the run is open."""
        if op == "add":
            return bool(list((tmp_path / "datasets").glob(".mine*")))
        return (tmp_path / "mlruns").is_dir() and (tmp_path / "outputs/stopped/data.log").is_file()

    wait_for(begun, process)
    time.sleep(0.3 if op != "add" else 0.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err, out + err
    assert "interrupted; nothing half-written is left, type the command again" in err
    assert list((tmp_path / "datasets").iterdir()) == [] and not (tmp_path / "mended.jsonl").exists()
    assert drafts(tmp_path) == []
    store = client(tmp_path)
    assert run_of(store, "stopped").info.status == "KILLED"
    assert not [each for each in store.search_experiments() if each.name.startswith("datasets/")]
    again = start(tmp_path, f"op={op}", f"dataset={rows}", *words, stage="data", fresh=op == "add")
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, out + err


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """A function that runs a data command which must not succeed, and returns its one line."""

    def run(folder: Path, *words: str) -> str:
        store = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
        process = start(folder, *words, f"hydra.run.dir={tmp_path / 'out' / words[0]}", env=store, stage="data")
        out, err = process.communicate(timeout=120)
        assert process.returncode in (1, 2) and "Traceback" not in err, out + err
        (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
        return line

    return run


def test_where_nothing_may_be_written_is_one_line(refused: Callable[..., str], tmp_path: Path, small_disk: Path) -> None:
    rows = many(tmp_path / "rows.jsonl", 100)
    (small_disk / "datasets").mkdir()
    remount(small_disk, "ro")
    line = refused(small_disk, "op=add", f"dataset={rows}", "name=mine")
    assert "datasets" in line and "writable" in line
    line = refused(small_disk, "op=export", f"dataset={rows}", "output=there/rows.parquet")
    assert "there" in line


def test_a_full_disk_leaves_no_half_of_a_dataset(refused: Callable[..., str], tmp_path: Path, small_disk: Path) -> None:
    rows = many(tmp_path / "rows.jsonl", 120_000)
    assert rows.stat().st_size > 16 << 20
    (small_disk / "datasets").mkdir()
    line = refused(small_disk, "op=add", f"dataset={rows}", "name=mine")
    assert "No space left on device" in line or "disk" in line
    assert list((small_disk / "datasets").iterdir()) == []
    line = refused(small_disk, "op=export", f"dataset={rows}", "output=rows.jsonl")
    assert not (small_disk / "rows.jsonl").exists() and drafts(small_disk) == []
