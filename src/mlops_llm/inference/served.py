"""A model that a server on this machine answers for: vLLM, llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from mlops_llm.endpoint import Endpoint
from mlops_llm.errors import UserError
from mlops_llm.inference.chat import Form
from mlops_llm.inference.concurrent import Lost, answered, generation, one
from mlops_llm.inference.engine import Care, Failure, Generation, Request, Sampling
from mlops_llm.inference.kept import Kept
from mlops_llm.inference.prompts import Prompt, coded
from mlops_llm.inference.stops import told_apart

CONCURRENCY = 32
"""Requests at once where nothing else is said: four would waste three quarters of vLLM's speed."""
_PATIENCE = 600.0
"""Seconds that the likelihood of one text may take at least: the first takes longer than the others."""


class Server(Protocol):
    """A server that was started here."""

    @property
    def address(self) -> str:
        """Where it answers."""

    @property
    def model(self) -> str:
        """Its name there."""

    @property
    def key(self) -> str:
        """Which it asks for; empty where it asks for none."""

    @property
    def log(self) -> Path | None:
        """What it said, where that is a file."""

    def check(self) -> None:
        """See that it still runs.

        Raises:
            UserError: it has ended.
        """


class Served:
    """A session with a server that is asked by token ids, so that template and tokenizer are those of the model here."""

    def __init__(self, server: Server, tokenizer: Any, window: int | None, at_once: int = CONCURRENCY) -> None:
        """Keep what is asked, and how many answers at once where nothing else is said."""
        self.server, self.tokenizer, self.window, self._at_once = server, tokenizer, window, at_once
        self._form = Form({"model": server.model}, ())

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, care: Care
    ) -> Iterator[tuple[int, Generation | Failure]]:
        """Ask several at once. They share this machine, so each may take `care.timeout` times as many.

        Raises:
            UserError: the server has ended, or too many requests in a row fail.
        """
        fit, full = coded(self.tokenizer, requests, sampling.max_new_tokens, self.window)
        yield from full
        if not fit:
            return
        at_once = min(care.concurrency or self._at_once, len(fit))
        endpoint = self._endpoint(care.timeout * at_once)
        same = self.drawn(sampling)

        def ask(prompt: Prompt) -> Generation | Failure | Lost:
            own = {**same, "prompt": prompt.ids, "max_tokens": prompt.most, "seed": prompt.request.seed}
            return one(endpoint, self._form, own, partial(generation, endpoint), care.retries + 1)

        try:
            for number, found in answered(fit, ask, at_once, self.server.check):
                yield fit[number].request.place, found
        finally:
            endpoint.leave()

    def drawn(self, sampling: Sampling) -> dict[str, Any]:
        """Fields of each request that say how answers are drawn and where they end."""
        ids, texts = told_apart(self.tokenizer, sampling.stop)
        return {"temperature": sampling.temperature, "top_p": sampling.top_p, "stop": texts, "stop_token_ids": ids}

    def logprobs(
        self, sequences: Sequence[Sequence[int]], begins: Sequence[int], batch_size: int, care: Care
    ) -> Iterator[tuple[int, list[float]]]:
        """Log-probabilities; as many texts at once as the server is asked for answers.

        The last token is the only one that the server may write, and it tells how likely it found it. The others, where they
        are wanted, are told as those of the prompt, for which nothing that was computed before can be used again.

        Raises:
            UserError: the server has ended, or refuses.
        """
        at_once = min(care.concurrency or self._at_once, max(len(sequences), 1))
        endpoint = self._endpoint(max(_PATIENCE, care.timeout * at_once))
        places = range(len(sequences))
        ask = partial(self._likelihood, endpoint, sequences, begins, care.retries + 1)
        try:
            for place, found in answered(places, ask, at_once, self.server.check):
                if isinstance(found, Failure):
                    raise UserError(f"no likelihood of text {place + 1}: {found.cause}", "engine", "take engine=hf")
                yield place, found
        finally:
            endpoint.leave()

    def _likelihood(
        self, endpoint: Endpoint, sequences: Sequence[Sequence[int]], begins: Sequence[int], attempts: int, place: int
    ) -> list[float] | Failure | Lost:
        *before, last = sequences[place]
        begin = begins[place]
        if begin > len(before):
            return []
        body: dict[str, Any] = {
            "prompt": before,
            "max_tokens": 1,
            "temperature": 0,
            "ignore_eos": True,
            "allowed_token_ids": [last],
            "logprobs": 0,
        }
        if begin < len(before):
            body["prompt_logprobs"] = 0

        def read(told: Mapping[str, Any], _: float) -> list[float]:
            choice = told["choices"][0]
            inner = choice["prompt_logprobs"][begin:] if begin < len(before) else []
            found = [float(each[str(token)]["logprob"]) for token, each in zip(before[begin:], inner, strict=True)]
            return [*found, float(choice["logprobs"]["token_logprobs"][0])]

        return one(endpoint, self._form, body, read, attempts)

    def _endpoint(self, timeout: float) -> Endpoint:
        return Kept(
            f"{self.server.address}/v1/completions",
            key=self.server.key,
            timeout=timeout,
            largest=2**28,
            remedies={0: f"see the server's log {self.server.log}"} if self.server.log else {},
        )
