"""A chat server as a judge: its settings.

Any server that speaks OpenAI's chat completions will do: GPT, Claude and Qwen at their compatible addresses, one's own vLLM.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from mlops_llm.endpoint import Endpoint, LateError, RefusedError, TransientError, UnreachableError, check_address
from mlops_llm.errors import UserError
from mlops_llm.inference.chat import UNREADABLE, Form

EXAMPLE = "http://HOST:PORT/v1"
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
            if error.status not in UNREADABLE:
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

    def form(self, schema: Mapping[str, Any]) -> Form:
        """What all requests hold.

        Args:
            schema: JSON schema of an answer.
        """
        fields: dict[str, Any] = {"model": self.model, "max_tokens": self.max_tokens, "temperature": self.temperature}
        if self.json_schema:
            said = {"name": "judgement", "strict": True, "schema": schema}
            fields["response_format"] = {"type": "json_schema", "json_schema": said}
        return Form(fields, ("max_tokens", "temperature", "response_format"))

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
