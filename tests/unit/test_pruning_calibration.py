"""Rows by which units are judged, and others by which the model is measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlops_llm.data.read import Read
from mlops_llm.errors import UserError
from mlops_llm.models import load
from mlops_llm.models.ref import resolve
from mlops_llm.models.template import IGNORED
from mlops_llm.surgery.pruning.calibration import BUILT_IN, HELD, LONGEST, Calibration, calibration

TOKENIZER = load.tokenizer(resolve("tiny"))


def drawn(ref: str | None, samples: int, seed: int = 0) -> Calibration:
    return calibration(ref, samples, TOKENIZER, seed=seed, how=Read())


def sft(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"question number {place}", "response": f"answer {place} " * 3} for place in range(count)]


def test_built_in_texts_are_measured_whole_and_need_no_dataset() -> None:
    found = drawn(None, 100)
    assert found.name == BUILT_IN and not found.inputs
    assert len(found.seen) >= 20 and len(found.held) >= 5
    assert all(one.labels == one.ids for one in found.held)
    assert len(drawn(None, 3).seen) == 3


def test_rows_that_measure_are_not_those_that_judge(jsonl: Callable[..., Path]) -> None:
    path = str(jsonl(sft(200)))
    found = drawn(path, 40)
    seen, held = ({tuple(one.ids) for one in part} for part in (found.seen, found.held))
    assert (len(seen), len(held)) == (40, HELD) and not seen & held
    assert drawn(path, 100).held == found.held and len(drawn(path, 500).seen) == 180
    assert drawn(path, 40).digest == found.digest != drawn(path, 40, seed=1).digest
    (told,) = found.inputs
    assert (told.context, told.rows) == ("calibration", 60)


def test_answers_are_measured_where_rows_have_them(jsonl: Callable[..., Path]) -> None:
    found = drawn(str(jsonl(sft(20))), 5)
    assert all(IGNORED in one.labels and one.trained for one in found.held)
    asked = drawn(str(jsonl([{"prompt": f"only a question {place}"} for place in range(20)], "ppo.jsonl")), 5)
    assert all(one.labels == one.ids for one in asked.held)


def test_long_rows_are_cut_and_few_rows_refused(jsonl: Callable[..., Path]) -> None:
    rows = [{"prompt": "p " * 2000, "response": "r"} for _ in range(9)]
    assert {len(one.ids) for one in drawn(str(jsonl(rows)), 5).seen} == {LONGEST}
    with pytest.raises(UserError, match=r"op\.calibration=few: has 4 rows, 4 of them with 2 tokens or more, and 5 are needed"):
        drawn(str(jsonl(sft(4), "few.jsonl")), 5)
