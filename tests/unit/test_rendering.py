"""Questions and answers as a model sees them."""

from __future__ import annotations

import pytest

from mlops_llm.eval.questions import Question
from mlops_llm.eval.rendering import answered, prompted
from mlops_llm.models import load, template
from mlops_llm.models.ref import resolve


@pytest.fixture(scope="module")
def tokenizer():
    loaded = load.tokenizer(resolve("tiny"))
    template.ensure(loaded, "tiny")
    return loaded


def test_an_answer_is_its_text_and_the_end_mark_and_no_more(tokenizer):
    turns = [{"role": "user", "content": "一"}, {"role": "assistant", "content": "二"}, {"role": "user", "content": "三"}]
    one = Question(turns, None, ("四五",))
    ids, begin = answered(tokenizer, one, "四五")
    assert tokenizer.decode(ids[begin:]) == f"四五{tokenizer.eos_token}"
    assert tokenizer.decode(ids[:begin]) == prompted(tokenizer, one)
