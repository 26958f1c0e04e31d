"""OpenAI's protocol from the server's side: what a request asks for, and how answers are written."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel, Field, ValidationError

LARGEST = 2**22
"""Bytes of a request."""
ANSWERS = 512
"""Answers to one request."""
_MOST = 20
"""Likeliest tokens that are told of each place, as with OpenAI."""
_NOT_DONE = ("tools", "functions", "logit_bias", "frequency_penalty", "presence_penalty", "echo", "suffix", "top_k", "min_p",
             "repetition_penalty", "min_tokens", "ignore_eos", "stop_token_ids", "structured_outputs", "guided_json",
             "guided_regex", "guided_choice")  # fmt: skip
"""What OpenAI's or vLLM's protocol has and this server does not do: left out in silence it would give other answers."""
_NEUTRAL = {"top_k": -1, "repetition_penalty": 1.0}
"""What says nothing, where that is not 0."""
_COMPLETION = 16
"""Tokens of a completion where nothing is said, as with OpenAI."""


class BadRequestError(Exception):
    """What a client must mend."""

    def __init__(self, said: str, field: str | None = None, status: int = 400) -> None:
        """Keep what is wrong and which field holds it."""
        super().__init__(said)
        self.said, self.field, self.status = said, field, status


class Asked(BaseModel):  # type: ignore[misc]
    """What both kinds of requests hold."""

    model: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int | None = Field(None, ge=1, le=16)
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    return_token_ids: bool | None = None
    tools: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    logit_bias: dict[str, float] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    functions: list[Any] | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[int] | None = None
    structured_outputs: dict[str, Any] | None = None
    guided_json: Any = None
    guided_regex: str | None = None
    guided_choice: list[Any] | None = None

    @property
    def stops(self) -> list[str]:
        """Texts at which an answer ends."""
        return [each for each in ([self.stop] if isinstance(self.stop, str) else self.stop or []) if each]

    @property
    def most(self) -> int | None:
        """Tokens of an answer."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the number of tokens."""
        return bool((self.stream_options or {}).get("include_usage"))


class AskedChat(Asked):
    """A chat completion."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=_MOST)
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def told(self) -> int | None:
        """Likeliest tokens that are wanted of each place; None where no log-probability is."""
        return (self.top_logprobs or 0) if self.logprobs else None


class AskedText(Asked):
    """A completion of a text, or of token ids."""

    prompt: str | list[int] | list[str] | list[list[int]]
    logprobs: int | None = Field(None, ge=0, le=_MOST)

    @property
    def told(self) -> int | None:
        """Likeliest tokens that are wanted of each place; None where no log-probability is."""
        return self.logprobs

    @property
    def most(self) -> int:
        """Tokens of an answer."""
        return self.max_completion_tokens or self.max_tokens or _COMPLETION

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """One or several."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if not self.prompt:
            raise BadRequestError("the prompt is empty", "prompt")
        return [self.prompt] if isinstance(self.prompt[0], int) else self.prompt


def read(form: type[Asked], told: Any) -> Any:
    """A request.

    Raises:
        BadRequestError: it has another form, or asks for what this server does not do; the field is named.
    """
    try:
        asked = form.model_validate(told)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else None
        raise BadRequestError(f"{name or 'the request'}: {first['msg']}", name) from error
    for name in _NOT_DONE:
        if (value := getattr(asked, name)) and value != _NEUTRAL.get(name):
            raise BadRequestError(f"{name} is not done by transformers' server; serve the model with engine=vllm", name)
    if (asked.best_of or 1) > (asked.n or 1):
        raise BadRequestError("best_of is not done by transformers' server; serve the model with engine=vllm", "best_of")
    if (asked.response_format or {}).get("type", "text") != "text":
        said = "response_format is not done by transformers' server; serve the model with engine=vllm"
        raise BadRequestError(said, "response_format")
    return asked


def bound(told: Mapping[str, Any]) -> None:
    """See that a request of any server wants no more answers than one may: vLLM would give 16,384 to each prompt.

    Raises:
        BadRequestError: it wants more, or says a number that is none.
    """
    prompt, each = told.get("prompt"), 1
    for name in ("n", "best_of"):
        said = told.get(name)
        if said is not None and type(said) is not int:  # vLLM would read '9', 9.0 and true as numbers
            raise BadRequestError(f"{name} is no whole number", name)
        each = max(each, said or 1)
    prompts = len(prompt) if isinstance(prompt, list) and any(type(one) is not int for one in prompt) else 1
    if each * prompts > ANSWERS:
        raise BadRequestError(f"more than {ANSWERS} answers are wanted at once", "prompt" if prompts > 1 else "n")


def texts(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages whose contents are texts.

    Raises:
        BadRequestError: one has no role, or a picture.
    """
    found = []
    for place, message in enumerate(messages):
        content = message.get("content")
        if not isinstance(message.get("role"), str):
            raise BadRequestError(f"messages[{place}] has no role", "messages")
        if isinstance(content, list):
            if any(not isinstance(part, Mapping) or part.get("type") != "text" for part in content):
                raise BadRequestError(f"messages[{place}] holds parts that are no text", "messages")
            content = "".join(str(part.get("text", "")) for part in content)
        if content is not None and not isinstance(content, str):
            raise BadRequestError(f"messages[{place}].content is no text", "messages")
        found.append({**message, "content": content or ""})
    return found


class Told(NamedTuple):
    """A token with the log-probability (nats) that the model gave it, and the likeliest ones at its place."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Choice:
    """An answer, or a piece of it."""

    index: int
    text: str
    tokens: Sequence[Told] = ()
    finish: str | None = None
    """`stop` or `length`; None of a piece that is not the last."""


@dataclass(frozen=True)
class Written:
    """Writes the answers to one request."""

    id: str
    model: str
    is_chat: bool
    told: int | None
    with_ids: bool
    shown: Any
    """The tokenizer, which shows tokens as texts."""
    created: int

    @classmethod
    def to(cls, asked: Any, name: str, model: str, shown: Any) -> Written:
        """Begin with the request."""
        is_chat = isinstance(asked, AskedChat)
        begins = "chatcmpl" if is_chat else "cmpl"
        return cls(f"{begins}-{name}", model, is_chat, asked.told, bool(asked.return_token_ids), shown, int(time.time()))

    def whole(self, choices: Sequence[Choice], prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
        """All answers at once."""
        told: dict[str, Any] = {**self._head(""), "choices": [self._whole(each) for each in choices]}
        told["usage"] = usage(prompts, sum(len(each.tokens) for each in choices))
        if self.with_ids and self.is_chat:
            told["prompt_token_ids"] = list(prompts[0])
        return told

    def piece(self, choice: Choice, *, first: bool = False) -> dict[str, Any]:
        """A piece of one answer."""
        one: dict[str, Any] = {"index": choice.index, "finish_reason": choice.finish, "logprobs": self._logprobs(choice)}
        if self.is_chat:
            one["delta"] = ({"role": "assistant"} if first else {}) | ({"content": choice.text} if choice.text or first else {})
        else:
            one["text"] = choice.text
        if self.with_ids:
            one["token_ids"] = [each.token for each in choice.tokens]
        return {**self._head(".chunk" if self.is_chat else ""), "choices": [one]}

    def last(self, prompts: Sequence[Sequence[int]], count: int) -> dict[str, Any]:
        """The number of tokens, at the end of a stream."""
        return {**self._head(".chunk" if self.is_chat else ""), "choices": [], "usage": usage(prompts, count)}

    def _head(self, end: str) -> dict[str, Any]:
        kind = "chat.completion" if self.is_chat else "text_completion"
        return {"id": self.id, "object": f"{kind}{end}", "created": self.created, "model": self.model}

    def _whole(self, choice: Choice) -> dict[str, Any]:
        one: dict[str, Any] = {"index": choice.index, "finish_reason": choice.finish, "logprobs": self._logprobs(choice)}
        one |= {"message": {"role": "assistant", "content": choice.text}} if self.is_chat else {"text": choice.text}
        if self.with_ids:
            one["token_ids"] = [each.token for each in choice.tokens]
        return one

    def _logprobs(self, choice: Choice) -> dict[str, Any] | None:
        if self.told is None:
            return None
        if self.is_chat:
            return {"content": [{**self._shown(*each[:2]), "top_logprobs": self._tops(each)} for each in choice.tokens]}
        names = [self._name(each.token) for each in choice.tokens]
        tops = [{self._name(token): logprob for token, logprob in each.top} for each in choice.tokens]
        return {"tokens": names, "token_logprobs": [each.logprob for each in choice.tokens], "top_logprobs": tops}

    def _tops(self, told: Told) -> list[dict[str, Any]]:
        return [self._shown(*each) for each in told.top]

    def _shown(self, token: int, logprob: float) -> dict[str, Any]:
        name = self._name(token)
        of = None if "\ufffd" in name else list(name.encode("utf-8"))  # a part of a character has no text of its own
        return {"token": name, "logprob": logprob, "bytes": of}

    def _name(self, token: int) -> str:
        return str(self.shown.decode([token]))


def usage(prompts: Sequence[Sequence[int]], count: int) -> dict[str, int]:
    """Tokens of prompts and answers."""
    asked = sum(map(len, prompts))
    return {"prompt_tokens": asked, "completion_tokens": count, "total_tokens": asked + count}


def error(said: str, status: int, field: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The body of a refusal."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": said, "type": kind, "param": field, "code": code}}
