"""How an evaluation set says to be scored, as the command takes it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from mlops_llm.data.kinds import Kind
from mlops_llm.data.purpose import NO_PURPOSE, Purpose, given
from mlops_llm.data.read import Source
from mlops_llm.errors import UserError
from mlops_llm.eval import method
from mlops_llm.eval.metrics.bleu import Bleu

SOURCE = Source("sales_eval", Path("rows.jsonl"), "v1.0", [], [], "raw")


def test_the_method_of_a_version_becomes_metrics(monkeypatch):
    version = SimpleNamespace(name="sales_eval", label="v1.0", ability="对话质量", method=("bleu", "judge"))
    monkeypatch.setattr(method, "version_of", lambda source: version)
    assert method.of(SOURCE) == method.Method({"bleu": Bleu()}, True)
    assert method.ability(SOURCE) == "对话质量"
    version.method = ("blue",)
    with pytest.raises(
        UserError, match=r"sales_eval@v1\.0: is to be scored by 'blue', which is no metric \(did you mean bleu\?\)"
    ):
        method.of(SOURCE)
    monkeypatch.setattr(method, "version_of", lambda source: None)
    assert method.of(SOURCE) == method.Method() and method.ability(SOURCE) == ""


def test_what_is_not_given_stays_as_it_was():
    before = SimpleNamespace(ability="问答", method=("judge",))
    assert given(Kind.eval, None, None, before) == Purpose("问答", ("judge",))
    assert given(Kind.eval, " 对话\n质量 ", ["bleu", "rouge"], before) == Purpose("对话 质量", ("bleu", "rouge"))
    assert given(Kind.eval, "", "", before) == given(Kind.eval, "", None) == given(Kind.sft, "", None) == NO_PURPOSE
    for kind, ability, wanted, said in (
        (Kind.sft, "x", None, r"op\.ability: is given, but the rows are of kind sft"),
        (Kind.ppo, "", "judge", r"op\.method: is given, but the rows are of kind ppo"),
        (Kind.eval, "", ["bleu", "my judge"], r"op\.method: 'my judge' is no name"),
    ):
        with pytest.raises(UserError, match=said):
            given(kind, ability, wanted)
