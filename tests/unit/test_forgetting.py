"""What a checkpoint may lie on, by the record alone."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlops_llm.errors import UserError
from mlops_llm.tracking import checkpoints, forgetting, ledger
from mlops_llm.tracking.checkpoints import CheckpointRow

STORE: Any = None


def id(name: str) -> str:
    return f"m-{name * 32}"


def refs(*names: str) -> str:
    return json.dumps([f"models:/{id(name)}" for name in names])


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, CheckpointRow]:
    """Checkpoints by id, each made by a run of the same name; the tags are those of the run."""
    rows: dict[str, CheckpointRow] = {}
    runs: dict[str, dict[str, str]] = {
        "a": {"base.checkpoint": id("b"), "base.adapter": "keep", "digest.base": "B"},  # on an adapter
        "b": {"digest.base": "D"},  # of a folder with these weights
        "c": {"base.checkpoint": id("d"), "digest.base": "D"},
        "d": {},
        "e": {"parents": refs("a", "f")},
        "f": {"base.checkpoint": id("d"), "base.adapter": "keep"},
        "0": {"parents": json.dumps([f"models:/{id('a')}", "./folder"])},
        "1": {"base": "tiny"},
        "2": {"base.checkpoint": id("9"), "base.adapter": "keep"},  # which the record does not have
        "3": {"base.adapter": "keep", "digest.base": "D"},
        "4": {"parents": refs("4", "b")},
        "5": {"base.checkpoint": id("6"), "base.adapter": "keep"},
        "6": {"parents": json.dumps(["./folder"])},
    }
    for name in runs:
        (tmp_path / name).mkdir()
        peft = {"d": "full", "6": ""}.get(name, "lora")
        rows[id(name)] = CheckpointRow(id(name), name, 1, "READY", str(tmp_path / name), name, {}, {}, peft=peft)
    (tmp_path / "6" / "config.json").touch()

    def found(table: dict[str, Any], key: str) -> Any:
        if key not in table:
            raise UserError("is not there", key)
        return table[key]

    monkeypatch.setattr(checkpoints, "by_id", lambda store, key: found(rows, key))
    monkeypatch.setattr(ledger, "find_run", lambda store, key: SimpleNamespace(tags=found(runs, key)))
    return rows


@pytest.mark.parametrize(
    ("one", "names", "is_all"),
    [
        ("a", {id("b"), "D"}, True),
        ("c", {id("d"), "D"}, True),
        ("d", set(), True),
        ("e", {id("a"), id("f"), id("b"), id("d"), "D"}, True),
        ("4", {id("4"), id("b"), "D"}, True),
        ("5", {id("6")}, True),
        ("0", set(), False),
        ("1", set(), False),
        ("2", {id("9")}, False),
        ("3", set(), False),
    ],
)
def test_a_checkpoint_is_followed_to_whole_models_and_what_the_record_does_not_tell_is_said(
    record: dict[str, CheckpointRow], one: str, names: set[str], is_all: bool
) -> None:
    assert forgetting.beneath(STORE, record[id(one)]) == forgetting.Beneath(frozenset(names), is_all)


def test_a_record_that_is_away_is_not_taken_for_one_that_knows_nothing(
    record: dict[str, CheckpointRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "is_away", lambda error: True)
    with pytest.raises(UserError, match="is not there"):
        forgetting.beneath(STORE, record[id("2")])
