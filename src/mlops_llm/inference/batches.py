"""Answers from transformers for several clients at once, token by token."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from mlops_llm.errors import first_line
from mlops_llm.inference.draws import Draws
from mlops_llm.inference.engine import Sampling
from mlops_llm.inference.protocol import Told
from mlops_llm.inference.stops import told_apart


@dataclass(frozen=True)
class Piece:
    """What became of one token of an answer."""

    told: Told | None
    """None where the answer failed."""
    text: str
    """What may be shown now: a text that may become a stop is held back."""
    finish: str | None = None
    """`stop`, `length`, or of an answer that failed `error`; None while it goes on."""
    failure: str = ""


@dataclass(eq=False)
class Job:
    """An answer that is wanted."""

    ids: list[int]
    sampling: Sampling
    seed: int
    top: int
    """Likeliest tokens that are told at each place."""
    give: Callable[[Piece], None]
    """Called from another thread, once a token."""
    is_gone: threading.Event = field(default_factory=threading.Event)
    """Set where nobody waits for it any more."""


class Batches:
    """A thread that answers in batches: those that wait and are drawn alike go together, up to a number."""

    def __init__(self, model: Any, tokenizer: Any, ends: set[int], most: int, window: int | None = None) -> None:
        """Begin to wait for jobs.

        Args:
            model: in evaluation mode, whose generation_config says nothing.
            tokenizer: its tokenizer, with a padding token.
            ends: ids of tokens that end an answer.
            most: answers at once.
            window: tokens of a prompt and its answer together, which a batch keeps to as a whole.
        """
        self._model, self._tokenizer, self._ends, self._most, self._window = model, tokenizer, ends, most, window
        self._waiting, self._turn = deque[Job](), threading.Condition()
        threading.Thread(target=self._work, name="batches", daemon=True).start()

    def add(self, job: Job) -> None:
        """Have a job done."""
        with self._turn:
            self._waiting.append(job)
            self._turn.notify()

    def _work(self) -> None:
        while True:
            jobs = self._taken()
            try:
                self._answer(jobs)
            except Exception as error:  # a batch that memory cannot hold is no reason to end
                for job in jobs:
                    job.give(Piece(None, "", "error", first_line(error)))

    def _taken(self) -> list[Job]:
        """The job that waits longest, and others that are drawn like it."""
        with self._turn:
            self._turn.wait_for(lambda: self._waiting)
            first = self._waiting[0]
            same = [first]
            for each in islice(self._waiting, 1, None):
                if len(same) < self._most and _alike(each, first) and _fit([*same, each], self._window):
                    same.append(each)
            for each in same:
                self._waiting.remove(each)
            return [each for each in same if not each.is_gone.is_set()]

    def _answer(self, jobs: Sequence[Job]) -> None:
        import torch
        from transformers import GenerationConfig

        if not jobs:
            return
        asked, pad, device = max(len(each.ids) for each in jobs), self._tokenizer.pad_token_id, self._model.device
        ids = torch.tensor([[pad] * (asked - len(each.ids)) + each.ids for each in jobs], device=device)
        mask = torch.tensor([[0] * (asked - len(each.ids)) + [1] * len(each.ids) for each in jobs], device=device)
        most = max(each.sampling.max_new_tokens for each in jobs)
        how = GenerationConfig(max_new_tokens=most, do_sample=False, use_cache=True, pad_token_id=pad)
        heard = _Heard(max(each.top for each in jobs))
        spoken = [Spoken(self._tokenizer, self._ends, job.sampling) for job in jobs]
        same = jobs[0].sampling
        drawn = [] if same.greedy else [Draws(same, [each.seed for each in jobs], most)]
        with torch.inference_mode():
            self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=how,
                logits_processor=[heard, *drawn],
                stopping_criteria=[_Watch(jobs, spoken, heard)],
            )


def _alike(one: Job, other: Job) -> bool:
    """Whether two are drawn by the same rule."""
    return (one.sampling.temperature, one.sampling.top_p) == (other.sampling.temperature, other.sampling.top_p)


def _fit(jobs: Sequence[Job], window: int | None) -> bool:
    """Whether prompts, padded to the longest, leave room for the longest answer."""
    asked, answer = max(len(each.ids) for each in jobs), max(each.sampling.max_new_tokens for each in jobs)
    return window is None or asked + answer <= window


class _Heard:
    """Keeps what the model says of each next token, before anything is drawn."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._said: Any = None

    def __call__(self, ids: Any, logits: Any) -> Any:
        self._said = logits.float().log_softmax(-1)
        return logits

    def told(self, tokens: Sequence[int], tops: Sequence[int]) -> list[Told]:
        """Of each row its token."""
        import torch

        chosen = self._said.gather(1, torch.tensor(tokens, device=self._said.device)[:, None])[:, 0].tolist()
        best = torch.topk(self._said, self._top) if self._top else None
        found = []
        for row, (token, logprob, top) in enumerate(zip(tokens, chosen, tops, strict=True)):
            pairs = zip(best.indices[row, :top].tolist(), best.values[row, :top].tolist(), strict=True) if best else ()
            found.append(Told(token, logprob, tuple(pairs)))
        return found


class _Watch:
    """Gives each token as it comes, and ends the rows that are over."""

    def __init__(self, jobs: Sequence[Job], spoken: Sequence[Spoken], heard: _Heard) -> None:
        self._jobs, self._spoken, self._heard = jobs, spoken, heard
        self._over = [False] * len(jobs)

    def __call__(self, ids: Any, scores: Any, **_: Any) -> Any:
        import torch

        told = self._heard.told(ids[:, -1].tolist(), [each.top for each in self._jobs])
        for row, (job, spoken, one) in enumerate(zip(self._jobs, self._spoken, told, strict=True)):
            if self._over[row]:
                continue
            text, finish = spoken.hear(one.token)
            job.give(Piece(one, text, finish))
            self._over[row] = finish is not None or job.is_gone.is_set()
        return torch.tensor(self._over, device=ids.device)


class Spoken:
    """The text of an answer as its tokens come; whole characters only, and nothing that a stop text begins with."""

    def __init__(self, tokenizer: Any, ends: set[int], sampling: Sampling) -> None:
        """Begin an answer."""
        from tokenizers.decoders import DecodeStream

        special, self._stops = told_apart(tokenizer, sampling.stop)
        self._ends, self._most = ends | set(special), sampling.max_new_tokens
        self._tokenizer, self._stream = tokenizer.backend_tokenizer, DecodeStream(skip_special_tokens=True)
        self._held, self._count = "", 0
        self._back = max(map(len, self._stops), default=1) - 1

    def hear(self, token: int) -> tuple[str, str | None]:
        """Text that may be shown, and why the answer ends here, where it does."""
        self._count += 1
        if token in self._ends:
            return self._held, "stop"
        self._held += self._stream.step(self._tokenizer, token) or ""
        places = [place for each in self._stops if (place := self._held.find(each)) >= 0]
        if places:
            return self._held[: min(places)], "stop"
        if self._count >= self._most:
            return self._held, "length"
        end = len(self._held) - self._back
        said, self._held = self._held[: max(end, 0)], self._held[max(end, 0) :]
        return said, None
