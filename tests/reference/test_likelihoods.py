"""What an evaluation finds of likelihoods, against transformers asked as its documentation says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mlops_llm.component import build, load
from mlops_llm.eval.config import Cache, Eval
from mlops_llm.eval.evaluation import carried_out
from mlops_llm.eval.metrics.perplexity import Of, Perplexity
from mlops_llm.eval.plan import Plan, prepare
from mlops_llm.eval.rendering import answered
from mlops_llm.inference.engine import Sampling
from mlops_llm.inference.engines.hf import HfSession
from tests import miniatures

load("mlops_llm.inference.engines")
ROWS = [
    {"prompt": "hello", "response": "good morning to you"},
    {"prompt": "What is 2 plus 2? " * 4, "response": "4"},
    {"prompt": "你好，请问几天可以发货？", "response": "两天之内发货。"},
]


def directly(folder: Path, plan: Plan, *, whole: bool) -> dict[str, float]:
    """Perplexity and bits per byte, each row alone, in float64."""
    import torch
    from transformers import AutoModelForCausalLM

    assert plan.questions and plan.subject
    model = AutoModelForCausalLM.from_pretrained(folder).double().eval()
    loss, tokens, size = 0.0, 0, 0
    for one in plan.questions.asked:
        ids, begin = answered(plan.subject.tokenizer, one, one.references[0])
        with torch.inference_mode():
            said = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        first = 1 if whole else begin
        loss -= sum(float(said[place - 1, ids[place]]) for place in range(first, len(ids)))
        tokens += len(ids) - first
        size += len((plan.subject.tokenizer.decode(ids[1:]) if whole else one.references[0]).encode())
    return {"perplexity": math.exp(loss / tokens), "bits_per_byte": loss / size / math.log(2)}


@pytest.mark.parametrize("of", list(Of))
def test_only_what_counts_is_asked_and_it_is_what_the_model_says(
    tmp_path: Path, jsonl: Any, of: Of, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, asked, before = miniatures.model(tmp_path / "model"), list[int](), HfSession.logprobs

    def watched(self: Any, sequences: Sequence[Any], begins: Sequence[int], *how: Any) -> Any:
        asked.extend(begins)
        return before(self, sequences, begins, *how)

    monkeypatch.setattr(HfSession, "logprobs", watched)
    plan = prepare(
        Eval(
            op=None,
            model=str(folder),
            dataset=str(jsonl(ROWS)),
            metric={"perplexity": Perplexity(of)},
            engine=build("engine", "hf"),
            sampling=Sampling(batch_size=2),
            cache=Cache.off,
        )
    )
    outcome, _ = carried_out(plan, tmp_path / "run")
    wanted = directly(folder, plan, whole=of is Of.whole)
    assert {each.name: each.value for each in outcome.scores} == pytest.approx(wanted, rel=1e-5)
    assert len(asked) == len(ROWS) and all((begin == 1) == (of is Of.whole) for begin in asked)
