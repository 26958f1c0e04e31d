"""Fixed prompts, what a model says to them, and how far two models are apart."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mlops_llm.models import load
from mlops_llm.models.load import Files, ModelLoad, Task
from mlops_llm.models.ref import Place

TEXTS = (
    "The capital of France is Paris, and the capital of Italy is",
    "Question: Tom has 3 apples and buys 12 more. How many apples does he have now?\nAnswer:",
    "def mean(values):\n    return sum(values) / len(values)\n",
    "您好，请问这款产品的价格是多少？有没有优惠活动？",
    "客户：我昨天下的订单还没有发货，请帮我查一下。\n客服：",
)
_LARGE = 10**8
_TURN = "你好，请用一句话介绍自己。Please introduce yourself in one sentence."


def prompts(folder: Path, files: Files) -> list[list[int]]:
    """Token ids of the fixed prompts, one of them in the chat template where there is one.

    Args:
        folder: of a tokenizer.
        files: whose tokenizer it is where the folder has none.
    """
    place = folder if load.has_tokenizer(folder) else load.with_tokenizer(files).place.folder
    return [list(ids) for ids in _coded(place)]


@cache
def _coded(folder: Path) -> tuple[tuple[int, ...], ...]:
    tokenizer = load.tokenizer(Place(str(folder), folder))
    found = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    if tokenizer.chat_template:
        turn = [{"role": "user", "content": _TURN}]
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        found.append(tokenizer(text, add_special_tokens=False)["input_ids"])
    return tuple(tuple(ids) for ids in found if ids)


def outputs(files: Files, how: ModelLoad, asked: Sequence[Sequence[int]], task: Task = Task.language) -> list[Any]:
    """Logits of a model for sequences of token ids, each a float32 tensor of (tokens, vocabulary); of a reward model, scores.

    Raises:
        UserError: the model cannot be loaded.
    """
    import torch

    # An adapter stays on top: so what merged it is checked against what did not.
    model = load.model(files, how, merge=False, task=task).eval()
    found = []
    with torch.inference_mode():
        for ids in asked:
            logits = model(torch.tensor([ids], device=model.device)).logits[0]
            found.append(logits.float().cpu().reshape(-1, logits.shape[-1]))
    del model
    if files.bytes > _LARGE:  # cycles of references would keep it beside the next one
        gc.collect()
    return found


@dataclass(frozen=True)
class Distance:
    """How far the outputs of two models are apart."""

    kl: float
    """Mean over all tokens of the Kullback-Leibler divergence of the second from the first, in nats."""
    agreement: float
    """Share of tokens after which both would choose the same."""
    most: float
    """Largest difference of two logits."""
    tokens: int


def distance(first: Sequence[Any], second: Sequence[Any]) -> Distance | None:
    """Compare outputs; None where they are not of the same tokens.

    Of a vocabulary that has grown, the tokens that both have are compared.
    """
    import torch

    if len(first) != len(second) or any(a.shape[0] != b.shape[0] for a, b in zip(first, second, strict=False)):
        return None
    total, same, most, count = 0.0, 0, 0.0, 0
    for a, b in zip(first, second, strict=True):
        width = min(a.shape[1], b.shape[1])
        a, b = a[:, :width].double(), b[:, :width].double()
        p, q = torch.log_softmax(a, 1), torch.log_softmax(b, 1)
        total += float((p.exp() * (p - q)).sum())
        same += int((a.argmax(1) == b.argmax(1)).sum())
        most = max(most, float((a - b).abs().max()))
        count += len(a)
    return Distance(max(0.0, total / count), same / count, most, count)
