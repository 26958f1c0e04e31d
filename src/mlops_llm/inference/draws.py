"""What is added to transformers' generate, so that an answer depends on its own seed alone, and ends at a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlops_llm.inference.engine import Sampling


class Draws:
    """Draws each row's next token and leaves no other; generate then takes it as the likeliest.

    One number a token comes from the row's own generator, and the token is where the cumulative distribution passes it (inverse
    transform sampling; Devroye 1986, Non-Uniform Random Variate Generation, chapter III.2). So no row depends on the rows
    beside it, on where it was stopped, or on any other random state.
    """

    def __init__(self, sampling: Sampling, seeds: Sequence[int], most: int) -> None:
        """Draw the numbers of all rows for `most` tokens; the temperature must be above 0."""
        import torch
        from transformers import TemperatureLogitsWarper, TopPLogitsWarper

        self._warpers: list[Any] = [TemperatureLogitsWarper(float(sampling.temperature))]
        if sampling.top_p < 1:
            self._warpers.append(TopPLogitsWarper(sampling.top_p))
        drawn = [torch.rand(most, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self._numbers, self._step = torch.stack(drawn), 0

    def __call__(self, ids: Any, logits: Any) -> Any:
        """Return logits (rows, vocabulary) that are 0 at the drawn token and minus infinity elsewhere."""
        import torch

        for warp in self._warpers:
            logits = warp(ids, logits)
        passed = logits.double().softmax(-1).cumsum(-1)
        number = self._numbers[:, self._step, None].to(passed.device) * passed[:, -1:]
        self._step += 1
        token = torch.searchsorted(passed, number, right=True).clamp_(max=logits.shape[1] - 1)
        return torch.full_like(logits, -torch.inf).scatter_(1, token, 0.0)


class StopTexts:
    """Ends the rows whose answer holds one of some texts."""

    def __init__(self, tokenizer: Any, texts: Sequence[str], asked: int, ends: set[int]) -> None:
        """Keep the texts; answers begin at place `asked`, and rows that had a token of `ends` are over."""
        self._tokenizer, self._texts, self._asked, self._ends = tokenizer, texts, asked, ends
        # A token holds at least one byte, so a text that just became whole lies within that many.
        self._tail = max(len(text.encode()) for text in texts) + 1
        self._over: list[bool] = []

    def __call__(self, ids: Any, scores: Any, **_: Any) -> Any:
        """Return which rows are over."""
        import torch

        self._over = self._over or [False] * len(ids)
        for row, tail in enumerate(ids[:, max(self._asked, ids.shape[1] - self._tail) :].tolist()):
            if not self._over[row]:
                text = self._tokenizer.decode(tail, skip_special_tokens=True)
                self._over[row] = tail[-1] in self._ends or any(each in text for each in self._texts)
        return torch.tensor(self._over, device=ids.device)
