"""The grader over every answer of gsm8k."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mlops_llm.data import solutions
from mlops_llm.train.reward import Answers
from mlops_llm.train.rewards.accuracy import Accuracy

DATA = Path(os.environ.get("MLOPS_LLM_REAL_DATA", ""))
pytestmark = pytest.mark.skipif(
    not os.environ.get("MLOPS_LLM_REAL_DATA"), reason="MLOPS_LLM_REAL_DATA does not name the folder of real data"
)


def test_every_answer_of_gsm8k_is_a_number_and_grades_itself_right():
    lines = (DATA / "gsm8k/train.jsonl").read_text("utf-8").splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    rows = [{"solution": answer.rpartition("####")[2].strip()} for answer in answers]
    assert len(rows) == 7473
    parsed = [solutions.parse(row["solution"]) for row in rows]
    assert [row["solution"] for row, one in zip(rows, parsed, strict=True) if one is None or one.number is None] == []
    reward = Accuracy()
    assert reward.check(rows) == [None] * len(rows)
    boxes = [rf"so \boxed{{{row['solution']}}}" for row in rows]
    words = [f"That makes {row['solution']} in all." for row in rows]
    for completions in (answers, boxes, words):
        assert set(reward.score(Answers([[]] * len(rows), completions, rows))) == {1.0}
    others = [{"solution": str(one.number + 1)} for one in parsed if one and one.number is not None]
    assert set(reward.score(Answers([[]] * len(rows), answers, others))) == {0.0}
