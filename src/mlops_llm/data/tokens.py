"""Tokens of many rows: what the model sees of them, counted in batches."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from mlops_llm.data.chat import Conversation, conversation, headed, tools_of
from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import Row
from mlops_llm.data.texts import sound
from mlops_llm.errors import UserError, first_line
from mlops_llm.models import load, template
from mlops_llm.models.ref import resolve
from mlops_llm.models.template import IGNORED, Encoded

CHUNK = 2000
"""Texts tokenized at once: the tokenizer's own threads share them."""


@dataclass(frozen=True)
class View:
    """One text that the model sees of a row: of a preference pair there are two."""

    name: str
    """`chosen` or `rejected` of a pair, else empty."""
    chat: Conversation
    answered: bool
    """It ends with an answer; else with the mark after which the model is to answer."""


def tokenizer(ref: str) -> Any:
    """The tokenizer of a model with the chat template that training would use.

    Raises:
        UserError: there is no such model, or its template cannot be used.
    """
    loaded = load.tokenizer(resolve(ref))
    template.ensure(loaded, ref)
    loaded.model_max_length = sys.maxsize  # rows of any length are measured; it would warn of each process's first long one
    return loaded


def lengths(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Number of tokens of each text, without special tokens of the tokenizer's own."""
    coded = tokenizer.backend_tokenizer.encode_batch_fast([sound(text) for text in texts], add_special_tokens=False)
    return [len(each) for each in coded]


def views(row: Row, kind: Kind) -> list[View]:
    """What the model sees of a row that has its kind's own fields (`kinds.own`)."""
    if kind is Kind.dpo:
        asked, tools = _asked(row), tools_of(row, "")
        return [
            View(side, Conversation([*asked, {"role": "assistant", "content": row[side]}], tools), True)
            for side in ("chosen", "rejected")
        ]
    if kind in (Kind.sft, Kind.kto):
        return [View("", conversation(row, ""), True)]
    return [View("", Conversation(_asked(row), tools_of(row, "")), False)]


def rendered(tokenizer: Any, view: View) -> str:
    """The templated text of a view.

    Raises:
        UserError: the template cannot render it.
    """
    try:
        return str(
            tokenizer.apply_chat_template(
                view.chat.messages, tools=view.chat.tools or None, tokenize=False, add_generation_prompt=not view.answered
            )
        )
    except Exception as error:
        raise UserError(f"the chat template refuses this conversation ({first_line(error)})") from error


def encoded(tokenizer: Any, view: View, max_tokens: int) -> Encoded:
    """Ids and labels of a view as training makes them; of a prompt nothing is learned.

    Raises:
        UserError: the template cannot render it, or its answers cannot be told from the rest.
    """
    if view.answered:
        return template.encode(tokenizer, view.chat.messages, tools=view.chat.tools, max_tokens=max_tokens)
    ids = list(tokenizer(sound(rendered(tokenizer, view)), add_special_tokens=False)["input_ids"])
    return Encoded(ids[:max_tokens], [IGNORED] * min(len(ids), max_tokens), max(0, len(ids) - max_tokens))


def chunks(items: Iterable[Any], size: int = CHUNK) -> Iterable[list[Any]]:
    """Lists of at most `size` items, in order."""
    waiting = iter(items)
    while batch := list(islice(waiting, size)):
        yield batch


def _asked(row: Row) -> list[dict[str, Any]]:
    turns = [{"role": "user", "content": row["prompt"]}] if isinstance(row.get("prompt"), str) else list(row["messages"])
    return headed(turns, row, "")
