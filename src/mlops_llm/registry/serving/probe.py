"""Whether a live server answers with these weights and this template: its log-probabilities say so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_llm.endpoint import Endpoint
from mlops_llm.errors import UserError
from mlops_llm.inference.chat import parsed
from mlops_llm.registry.serving.expected import TOKENS, Expected

FULL, HALF = 0.02, 0.25
"""Nats that a token may differ by, of arithmetic in 32 and in 16 bits."""
_PATIENCE = 600.0
"""Seconds of one answer: the first may have to wait for kernels."""


@dataclass(frozen=True)
class Proof:
    """What a probe found."""

    passed: bool
    tokens: int
    """Compared."""
    largest: float
    """Difference of a token's log-probability, in nats; infinite where a token is none of the expected ones."""
    tolerance: float
    template: str
    """How the template was compared: by `token ids`, or only by their `count`."""
    why: str
    """One line."""


def tolerance(dtype: str) -> float:
    """Nats that a token may differ by."""
    return FULL if dtype == "float32" else HALF


def first(address: str, key_env: str = "") -> str:
    """The model that a server lists first.

    Args:
        address: of the server, such as http://127.0.0.1:8000/v1.
        key_env: name of the variable with the key; empty where it wants none.

    Raises:
        UserError: it does not answer, refuses the key, or lists none.
    """
    remedies = {404: "check op.url (it often ends in /v1), or name the model: op.served_as=NAME"}
    settings = ("op.url", "op.api_key_env")
    endpoint = Endpoint(
        f"{address.rstrip('/')}/models", key_env, timeout=30.0, where=address, settings=settings, remedies=remedies
    )
    names = endpoint.ask(None, lambda answer: parsed(endpoint, answer, _names), attempts=2)
    if not names:
        raise UserError("the server lists no models", address, "name one: op.served_as=NAME")
    return names[0]


def proven(address: str, model: str, wanted: Sequence[Expected], most: float, *, key: str = "", key_env: str = "") -> Proof:
    """Ask a server and compare.

    Args:
        address: of the server, such as http://127.0.0.1:8000/v1.
        model: its name there.
        wanted: what it must say.
        most: nats that a token may differ by.
        key: that it asks for.
        key_env: name of the variable with the key, instead.

    Raises:
        UserError: it does not answer, or tells no log-probabilities.
    """
    where = f"{address.rstrip('/')}/chat/completions"
    endpoint = Endpoint(where, key_env, timeout=_PATIENCE, settings=("op.url", "op.api_key_env"), key=key)
    count, largest, how = 0, 0.0, "token ids"
    for each in wanted:
        told = endpoint.ask(_question(model, each), lambda answer: parsed(endpoint, answer, _read), attempts=3)
        if told.logprobs is None:
            raise UserError("tells no log-probabilities", where, "ask a server that does, such as vLLM")
        if told.prompt is None:
            how = "count"
        if (told.prompt if told.prompt is not None else told.prompt_tokens) != (
            list(each.prompt) if told.prompt is not None else len(each.prompt)
        ):
            said = f"the conversation is written otherwise: {told.prompt_tokens} tokens there, {len(each.prompt)} here"
            return Proof(False, count, math.inf, most, how, said)
        for place, logprob in enumerate(told.logprobs):
            if place >= len(each.places):
                break
            here = _here(each, place, told)
            count += 1
            if here is None or not math.isfinite(logprob):
                said = f"token {place + 1} of an answer is none that these weights would give"
                if here is not None:
                    said = f"the log-probability of token {place + 1} of an answer is no number"
                return Proof(False, count, math.inf, most, how, said)
            largest = max(largest, abs(here - logprob))
            if here != next(iter(each.places[place].values())):
                break  # as good a token; from here on the answers are two
    said = f"{count} tokens of {len(wanted)} answers differ by at most {largest:.2g} nats"
    if largest > most:
        said += f", more than {most:g}"
    return Proof(largest <= most and count > 0, count, largest, most, how, said if count else "it answered nothing")


@dataclass(frozen=True)
class _Told:
    logprobs: list[float] | None
    tokens: list[int] | None
    texts: list[str]
    prompt: list[int] | None
    prompt_tokens: int | None


def _question(model: str, each: Expected) -> dict[str, Any]:
    same = {"max_tokens": TOKENS, "temperature": 0, "logprobs": True, "top_logprobs": 0, "return_token_ids": True}
    return {"model": model, "messages": list(each.messages), **same}


def _names(told: Mapping[str, Any]) -> list[str]:
    return [str(each["id"]) for each in told["data"]]


def _read(told: Mapping[str, Any]) -> _Told:
    choice = told["choices"][0]
    content = (choice.get("logprobs") or {}).get("content")
    return _Told(
        None if content is None else [float(each["logprob"]) for each in content],
        choice.get("token_ids"),
        [str(each["token"]) for each in content or ()],
        told.get("prompt_token_ids"),
        (told.get("usage") or {}).get("prompt_tokens"),
    )


def _here(each: Expected, place: int, told: _Told) -> float | None:
    """The log-probability that these weights give to the token that the server took; None where it is far from the best."""
    known = each.places[place]
    if told.tokens is not None and place < len(told.tokens):
        return known.get(str(told.tokens[place]))
    named = [known[token] for token, text in each.texts[place].items() if text == told.texts[place]]
    return max(named, default=None)
