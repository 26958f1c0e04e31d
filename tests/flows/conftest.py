from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mlops_llm.data.__main__ import STAGE
from mlops_llm.entry import launch
from tests import slurm_cluster
from tests.commands import SMOKE, ok, train

PRISTINE = "as-trained.db"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `tiny` was trained once, as run `first`; not in a fork, whose memory holds more than it needs."""
    folder = tmp_path_factory.mktemp("trained")
    ok(train(folder, *SMOKE, "run_name=first", "seed=7", fresh=True))
    copy(folder / "mlflow.db", folder / PRISTINE)
    return folder


@pytest.fixture(scope="module")
def beside(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the record as it was when `first` had been trained, in which a module meets no runs but its own."""
    folder = tmp_path_factory.mktemp("beside")
    copy(trained / PRISTINE, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the module's own with a training, run `mine`, of which nothing is registered."""
    folder = tmp_path_factory.mktemp("own")
    short = ["max_steps=6", "save_steps=2", "eval_steps=2", "logging_steps=2"]
    words = [f"trainer.{each}" for each in short]
    ok(train(folder, *SMOKE, *words, "samples.count=0", "run_name=mine", "register_as=null"))
    return folder


@pytest.fixture(scope="session")
def slurm() -> Iterator[slurm_cluster.Cluster]:
    """A SLURM cluster of two nodes; a command that is to find it needs its `environment`."""
    if why := slurm_cluster.missing():
        pytest.skip(why)
    with slurm_cluster.Cluster() as cluster:
        yield cluster


def copy(record: Path, to: Path) -> None:
    """Copy a record that may be in use."""
    with closing(sqlite3.connect(record)) as there, closing(sqlite3.connect(to)) as here:
        there.backup(here)


@pytest.fixture
def data(here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function that runs a data command and returns its result.json, or with `code` the error line."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLOPS_LLM_CACHE", str(here / "cache"))

    def run(*words: str, code: int = 0) -> Any:
        before = set((here / "outputs").glob("*/result.json"))
        capfd.readouterr()
        got = launch(STAGE, list(words))
        out, err = capfd.readouterr()
        assert got == code, out + err
        assert "Traceback" not in err
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        if lines:
            (line,) = lines
            return line.removeprefix("error: ")
        (made,) = set((here / "outputs").glob("*/result.json")) - before
        return json.loads(made.read_text("utf-8")) | {"out": out, "err": err}

    return run
