from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "datasets"
ROWS = {
    "sales_sft.jsonl": (500, ["prompt", "response"]),
    "sales_sft_val.jsonl": (50, ["prompt", "response"]),
    "sales_dpo.jsonl": (300, ["prompt", "chosen", "rejected"]),
    "ppo_general.json": (200, ["prompt"]),
    "sales_grpo.jsonl": (400, ["prompt", "solution"]),
    "sales_eval.jsonl": (100, ["prompt", "reference", "label", "metadata"]),
    "math_sft.jsonl": (300, ["prompt", "response"]),
    "math_grpo.jsonl": (300, ["prompt", "solution"]),
}


def read(name: str) -> list[dict[str, Any]]:
    text = (FOLDER / name).read_bytes().decode("utf-8")
    rows = json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]
    assert isinstance(rows, list)
    return rows


def prompts(name: str) -> list[str]:
    return [row["prompt"] for row in read(name)]


@pytest.mark.parametrize("name", ROWS)
def test_rows_and_fields(name: str) -> None:
    count, fields = ROWS[name]
    rows = read(name)
    assert len(rows) == count
    for row in rows:
        assert list(row) == fields
        assert all(isinstance(row[f], str) and row[f] == row[f].strip() != "" for f in fields if f != "metadata")


@pytest.mark.parametrize("name", ROWS)
def test_text_is_clean(name: str) -> None:
    text = (FOLDER / name).read_bytes().decode("utf-8")
    assert unicodedata.is_normalized("NFC", text)
    assert text.endswith("\n")
    assert {c for c in text if unicodedata.category(c).startswith("C")} == {"\n"}
    assert "\ufffd" not in text and "{" not in "".join(str(r["prompt"]) for r in read(name))


def test_sales_sft_holds_exactly_three_planted_duplicates() -> None:
    rows = [(row["prompt"], row["response"]) for row in read("sales_sft.jsonl")]
    assert len(set(rows)) == 497
    assert len({prompt for prompt, _ in rows}) == 497
    assert max(rows.count(row) for row in rows) == 2


@pytest.mark.parametrize("name", [name for name in ROWS if name != "sales_sft.jsonl"])
def test_no_prompt_recurs_within_a_file(name: str) -> None:
    assert len(set(prompts(name))) == ROWS[name][0]


@pytest.mark.parametrize("held_out", ["sales_sft_val.jsonl", "sales_eval.jsonl"])
def test_held_out_prompts_are_in_no_other_file(held_out: str) -> None:
    others = {prompt for name in ROWS if name != held_out for prompt in prompts(name)}
    assert not others & set(prompts(held_out))


def test_the_math_files_share_no_prompt() -> None:
    assert not set(prompts("math_sft.jsonl")) & set(prompts("math_grpo.jsonl"))


def test_eval_labels_and_metadata() -> None:
    rows = read("sales_eval.jsonl")
    assert {row["label"] for row in rows} == {"售前", "物流", "售后", "支付", "优惠"}
    for row in rows:
        assert list(row["metadata"]) == ["topic", "difficulty"]
        assert row["metadata"]["difficulty"] in {"easy", "medium", "hard"}


def test_chosen_and_rejected_differ() -> None:
    assert all(row["chosen"] != row["rejected"] for row in read("sales_dpo.jsonl"))


def test_sums_are_right() -> None:
    for row in read("math_grpo.jsonl"):
        assert sum(int(c) for c in row["prompt"] if c.isdigit()) == int(row["solution"])
    for row in read("math_sft.jsonl"):
        a, b = (int(c) for c in row["prompt"] if c.isdigit())
        assert row["response"] == f"{a} + {b} = \\boxed{{{a + b}}}"
