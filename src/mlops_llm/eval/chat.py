"""A chat server as a judge: its settings, what a request holds, and what an answer of it says.

Any server that speaks OpenAI's chat completions will do: GPT, Claude and Qwen at their compatible addresses, one's own vLLM.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from mlops_llm.endpoint import (
    Endpoint,
    LateError,
    MisshapenError,
    RefusedError,
    TransientError,
    UnreachableError,
    check_address,
)
from mlops_llm.errors import UserError

EXAMPLE = "http://HOST:PORT/v1"
_UNREADABLE = (400, 415, 422)
"""What servers answer to a request that holds something they do not know."""
_NAMED = re.compile("response_format|schema|structured|guided")
"""How a refusal names what makes JSON."""
_REACH = 10.0
"""Seconds in which a server shows that it is there."""


@dataclass
class Chat:
    """A server that judges, and how it is asked."""

    base_url: str = ""
    """Address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1."""
    model: str = ""
    """The model's name there."""
    api_key_env: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Name of the environment variable with the key; null sends none."""
    temperature: float = 0.0
    """0 always takes the likeliest token."""
    max_tokens: int = 1024
    """Most tokens of a judgement, thoughts included; one that is cut off counts as none."""
    json_schema: bool = True
    """Ask for JSON of a given schema; a server that cannot is asked without, from its first refusal on."""
    repetitions: int = 1
    """Judgements of each answer, of which the mean counts; above 1 their spread is told."""
    concurrency: int = 4
    """Requests at the same time."""
    timeout: float = 60.0
    """Seconds of one attempt."""
    retries: int = 3
    """Attempts after the first, be it that the server fails or that its answer cannot be read."""
    most_failures: int = 20
    """Judgements in a row that the server fails before no more are asked for."""
    price_in: Optional[float] = None  # noqa: UP045
    """Price of a million tokens that are sent, in any currency."""
    price_out: Optional[float] = None  # noqa: UP045
    """Price of a million tokens that are received, in the same currency."""
    budget: Optional[float] = None  # noqa: UP045
    """Most that may be spent, in that currency; what is not judged by then is told as a failure."""

    def __post_init__(self) -> None:
        """Check the ranges and the address."""
        for name in ("max_tokens", "repetitions", "concurrency", "most_failures"):
            if getattr(self, name) < 1:
                raise UserError(f"is {getattr(self, name)}", f"judge.{name}", "give a whole number from 1")
        if self.retries < 0:
            raise UserError(f"is {self.retries}", "judge.retries", "give a whole number from 0")
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"is {self.temperature}", "judge.temperature", "give a number from 0")
        if not 0 < self.timeout < math.inf:
            raise UserError(f"is {self.timeout}", "judge.timeout", "give seconds above 0")
        for name in ("price_in", "price_out"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UserError(f"is {value}", f"judge.{name}", "give the price of a million tokens")
        if self.budget is not None and not 0 < self.budget < math.inf:
            raise UserError(f"is {self.budget}", "judge.budget", "give a number above 0, or null")
        if self.budget is not None and (self.price_in is None or self.price_out is None):
            remedy = "give judge.price_in and judge.price_out, per million tokens"
            raise UserError("is given, but no prices to count with", "judge.budget", remedy)
        if self.repetitions > 1 and self.temperature == 0:
            what = f"is {self.repetitions}, but at judge.temperature=0 every judgement is the same"
            raise UserError(what, "judge.repetitions", "give a temperature, such as judge.temperature=0.7")
        if self.base_url:
            check_address(self.base_url, "judge.base_url", EXAMPLE)

    def check(self) -> None:
        """See that there is what it takes to ask; the server is not asked yet.

        Raises:
            UserError: there is no address, no model, or no key in the variable that is named.
        """
        if not self.base_url:
            raise UserError("is not given", "judge.base_url", f"name the server: judge.base_url={EXAMPLE}")
        if not self.model:
            raise UserError("is not given", "judge.model", "name the model as the server calls it: judge.model=NAME")
        self.endpoint()

    def reach(self) -> None:
        """See that the server is there and takes the key, with a request of no messages, which costs nothing.

        Raises:
            UserError: nobody answers, or the server refuses what any request would ask.
        """
        body = {"model": self.model, "messages": [], "max_tokens": 1}
        try:
            self.endpoint(min(self.timeout, _REACH)).once(body, lambda _: None)
        except RefusedError as error:
            if error.status not in _UNREADABLE:
                raise
        except (UnreachableError, LateError) as error:
            remedy = "check judge.base_url, and that the server runs"
            raise UserError(f"does not answer: {error}", self.base_url, remedy) from error
        except TransientError:
            pass  # it is there, and busy

    def endpoint(self, timeout: float | None = None) -> Endpoint:
        """What is asked.

        Raises:
            UserError: the variable with the key is not set.
        """
        return Endpoint(
            f"{self.base_url.rstrip('/')}/chat/completions",
            self._key_env(),
            timeout=timeout or self.timeout,
            where=self.base_url,
            settings=("judge.base_url", "judge.api_key_env"),
            example=EXAMPLE,
            remedies={404: "check judge.base_url (it often ends in /v1) and judge.model"},
        )

    def _key_env(self) -> str:
        """The name of the variable. What is no name may be the key itself, and is not repeated."""
        name = self.api_key_env or ""
        if name and name not in os.environ and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", name):
            remedy = "give the name of the variable that holds the key: judge.api_key_env=NAME"
            raise UserError("names no environment variable that is set", "judge.api_key_env", remedy)
        return name

    def identity(self) -> dict[str, Any]:
        """What an answer of the server depends on besides the messages."""
        names = ("base_url", "model", "temperature", "max_tokens", "json_schema")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Reply:
    """What the server answers."""

    text: str
    is_cut: bool
    """It ended because it was as long as it may be."""
    tokens_in: int | None
    tokens_out: int | None
    """None where the server does not count."""
    model: str
    """What the server says that it is."""
    refusal: str = ""
    """Why the model would not answer."""


def reply(endpoint: Endpoint, body: bytes) -> Reply:
    """Read the server's answer.

    Raises:
        MisshapenError: it is none of a chat server, such as a web page.
    """
    try:
        found = json.loads(body)
        first = found["choices"][0]
        message, usage = first["message"], found.get("usage") or {}
        text, refusal = message.get("content") or "", message.get("refusal") or ""
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        kind = "is a web page" if body.lstrip()[:1] == b"<" else "is none of a chat server"
        raise MisshapenError(f"the answer {kind} (it begins: {endpoint.beginning(body)})") from error
    if not isinstance(text, str):  # parts, as some servers send them
        text = "".join(str(part.get("text") or "") for part in text if isinstance(part, Mapping))
    ended = first.get("finish_reason")
    if ended == "content_filter":
        refusal = refusal or "the answer was held back by a filter"
    tokens_in, tokens_out = (each if isinstance(each, int) and not isinstance(each, bool) else None for each in counts)
    model = endpoint.masked(str(found.get("model") or ""))[:200]
    return Reply(endpoint.masked(text), ended == "length", tokens_in, tokens_out, model, endpoint.masked(str(refusal))[:200])


class Form:
    """What requests hold; what the server refuses to know is left out of all later ones. Several threads may ask."""

    def __init__(self, chat: Chat, schema: Mapping[str, Any]) -> None:
        """Begin with everything.

        Args:
            chat: the settings.
            schema: JSON schema of an answer.
        """
        self._chat, self._lock = chat, threading.Lock()
        self._limit, self._has_temperature = "max_tokens", True
        self._format: dict[str, Any] | None = None
        if chat.json_schema:
            said = {"name": "judgement", "strict": True, "schema": schema}
            self._format = {"type": "json_schema", "json_schema": said}
        self._is_proven = False
        self.number = 0
        """Of changes so far."""
        self.left_out = list[str]()
        """What the server did not know."""

    def body(self, messages: Sequence[Mapping[str, str]], seed: int | None) -> tuple[dict[str, Any], int]:
        """A request, and the number of changes that it has seen."""
        with self._lock:
            found: dict[str, Any] = {"model": self._chat.model, "messages": list(messages), self._limit: self._chat.max_tokens}
            if self._has_temperature:
                found["temperature"] = self._chat.temperature
            if seed is not None:
                found["seed"] = seed
            if self._format:
                found["response_format"] = self._format
            return found, self.number

    def prove(self) -> None:
        """A request was answered: only what a refusal names is left out from now on."""
        self._is_proven = True

    def concede(self, error: RefusedError, number: int) -> bool:
        """Leave out what a refusal is about; return whether the request is worth another attempt.

        Args:
            error: the refusal.
            number: that `body` gave with the request.
        """
        if error.status not in _UNREADABLE or is_too_long(error):
            return False
        said = error.said.lower()
        with self._lock:
            if number != self.number:
                return True
            if "max_completion_tokens" in said and self._limit == "max_tokens":
                self._limit = "max_completion_tokens"
                self.left_out.append("max_tokens")
            elif "temperature" in said and self._has_temperature:
                self._has_temperature = False
                self.left_out.append("temperature")
            elif self._format and (not self._is_proven or _NAMED.search(said)):
                self._format = None
                self.left_out.append("json_schema")
            else:
                return False
            self.number += 1
            return True


def is_too_long(error: RefusedError) -> bool:
    """Whether a refusal says that the request is longer than the model can read."""
    return bool(re.search("context.{0,20}length|context_length|too long|maximum.{0,20}tokens.{0,40}prompt", error.said.lower()))
