"""A running server that speaks OpenAI's protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Optional

from mlops_llm.component import component
from mlops_llm.endpoint import DeniedError, Endpoint, HopelessError
from mlops_llm.errors import UserError
from mlops_llm.inference.chat import Form, parsed
from mlops_llm.inference.concurrent import Lost, answered, generation, one
from mlops_llm.inference.engine import Care, Failure, Generation, Request, Sampling, Session
from mlops_llm.models.load import Files, ModelLoad

EXAMPLE = "http://HOST:PORT/v1"
CONCURRENCY = 4
"""Requests at once where nothing else is said: what providers let anybody do."""


@component("engine", "openai")
@dataclass
class OpenAI:
    """Any running server that speaks OpenAI's chat protocol: vLLM, Ollama, a provider; the server applies its own template."""

    base_url: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Address of the server, such as http://127.0.0.1:8000/v1."""
    model: Optional[str] = None  # noqa: UP045
    """Name of the model there; null takes the first that the server lists."""
    api_key_env: str = ""
    """Name of the environment variable with the key; empty where the server wants none."""
    extra: Any = None
    """More fields of each request, such as {enable_thinking: false}; one that is null is not sent, such as {seed: null}."""

    family: ClassVar[str] = "openai"
    local: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check that the fields are a mapping."""
        self._first = ""
        if self.extra is not None and not isinstance(self.extra, Mapping):
            raise UserError("is no mapping", "engine.extra", "write it as 'engine.extra={enable_thinking: false}'")

    @property
    def decisive(self) -> Mapping[str, Any]:
        """All of them but the key."""
        return {"base_url": self.base_url, "model": self.model or self._first, "extra": dict(self.extra or {})}

    def check(self) -> None:
        """See that the server answers and takes the key, and which model is its first.

        Raises:
            UserError: it does not, or `base_url` is missing or no address.
        """
        self._first = next(iter(self._listed()), "")

    def first(self) -> str:
        """The model that the server lists first.

        Raises:
            UserError: it does not answer, refuses the key, or lists none.
        """
        return self._listed()[0]

    def _endpoint(self, path: str, timeout: float) -> Endpoint:
        if not self.base_url:
            raise UserError("is not given", "engine.base_url", f"name the server: engine.base_url={EXAMPLE}")
        return Endpoint(
            f"{self.base_url.rstrip('/')}/{path}",
            self.api_key_env,
            timeout=timeout,
            where=self.base_url,
            settings=("engine.base_url", "engine.api_key_env"),
            example=EXAMPLE,
            remedies={404: "check engine.base_url (it often ends in /v1) and engine.model"},
        )

    def _listed(self) -> list[str]:
        """The models that the server lists; none where it lists none and one is named.

        Raises:
            UserError: it does not answer, refuses the key, or lists none and none is named.
        """
        try:
            endpoint = self._endpoint("models", 30.0)
            names = endpoint.ask(None, lambda answer: parsed(endpoint, answer, _names), attempts=2)
        except DeniedError:
            raise
        except HopelessError:
            names = []
        if not names and not self.model:
            raise UserError("the server lists no models", str(self.base_url), "name one: engine.model=NAME")
        return names

    @contextmanager
    def open(self, files: Files | None, how: ModelLoad, tokenizer: Any, window: int | None) -> Iterator[Session]:
        """Choose the model there.

        Raises:
            UserError: none is named, and the server lists none.
        """
        yield OpenAISession(self, self.model or self._first or self.first())


class OpenAISession:
    """A model of a server."""

    tokenizer: Any = None
    window: int | None = None

    def __init__(self, engine: OpenAI, model: str) -> None:
        """Keep what is asked."""
        self._engine, self.model = engine, model

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, care: Care
    ) -> Iterator[tuple[int, Generation | Failure]]:
        """Ask for chat completions.

        Raises:
            UserError: the key is refused, a quota used up, the server gone, or too many requests in a row fail.
        """
        endpoint = self._engine._endpoint("chat/completions", care.timeout)
        extra, attempts = dict(self._engine.extra or {}), care.retries + 1
        fields = {
            "model": self.model,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop": sampling.stop or None,
        }
        # A temperature that a server does not know is not left out in silence: answers would be drawn otherwise than recorded.
        form = Form(_given(fields | extra), ["max_tokens"])

        def ask(request: Request) -> Generation | Failure | Lost:
            own = {"messages": list(request.messages), "seed": request.seed, "tools": list(request.tools or ()) or None}
            mine = {name: value for name, value in _given(own).items() if name not in extra}
            return one(endpoint, form, mine, partial(generation, endpoint), attempts)

        try:
            for number, found in answered(requests, ask, care.concurrency or CONCURRENCY):
                yield requests[number].place, found
        finally:
            endpoint.leave()

    def logprobs(
        self, sequences: Sequence[Sequence[int]], begins: Sequence[int], batch_size: int, care: Care
    ) -> Iterator[tuple[int, list[float]]]:
        """Not to be had.

        Raises:
            UserError: always: a chat server tells nothing of tokens that it did not write.
        """
        raise UserError("a chat server does not tell how likely a given text is", "engine", "take engine=hf or engine=vllm")


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _names(told: Any) -> list[str]:
    return [str(each["id"]) for each in told["data"]]
