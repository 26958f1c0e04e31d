"""What a reward model gives texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def scores(model: Any, texts: Sequence[Sequence[int]], pad: int, batch: int) -> list[float]:
    """The score of each text; neither the model's mode nor any random state changes.

    Args:
        model: a reward model.
        texts: token ids of each.
        pad: token with which shorter texts of a batch are filled at the end.
        batch: texts a forward pass.
    """
    import torch

    found: list[float] = []
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        for start in range(0, len(texts), batch):
            part = [torch.tensor(each) for each in texts[start : start + batch]]
            filled, mask = (
                torch.nn.utils.rnn.pad_sequence(columns, batch_first=True, padding_value=value).to(model.device)
                for columns, value in ((part, pad), ([torch.ones_like(each) for each in part], 0))
            )
            with torch.no_grad():
                found += model(input_ids=filled, attention_mask=mask, use_cache=False).logits[:, 0].float().tolist()
    finally:
        for module, training in modes:
            module.training = training
    return found
