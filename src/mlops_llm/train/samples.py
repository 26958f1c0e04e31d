"""Answers to a few held-out prompts, for people to read."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlops_llm.data.kinds import Kind, own
from mlops_llm.data.tokens import views
from mlops_llm.files import write_text
from mlops_llm.train.config import Samples
from mlops_llm.train.examples import kind_of
from mlops_llm.train.plan import Part


def chosen(part: Part | None, kinds: Sequence[Kind], how: Samples) -> tuple[list[list[dict[str, Any]]], list[str]]:
    """The first held-out prompts, and what a good answer to each is as far as the row tells (of a pair, the chosen one)."""
    if part is None:
        return [], []
    places = part.rows[: how.count]
    told = [kind_of(part.source.rows[place], kinds) for place in places]
    rows = [own(part.source.rows[place], kind, part.source.where(place)) for place, kind in zip(places, told, strict=True)]
    seen = [views(row, kind)[0] for row, kind in zip(rows, told, strict=True)]
    asked = [view.chat.messages[:-1] if view.answered else view.chat.messages for view in seen]
    given = [str(view.chat.messages[-1].get("content") or "") if view.answered else "" for view in seen]
    return asked, [answer or str(row.get("solution", "")) for answer, row in zip(given, rows, strict=True)]


def answers(model: Any, tokenizer: Any, prompts: Sequence[list[dict[str, Any]]], most: int) -> list[str]:
    """Answer greedily, in one batch; neither the model's mode nor any random state changes."""
    import torch

    if not prompts:
        return []
    left = copy.deepcopy(tokenizer)
    left.padding_side = "left"
    texts = [left.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True) for prompt in prompts]
    batch = left(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            out = model.generate(
                **batch,
                max_new_tokens=most,
                do_sample=False,
                use_cache=True,
                pad_token_id=left.pad_token_id,
                eos_token_id=left.eos_token_id,
                temperature=None,
                top_p=None,
                top_k=None,
            )
    finally:
        model.train(training)
    return [str(text).strip() for text in left.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)]


def before(file: Path, model: Any, tokenizer: Any, prompts: Sequence[list[dict[str, Any]]], most: int) -> list[str]:
    """Answers before training; a resumed run reads those that it gave when it began."""
    if file.is_file():
        return list(json.loads(file.read_text("utf-8")))
    given = answers(model, tokenizer, prompts, most)
    write_text(file, json.dumps(given, ensure_ascii=False))
    return given


def table(
    prompts: Sequence[list[dict[str, Any]]], before: list[str], after: list[str], wanted: list[str]
) -> dict[str, list[str]]:
    """Columns of the table that a person reads."""
    return {
        "prompt": [str(prompt[-1]["content"]) for prompt in prompts],
        "before": before,
        "after": after,
        "reference": wanted,
    }
