"""Prompts as token ids, and those that leave no room for an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mlops_llm.inference.engine import Class, Failure, Request


class Prompt(NamedTuple):
    """A request with its text as the model sees it."""

    request: Request
    ids: list[int]
    most: int
    """Tokens of its answer at most."""


def coded(
    tokenizer: Any, requests: Sequence[Request], most: int, window: int | None
) -> tuple[list[Prompt], list[tuple[int, Failure]]]:
    """The prompts that leave room, and failures for the others, with their places.

    Args:
        tokenizer: the model's.
        requests: with their text rendered; no special token is added to it.
        most: tokens of an answer at most.
        window: tokens of a prompt and its answer together; None where no limit is known.
    """
    if not requests:
        return [], []
    fit, full = list[Prompt](), list[tuple[int, Failure]]()
    found = tokenizer([each.text for each in requests], add_special_tokens=False, verbose=False)["input_ids"]
    for request, ids in zip(requests, found, strict=True):
        room = window - len(ids) if window else most
        if room > 0:
            fit.append(Prompt(request, ids, min(most, room)))
        else:
            full.append((request.place, Failure(Class.too_long, f"{len(ids)} tokens fill the model's {window}")))
    return fit, full
