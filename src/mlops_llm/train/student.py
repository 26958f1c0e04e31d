"""The trainer of a distillation."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F  # noqa: N812
from trl import SFTTrainer

from mlops_llm.models.template import IGNORED
from mlops_llm.train.teacher import Present, Top


class Student(SFTTrainer):  # type: ignore[misc]
    """Learns from the labels and a teacher; an evaluation looks at the labels alone."""

    def __init__(
        self, teacher: Present | Top, temperature: float, soft_weight: float, hard_weight: float, **arguments: Any
    ) -> None:
        """Build the trainer; `arguments` are those of TRL's SFTTrainer, batches as `algorithms.distill` makes them."""
        self._teacher, self._temperature, self._weights = teacher, temperature, (soft_weight, hard_weight)
        super().__init__(**arguments)
        self.model_accepts_loss_kwargs = False  # the loss is a mean over the batch

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """The weighted sum of both parts; in an evaluation the labels' part."""
        labels = inputs["labels"][:, 1:]
        out = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        learned = labels != IGNORED
        logits = out.logits[:, :-1][learned]
        hard = loss = F.cross_entropy(logits.float(), labels[learned])
        if model.training:
            soft = self._teacher.soft_loss(logits, learned, inputs, self._temperature)
            self._metrics["train"]["distill/soft_loss"].append(float(soft.detach()))
            self._metrics["train"]["distill/hard_loss"].append(float(hard.detach()))
            loss = self._weights[0] * soft + self._weights[1] * hard
        return (loss, out) if return_outputs else loss
