"""A model that vLLM answers for in this process."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mlops_llm.inference.engine import Care, Class, Failure, Generation, Request, Sampling
from mlops_llm.inference.prompts import coded
from mlops_llm.inference.stops import told_apart


class InProcess:
    """A session with a `vllm.LLM`, whose engine is stepped here, so that each answer is there as soon as it is whole."""

    def __init__(self, llm: Any, tokenizer: Any, window: int | None) -> None:
        """Keep the engine."""
        self.llm, self.tokenizer, self.window = llm, tokenizer, window
        self._engine = llm.llm_engine
        self._most = int(self._engine.vllm_config.scheduler_config.max_num_seqs)
        self._numbers = itertools.count()

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, care: Care
    ) -> Iterator[tuple[int, Generation | Failure]]:
        """Answer as many at once as the engine takes, or `care.concurrency`. Each may take `care.timeout` times as many."""
        from vllm import SamplingParams

        fit, full = coded(self.tokenizer, requests, sampling.max_new_tokens, self.window)
        yield from full
        at_once = min(care.concurrency or self._most, len(fit))
        ids, texts = told_apart(self.tokenizer, sampling.stop)
        same = {"temperature": sampling.temperature, "top_p": sampling.top_p, "output_kind": _final()}
        same |= {"stop": texts or None, "stop_token_ids": ids or None}
        asked = ((each.ids, SamplingParams(**same, max_tokens=each.most, seed=each.request.seed)) for each in fit)
        for number, out, seconds in self._outputs(asked, at_once, care.timeout * at_once):
            found: Generation | Failure = Failure(Class.timeout, f"not finished in {care.timeout * at_once:g} s", seconds)
            if out is not None:
                said = out.outputs[0]
                is_cut = said.finish_reason == "length"
                found = Generation(said.text, len(said.token_ids), len(fit[number].ids), seconds, is_cut)
            yield fit[number].request.place, found

    def logprobs(
        self, sequences: Sequence[Sequence[int]], begins: Sequence[int], batch_size: int, care: Care
    ) -> Iterator[tuple[int, list[float]]]:
        """Log-probabilities, as `Served.logprobs` asks for them."""
        from vllm import SamplingParams

        same = {"max_tokens": 1, "temperature": 0.0, "ignore_eos": True, "logprobs": 0, "output_kind": _final()}
        places = [place for place, ids in enumerate(sequences) if begins[place] < len(ids)]
        yield from ((place, []) for place in range(len(sequences)) if begins[place] >= len(sequences[place]))
        inner = {place: begins[place] < len(sequences[place]) - 1 for place in places}
        asked = (
            (
                list(sequences[place][:-1]),
                SamplingParams(**same, allowed_token_ids=[sequences[place][-1]], prompt_logprobs=0 if inner[place] else None),
            )
            for place in places
        )
        for number, out, _ in self._outputs(asked, care.concurrency or self._most, None):
            place = places[number]
            assert out is not None
            ids, begin = sequences[place], begins[place]
            told = zip(ids[begin:-1], out.prompt_logprobs[begin:], strict=True) if inner[place] else ()
            found = [float(each[token].logprob) for token, each in told]
            yield place, [*found, float(out.outputs[0].logprobs[0][ids[-1]].logprob)]

    def _outputs(
        self, asked: Iterable[tuple[list[int], Any]], at_once: int, limit: float | None
    ) -> Iterator[tuple[int, Any | None, float]]:
        """Number, output (None of one that took longer than `limit` seconds) and seconds of each request."""
        waiting, running = deque(enumerate(asked)), dict[str, tuple[int, float]]()
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    number, (ids, how) = waiting.popleft()
                    name = f"{next(self._numbers)}"
                    self._engine.add_request(name, {"prompt_token_ids": ids}, how)
                    running[name] = number, time.perf_counter()
                for out in self._engine.step():
                    if out.finished and out.request_id in running:
                        number, began = running.pop(out.request_id)
                        yield number, out, time.perf_counter() - began
                now = time.perf_counter()
                late = [name for name, (_, began) in running.items() if limit is not None and now - began > limit]
                if late:
                    self._engine.abort_request(late)
                for name in late:
                    number, began = running.pop(name)
                    yield number, None, now - began
        finally:
            if running:
                self._engine.abort_request(list(running))


def _final() -> Any:
    """Only whole answers are told."""
    from vllm.sampling_params import RequestOutputKind

    return RequestOutputKind.FINAL_ONLY
