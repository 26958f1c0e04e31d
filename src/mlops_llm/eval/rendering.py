"""Questions as a model sees them."""

from __future__ import annotations

import sys
from typing import Any

from mlops_llm.data.chat import Conversation
from mlops_llm.data.texts import sound
from mlops_llm.data.tokens import View, rendered
from mlops_llm.errors import UserError
from mlops_llm.eval.questions import Question
from mlops_llm.models import template


def prompted(tokenizer: Any, question: Question, where: str = "") -> str:
    """A question as the model sees it, up to where it is to answer.

    Raises:
        UserError: the template cannot render it.
    """
    try:
        return sound(rendered(tokenizer, View("", Conversation(question.turns, question.tools), False)))
    except UserError as error:
        raise UserError(error.what, where or error.where, error.remedy) from error


def answered(tokenizer: Any, question: Question, answer: str) -> tuple[list[int], int]:
    """Token ids of a question with an answer, its end mark included, and the place at which the answer begins.

    Raises:
        UserError: the template cannot render it, or the answer cannot be told from the rest.
    """
    turns = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in question.turns]
    turns += [{"role": "assistant", "content": sound(answer)}]
    coded = template.encode(tokenizer, turns, tools=question.tools, max_tokens=sys.maxsize)
    own = [place for place, label in enumerate(coded.labels) if label != template.IGNORED]
    if not own:
        raise UserError("the chat template hides the answer", remedy="take the model's own chat template")
    # What a template writes behind the end mark, such as a line's end, is no part of the answer.
    end = next((place for place in own if coded.ids[place] == tokenizer.eos_token_id), own[-1])
    return coded.ids[: end + 1], own[0]
