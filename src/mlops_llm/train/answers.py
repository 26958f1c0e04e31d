"""Answers of a model in training, which leave the training as it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mlops_llm.eval.questions import Question
from mlops_llm.eval.rendering import prompted
from mlops_llm.train import random_state

BATCH = 16
"""Answers at once: less memory than the activations of a training batch of half as many rows."""


def answers(model: Any, tokenizer: Any, questions: Sequence[Question], most: int) -> list[str]:
    """Answer greedily, in batches of like length; neither the modes of the model nor any random state change.

    Args:
        model: of transformers, with an adapter or none.
        tokenizer: its tokenizer, with a chat template.
        questions: what is asked.
        most: tokens of an answer at most.

    Raises:
        UserError: the template cannot render a question.
    """
    left = copy.deepcopy(tokenizer)
    left.padding_side = "left"
    texts = [prompted(left, question) for question in questions]
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    given = [""] * len(texts)
    with undisturbed(model):
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            for place, answer in zip(places, _batch(model, left, [texts[each] for each in places], most), strict=True):
                given[place] = answer
    return given


def _batch(model: Any, tokenizer: Any, texts: list[str], most: int) -> list[str]:
    import torch

    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    with torch.no_grad():
        out = model.generate(
            **batch,
            max_new_tokens=most,
            do_sample=False,
            use_cache=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            temperature=None,
            top_p=None,
            top_k=None,
        )
    asked = batch["input_ids"].shape[1]
    return [str(text).strip() for text in tokenizer.batch_decode(out[:, asked:], skip_special_tokens=True)]


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Within the block the model is in evaluation mode; after it each module's mode and every random state is as before.

    A part may have a mode of its own, such as a frozen copy, so that one mode for all would change it.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with random_state.kept():
            yield
    finally:
        for module, training in modes:
            module.training = training
