"""Chat templates: what the model sees of a conversation, and which of its tokens are answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_llm import digest
from mlops_llm.errors import UserError, first_line
from mlops_llm.models import sandbox

IGNORED = -100
"""Label of a token that is not learned (torch's cross entropy leaves it out)."""

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
PLAIN = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ 'Assistant:' }}{% generation %}{{ ' ' + message['content'] + eos_token }}"
    "{% endgeneration %}{{ '\\n' }}{% else %}{{ message['role'] | capitalize + ': ' + message['content'] + '\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_PROBE = [
    {"role": "user", "content": "Ping zebra?"},
    {"role": "assistant", "content": "Pong quartz."},
    {"role": "user", "content": "Again?"},
    {"role": "assistant", "content": "Basalt."},
]


@dataclass(frozen=True)
class Encoded:
    """A conversation as token ids with labels."""

    ids: list[int]
    labels: list[int]
    """Same length as ids; `IGNORED` where nothing is learned."""
    cut: int = 0
    """Tokens dropped at the end because the row was too long."""
    place: int = -1
    """Number of the row in its file, where it has one."""

    @property
    def sequences(self) -> list[list[int]]:
        """What a forward pass sees of it."""
        return [self.ids]

    @property
    def trained(self) -> int:
        """Number of tokens that are learned; the first token is never predicted."""
        return sum(label != IGNORED for label in self.labels[1:])


def ensure(tokenizer: Any, where: str) -> str:
    """Check the tokenizer's chat template, or set one where it has none; return how it came: `own`, `chatml`, `plain`.

    Raises:
        UserError: the template fails, loses the text, or uses markers that the tokenizer does not know as one token.
    """
    source = "own"
    if not tokenizer.chat_template:
        known = tokenizer.get_vocab()
        source = "chatml" if "<|im_start|>" in known and "<|im_end|>" in known else "plain"
        tokenizer.chat_template = CHATML if source == "chatml" else PLAIN
    if tokenizer.eos_token is None:
        raise UserError("the tokenizer has no end-of-sequence token", where, "set eos_token in tokenizer_config.json")
    try:
        text = sandbox.bounded(lambda: str(tokenizer.apply_chat_template(_PROBE, tokenize=False)))
    except sandbox.UnboundedError as error:
        raise UserError(f"the chat template {error}", where, "mend chat_template of the tokenizer") from error
    except Exception as error:
        raise UserError(
            f"the chat template fails ({first_line(error)})", where, "mend chat_template of the tokenizer"
        ) from error
    lost = [message["content"] for message in _PROBE if message["content"] not in text]
    if lost:
        raise UserError(f"the chat template drops messages ('{lost[0]}')", where, "mend chat_template of the tokenizer")
    vocabulary = tokenizer.get_vocab()
    foreign = [mark for mark in sorted(set(re.findall(r"<\|[^|<>\s]+\|>|<[a-z]+_of_[a-z]+>", text))) if mark not in vocabulary]
    if foreign:
        raise UserError(
            f"the chat template uses {foreign[0]}, which the tokenizer does not know as one token",
            where,
            "the template belongs to another model: take this model's own",
        )
    return source


def shows_tools(tokenizer: Any) -> bool:
    """Whether the chat template writes both the tools that there are and the calls of them."""
    function = {"name": "probe_zebra", "description": "d", "parameters": {"type": "object", "properties": {}}}
    call = {"type": "function", "function": {"name": "probe_quartz", "arguments": {}}}
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "b"},
        {"role": "assistant", "content": "c"},
    ]
    try:
        text = tokenizer.apply_chat_template(turns, tools=[{"type": "function", "function": function}], tokenize=False)
    except Exception:  # a template that refuses tools does not show them
        return False
    return "probe_zebra" in text and "probe_quartz" in text


def template_digest(tokenizer: Any) -> str:
    """Digest of the chat template's source."""
    return digest.text(str(tokenizer.chat_template or ""))


def encode(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Any] | None = None,
    max_tokens: int,
    answers_only: bool = True,
) -> Encoded:
    """Tokenize a conversation as a whole and mark its answers.

    An answer is what the template writes for an assistant's message after its generation prompt, end mark included. Text is
    tokenized once, so that no token differs from what the model sees at inference, and a token counts as answer when its
    first character does.

    Args:
        tokenizer: a fast tokenizer with a chat template.
        messages: role and content (and tool calls), the last by the assistant; an answer of `weight` 0 is not learned.
        tools: tool schemas for the template.
        max_tokens: longer rows are cut at the end.
        answers_only: label answers only, else all tokens.

    Raises:
        UserError: the template cannot render the conversation, or rewrites earlier turns so that answers cannot be told.
    """
    said = [{**message, "content": message.get("content") or ""} for message in messages]
    text, spans = _rendered(tokenizer, said, tools, answers_only)
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = list(coded["input_ids"])
    if answers_only:
        labels, place = [], 0
        for token, (start, stop) in zip(ids, coded["offset_mapping"], strict=True):
            while place < len(spans) and start >= spans[place][1]:
                place += 1
            inside = place < len(spans) and spans[place][0] <= start and stop > start
            labels.append(token if inside else IGNORED)
    else:
        labels = list(ids)
    cut = max(0, len(ids) - max_tokens)
    return Encoded(ids[:max_tokens], labels[:max_tokens], cut)


def _rendered(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None, answers: bool
) -> tuple[str, list[tuple[int, int]]]:
    """Render the whole conversation and find the character spans of its answers, if they are wanted."""

    def render(part: Sequence[Mapping[str, Any]], prompt: bool = False) -> str:
        try:
            return str(
                tokenizer.apply_chat_template(
                    list(part), tools=list(tools) if tools else None, tokenize=False, add_generation_prompt=prompt
                )
            )
        except Exception as error:
            raise UserError(f"the chat template refuses this conversation ({first_line(error)})") from error

    text = render(messages)
    spans = []
    for place, message in enumerate(messages):
        if message["role"] != "assistant" or not answers or message.get("weight") == 0:
            continue
        before, after = render(messages[:place], prompt=True), render(messages[: place + 1])
        if not after.startswith(before) or not text.startswith(after):
            raise UserError(
                "the chat template rewrites earlier turns, so answers cannot be told from the rest",
                remedy="train on rows with one answer, or on whole texts (algo.loss_on=whole)",
            )
        spans.append((len(before), len(after)))
    return text, spans
