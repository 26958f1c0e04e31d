"""Shared by all tests: a quiet, offline environment, a folder of one's own, and files of rows."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import configuration, settings

from mlops_llm import garbage
from tests import commands
from tests.haste import close_records, hasten

garbage.put_off()
for name, value in {
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(name, value)
os.environ.pop("MLFLOW_TRACKING_URI", None)  # each test has a record of its own
commands.START.update(os.environ)

# A shell has what runs in its background ignore Ctrl-C, and so would the commands that are to heed it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # below nohup; what is started from here is to heed it
    signal.signal(signal.SIGHUP, lambda number, frame: None)

# No deadline: a slow machine is no bug. The examples are the same in every run, and no folder is left in the checkout.
configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "mlops_llm_hypothesis")
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("suite")


FIRST = ("flows", "faults", "real", "security", "contract")
"""Folders of tests by how long their files take, longest first: what is left for the end of a run should be short."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that start clusters and servers, and end with those that take milliseconds."""
    items.sort(key=_rank)


def pytest_collection_finish() -> None:
    """What the tests' files have imported stays."""
    garbage.settle()


def _rank(item: pytest.Item) -> tuple[bool, int]:
    module = item.getparent(pytest.Module)
    is_slow = module is not None and any(mark.name == "slow" for mark in module.own_markers)
    folder = item.path.parent.name
    return not is_slow, FIRST.index(folder) if folder in FIRST else len(FIRST)


@pytest.fixture(autouse=True)
def _no_waiting() -> None:
    """MLflow, once a test has loaded it, does not wait for the disk."""
    if "mlflow.store.db.utils" in sys.modules:
        hasten()


@pytest.fixture(autouse=True, scope="module")
def _closed_records() -> Iterator[None]:
    """A worker has no more files open than those of one module's records."""
    yield
    close_records()


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """What a command that ran in this process has set (where its record is, say) ends with the test."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that is the current one during the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes rows as JSON lines and returns the file."""

    def write(rows: Iterable[dict[str, Any]], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        return path

    return write
