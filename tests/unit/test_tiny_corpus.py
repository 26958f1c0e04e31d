from __future__ import annotations

import json
import re
from pathlib import Path

from mlops_llm.models.tiny import corpus

DATASETS = Path(__file__).resolve().parents[2] / "datasets"


def lines(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATASETS / name).read_text(encoding="utf-8").splitlines()]


def test_same_seed_same_text() -> None:
    assert corpus.exchanges(3, 200) == corpus.exchanges(3, 200)
    assert corpus.exchanges(3, 200) != corpus.exchanges(4, 200)


def test_sums_are_right_and_in_the_asked_shares() -> None:
    rows = corpus.exchanges(0, 4000)
    sums = [row for row in rows if "\\boxed" in row.response or row.response.startswith("答案是")]
    assert abs(len(sums) / len(rows) - 0.85) < 0.03
    assert abs(sum("\\boxed" in row.response for row in sums) / len(sums) - 0.4) < 0.03
    for prompt, response in sums:
        a, b = (int(digit) for digit in re.findall(r"\d", prompt))
        assert response in (f"答案是 {a + b} 。", f"{a} + {b} = \\boxed{{{a + b}}}")


def test_no_slot_is_left_open() -> None:
    for prompt, response in corpus.exchanges(1, 2000, sums=0.0):
        assert "{" not in prompt + response


def test_math_datasets_ask_only_as_the_corpus_does() -> None:
    known = {form.format(a=a, b=b) for form in corpus.SUMS for a in range(10) for b in range(10)}
    assert {row["prompt"] for name in ("math_sft.jsonl", "math_grpo.jsonl") for row in lines(name)} <= known


def test_sales_datasets_are_not_in_the_corpus() -> None:
    seen = {part for row in corpus.exchanges(0, 8000) for part in row}
    for row in lines("sales_sft.jsonl") + lines("sales_sft_val.jsonl"):
        assert row["prompt"] not in seen
        assert row["response"] not in seen
