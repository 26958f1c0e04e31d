"""What an engine is: a component of the group `engine` that opens a model and answers requests."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Optional, Protocol

from mlops_llm.errors import UserError
from mlops_llm.models.load import Files, ModelLoad


@dataclass
class Sampling:
    """How answers are drawn."""

    batch_size: int = 8
    """Answers at once, where the engine works in batches."""
    max_new_tokens: int = 512
    """Most tokens of an answer."""
    temperature: float = 0.7
    """0 always takes the likeliest token."""
    top_p: float = 0.9
    """Share of the probability that may be drawn from; 1 is all of it."""
    stop: list[str] = field(default_factory=list)
    """Texts at which an answer ends; they are not part of it."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("batch_size", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"is {getattr(self, name)}", f"sampling.{name}", "give a whole number from 1")
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"is {self.temperature}", "sampling.temperature", "give a number from 0")
        if not 0 < self.top_p <= 1:
            raise UserError(f"is {self.top_p}", "sampling.top_p", "give a share above 0, at most 1")
        if "" in self.stop:
            raise UserError("holds an empty text", "sampling.stop", "name what ends an answer")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken, so that no seed matters."""
        return self.temperature == 0


@dataclass
class Care:
    """How long is waited for an answer, and how often it is tried again."""

    concurrency: Optional[int] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Requests to a server at once; null takes the engine's own (openai 4, vllm 32)."""
    timeout: float = 60.0
    """Seconds of one answer, each attempt by itself."""
    retries: int = 3
    """Attempts after the first, where the failure may pass."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.concurrency is not None and self.concurrency < 1:
            raise UserError(f"is {self.concurrency}", "care.concurrency", "give a whole number from 1, or null")
        if not 0 < self.timeout < math.inf:
            raise UserError(f"is {self.timeout}", "care.timeout", "give seconds above 0")
        if self.retries < 0:
            raise UserError(f"is {self.retries}", "care.retries", "give a whole number from 0")


@dataclass(frozen=True)
class Request:
    """What one answer is wanted to."""

    place: int
    """Number of the request, by which its answer is known."""
    messages: Sequence[dict[str, Any]]
    """The conversation up to where the model is to answer."""
    text: str
    """The same as the chat template writes it; empty where only a server knows the template."""
    seed: int
    """Of this answer alone, so that it depends on no other."""
    tools: Sequence[Any] | None = None


class Class(Enum):
    """What kind of failure it was."""

    timeout = "timeout"
    """No whole answer in time, in any attempt."""
    empty = "empty"
    """The answer has no text."""
    too_long = "too long"
    """The prompt leaves no room for an answer."""
    unparsable = "unparsable"
    """What came back has not the wanted form."""
    refused = "refused"
    """The server refuses this request."""
    server = "server"
    """The server fails in every attempt."""


@dataclass(frozen=True)
class Generation:
    """An answer."""

    text: str
    tokens: int
    """Tokens of the answer, its end mark included; 0 beside a text where a server does not count them."""
    prompt_tokens: int
    seconds: float
    """From the request to the whole answer; in a batch, that of the batch divided by its answers."""
    cut: bool = False
    """It ended because it was as long as an answer may be."""


@dataclass(frozen=True)
class Failure:
    """Why there is no answer."""

    kind: Class
    cause: str
    """One line."""
    seconds: float = 0.0


class Session(Protocol):
    """An open model."""

    tokenizer: Any
    """With a chat template; None where only the server knows it."""
    window: int | None
    """Tokens of a prompt and its answer together, where it is known."""

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, care: Care
    ) -> Iterator[tuple[int, Generation | Failure]]:
        """Answer requests; each as soon as it is there, with its place, in any order.

        Raises:
            UserError: no request can be answered (a key is refused, a quota used up, the server is gone).
        """
        ...

    def logprobs(
        self, sequences: Sequence[Sequence[int]], begins: Sequence[int], batch_size: int, care: Care
    ) -> Iterator[tuple[int, list[float]]]:
        """The log-probability (nats) of each token from place `begins[i]` (at least 1) on, given all tokens before it.

        Raises:
            UserError: the engine cannot tell.
        """
        ...


class Engine(Protocol):
    """Opens a model. Its settings are the component's fields."""

    family: ClassVar[str]
    """Name under which its answers are kept: those of different families may differ in the last digits."""
    local: ClassVar[bool]
    """It takes a model's files; else a server that runs elsewhere answers, and `model` only names what runs there."""

    @property
    def decisive(self) -> Mapping[str, Any]:
        """Its settings that an answer may depend on."""
        ...

    def check(self) -> None:
        """See that it can run here, before anything is read.

        Raises:
            UserError: it cannot.
        """
        ...

    def open(self, files: Files | None, how: ModelLoad, tokenizer: Any, window: int | None) -> AbstractContextManager[Session]:
        """Open a model for as long as the context lasts.

        Args:
            files: of the model; None where `local` is false.
            how: number format.
            tokenizer: with its chat template; None where `local` is false.
            window: tokens of a prompt and its answer together, where the model says.

        Raises:
            UserError: the model cannot be loaded, or the server does not start; its last lines are told.
        """
        ...
