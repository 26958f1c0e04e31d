"""Rows by which a model is looked at, and others by which it is measured: one rule for pruning and quantization."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlops_llm.component import build
from mlops_llm.component import load as load_components
from mlops_llm.data.kinds import Kind
from mlops_llm.data.ref import open_dataset
from mlops_llm.errors import UserError
from mlops_llm.models import load
from mlops_llm.models.ref import resolve
from mlops_llm.models.template import IGNORED
from mlops_llm.models.tensors import Shape
from mlops_llm.surgery.calibration import BUILT_IN, HELD, Calibrating, Calibration, drawn
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.pruning.texts import TEXTS

TOKENIZER = load.tokenizer(resolve("tiny"))
WIDE = {"model.layers.1.mlp.down_proj.weight": Shape("F32", (8, 16), 512), "model.norm.weight": Shape("F32", (8,), 32)}


def found(ref: str | None, samples: int, *, hold: bool = True, most: int = 512, **settings: Any) -> Calibration:
    how = Calibrating(ref, samples, most)
    return drawn(how, Surgery(op=None, **settings), TOKENIZER, WIDE, hold=hold, texts=TEXTS)


def sft(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"question number {place}", "response": f"answer {place} " * 3} for place in range(count)]


def test_built_in_texts_are_measured_whole_and_need_no_dataset() -> None:
    one = found(None, 100)
    assert one.name == BUILT_IN and not one.inputs and not one.pins
    assert len(one.seen) >= 20 and len(one.held) >= 5
    assert all(each.labels == each.ids for each in one.held)
    assert len(found(None, 3).seen) == 3
    with pytest.raises(UserError, match=r"op\.calibration: names no rows; name rows like those that the model will meet"):
        drawn(Calibrating(), Surgery(op=None), TOKENIZER, WIDE)


def test_rows_that_measure_are_not_those_that_judge(jsonl: Callable[..., Path]) -> None:
    path = str(jsonl(sft(200)))
    one = found(path, 40)
    seen, held = ({tuple(each.ids) for each in part} for part in (one.seen, one.held))
    assert (len(seen), len(held)) == (40, HELD) and not seen & held
    assert found(path, 100).held == one.held
    assert found(path, 40).digest == one.digest != found(path, 40, seed=1).digest
    (told,) = one.inputs
    assert (told.context, told.rows) == ("calibration", 60)
    assert found(path, 40, hold=False).held == [] and found(path, 40, hold=False).inputs[0].rows == 40


def test_the_order_of_a_file_does_not_count(jsonl: Callable[..., Path]) -> None:
    rows = sft(30)
    first, second = (str(jsonl(each, name)) for each, name in ((rows, "a.jsonl"), (rows[::-1], "b.jsonl")))
    assert found(first, 8).digest == found(second, 8).digest


def test_answers_are_measured_where_rows_have_them(jsonl: Callable[..., Path]) -> None:
    one = found(str(jsonl(sft(20))), 5)
    assert all(IGNORED in each.labels and each.trained for each in one.held)
    asked = found(str(jsonl([{"prompt": f"only a question {place}"} for place in range(20)], "ppo.jsonl")), 5)
    assert all(each.labels == each.ids for each in asked.held)
    told = [{"prompt": f"question {place}", "reference": f"good answer {place}"} for place in range(20)]
    answers = found(str(jsonl(told, "eval.jsonl")), 5)
    assert all("good answer" in TOKENIZER.decode(each.ids) and IGNORED in each.labels for each in answers.seen)
    kto = [{"prompt": f"question {place}", "response": f"bad answer {place}", "label": False} for place in range(20)]
    unwanted = found(str(jsonl(kto, "kto.jsonl")), 5)
    assert not any("bad answer" in TOKENIZER.decode(each.ids) for each in unwanted.seen)


def test_the_kind_that_is_said_is_the_one_that_is_taken(jsonl: Callable[..., Path]) -> None:
    pairs = [
        {"prompt": f"q{place}", "chosen": f"good {place}", "rejected": f"bad {place}", "response": "x"} for place in range(9)
    ]
    path = str(jsonl(pairs))
    assert all("good" in TOKENIZER.decode(each.ids) for each in found(path, 5, hold=False).seen)
    assert not any("good" in TOKENIZER.decode(each.ids) for each in found(path, 5, hold=False, kind=Kind.ppo).seen)


def test_long_rows_are_cut(jsonl: Callable[..., Path]) -> None:
    rows = str(jsonl([{"prompt": "p " * 2000, "response": "r"} for _ in range(9)]))
    assert {len(each.ids) for each in found(rows, 5).seen} == {512}
    assert {len(each.ids) for each in found(rows, 5, most=20).seen} == {20}


@pytest.mark.parametrize(
    ("rows", "samples", "hold", "said"),
    [
        (4, 5, True, "has 4 rows, and 5 are needed, one of which is held out; name more rows"),
        (5, 6, False, "has 5 rows, and 6 are wanted; op.samples=5, or name more rows"),
        (10, 9, True, "has 10 rows, and 9 are wanted beside 2 that are held out; op.samples=8, or name more rows"),
        (
            6,
            1,
            True,
            r"1 rows have 1\d tokens together, fewer than model.layers.1.mlp.down_proj has columns \(16\); give more or",
        ),
    ],
)
def test_too_few_and_too_short_rows_are_refused(
    jsonl: Callable[..., Path], rows: int, samples: int, hold: bool, said: str
) -> None:
    path = str(jsonl([{"prompt": "q", "response": str(place)} for place in range(rows)]))
    with pytest.raises(UserError, match=said) as caught:
        found(path, samples, hold=hold)
    assert caught.value.where == path and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["prune_ffn", "prune_heads", "prune_depth", "quantize_gptq", "quantize_w4a16", "quantize_w8a16"]
)
def test_every_operation_that_sees_rows_has_the_same_settings(name: str) -> None:
    load_components("mlops_llm.surgery.ops")
    assert isinstance(build("op", name), Calibrating)
    for settings in ({"samples": 0}, {"max_tokens": 7}):
        with pytest.raises(UserError, match=rf"op\.{next(iter(settings))}: is "):
            build("op", name, settings)


def test_rows_have_a_ref_that_lasts(jsonl: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    path = jsonl(sft(20), "rows.jsonl")
    pin = found(str(path), 5).pins["calibration"]
    assert pin == f"{path}@{open_dataset(str(path)).canonical}"
    again = found(pin, 5)
    assert again.digest == found(str(path), 5).digest and again.pins["calibration"] == pin and again.name == "rows"
    shipped = found("sales_sft", 5).pins["calibration"]
    assert shipped.startswith("sales_sft@") and found(shipped, 5).pins["calibration"] == shipped
    jsonl(sft(21), "rows.jsonl")
    with pytest.raises(UserError, match=r"rows\.jsonl: its rows are others now \(digest \w{12}…, wanted \w{12}…\); bring"):
        found(pin, 5)
