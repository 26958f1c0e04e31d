"""Laws of moving: whatever a record holds goes through an archive unchanged, and a second time changes nothing."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlops_llm.tracking.store import Store, connect_to
from tests.moving import Given, moved, seen, written

KEYS = (
    st.text("abzAZ09_-. /:", min_size=1, max_size=12)
    .map(lambda key: f"k{key}k")
    .filter(lambda key: not any(part in ("", ".", "..") for part in key.split("/")))
)
"""What MLflow takes for the name of a number or a setting."""
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NUMBERS = st.floats(width=64) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324])
TIMES = st.integers(0, 3) | st.integers(0, 2**52)
FILES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=30).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)


ROWS = st.lists(st.tuples(KEYS | st.just("train/loss"), NUMBERS, TIMES, st.integers(0, 3)), max_size=8)
RUNS = st.lists(
    st.builds(
        Given,
        name=TEXTS.filter(str.strip),
        status=st.sampled_from(["FINISHED", "FAILED", "KILLED"]),
        parent=st.none() | st.integers(0, 2),
        params=st.dictionaries(KEYS, TEXTS, max_size=4),
        tags=st.dictionaries(KEYS, TEXTS, max_size=4),
        metrics=ROWS,
        artifacts=st.dictionaries(FILES, st.binary(max_size=20), max_size=3),
        dataset=TEXTS,
        checkpoint=st.none() | st.dictionaries(st.sampled_from(["config.json", "说明.md", "a b"]), st.binary(max_size=9)),
        scores=ROWS,
    ),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], tuple[Store, Store]]:
    """Two records, and with each call a project of its own in both."""
    folder = tmp_path_factory.mktemp("stores")
    made = []
    for name in ("one", "two"):
        (folder / name).mkdir()
        made.append(connect_to(f"sqlite:///{folder / name / 'mlflow.db'}"))
    return lambda: (made[0], made[1])


@settings(max_examples=6)
@given(runs=RUNS)
@example([Given("a", metrics=[("k", math.nan, 1, 1), ("k", math.inf, 1, 1), ("k", 1.0, 1, 1), ("k", 1.0, 1, 2)])])
@example(
    [
        Given(
            "a",
            artifacts={
                "back\\slash": b"",
                "new\nline": b"",
                ".hidden": b"1",
                "-x": b"",
                "manifest.json": b"{}",
                os.fsdecode(b"\xff"): b"",
            },
        )
    ]
)
@example([Given("Ω' \"", tags={"k": "\ud7ff\U0001f600' \" %"}, dataset="'")])
@example([Given("a"), Given("a", parent=0), Given("a", parent=1, checkpoint={}, scores=[("s", 1.0, 1, 1)])])
def test_what_went_in_comes_out_and_a_second_time_changes_nothing(stores, runs):
    source, target = stores()
    with tempfile.TemporaryDirectory() as folder:
        ids = written(source, runs, "any")
        before = seen(source, ids)
        for name in ("once.tar", "twice"):
            there = moved(source, target, ids, Path(folder), name)
            assert seen(target, there) == before
            assert len(set(there)) == len(ids)
        assert moved(target, source, there, Path(folder), "back") == ids
        assert seen(source, ids) == before
