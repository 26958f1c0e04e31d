"""The critic: a model that says how much reward is still to come."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_llm.errors import UserError, first_line
from mlops_llm.train import ranks
from mlops_llm.train.ppo import estimates

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "critic"
"""Folder within a checkpoint."""


class Critic:
    """A copy of a language model whose head gives one number a token, with an optimizer of its own."""

    def __init__(
        self, start: Any, device: Any, learning_rate: float, clip: float, max_grad_norm: float, recompute: bool = False
    ) -> None:
        """Take the weights of a language model; the head begins at 0, so that the first advantages are the rewards themselves.

        Args:
            start: the language model, in float32; it is used up.
            device: where it runs.
            learning_rate: of AdamW, constant.
            clip: most that a value moves in a round before the loss holds it back.
            max_grad_norm: gradients are scaled down to this norm; 0 leaves them.
            recompute: activations of the layers are recomputed in the backward pass.

        Raises:
            UserError: models of this architecture have no form with a head for each token.
        """
        import torch
        from transformers import AutoModelForTokenClassification

        config = copy.deepcopy(start.config)
        config.num_labels = 1
        try:
            with torch.device("meta"):
                self.model = AutoModelForTokenClassification.from_config(config, dtype=torch.float32, trust_remote_code=False)
        except ValueError as error:
            raise UserError(
                f"no critic can be made of this architecture ({first_line(error)})",
                str(start.config.model_type),
                "take algo=rloo or algo=grpo",
            ) from error
        setattr(self.model, self.model.base_model_prefix, start.base_model)
        self.model.score.to_empty(device="cpu")
        self._undrop()
        with torch.no_grad():
            for parameter in self.model.score.parameters():
                parameter.zero_()
        self.model.to(device)
        if recompute:
            self.model.config.use_cache = False
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
            self.model.train()  # layers recompute only then; dropout is off
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=learning_rate, weight_decay=0.0, fused=True)
        self._clip, self._max_grad_norm = clip, max_grad_norm

    def values(self, ids: Tensor, attention: Tensor, answer: int) -> Tensor:
        """The value before each of the last `answer` tokens: shape (answers, answer)."""
        logits = self.model(input_ids=ids, attention_mask=attention).logits
        return logits[:, -answer - 1 : -1, 0].float()

    def learn(self, new: Tensor, old: Tensor, returns: Tensor, mask: Tensor, parts: int, last: bool) -> float:
        """Add the gradient of one of `parts` batches of a step; the last one moves the weights. Returns the batch's loss."""
        import torch

        loss = estimates.value_loss(new, old, returns, mask, self._clip)
        (loss / parts).backward()
        if last:
            ranks.average_gradients(list(self.model.parameters()))
            if self._max_grad_norm:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._max_grad_norm)
            self._optimizer.step()
            self._optimizer.zero_grad()
        return float(loss.detach())

    def check(self, step: int) -> None:
        """See that the weights are numbers, before they are saved as good ones.

        Raises:
            UserError: they are not.
        """
        import torch

        if not all(bool(torch.isfinite(weight.detach()).all()) for weight in self.model.parameters()):
            what = f"the training diverged: the critic's weights are no numbers any more after step {step}"
            raise UserError(what, "algo.critic_learning_rate", "lower it, and go on from the last checkpoint or begin anew")

    def save(self, checkpoint: Path) -> None:
        """Write weights and optimizer into a checkpoint's folder."""
        import torch

        self.model.save_pretrained(checkpoint / FOLDER)
        torch.save(self._optimizer.state_dict(), checkpoint / FOLDER / "optimizer.pt")

    def load(self, checkpoint: Path) -> None:
        """Go on with what `save` wrote."""
        import torch
        from safetensors.torch import load_file

        folder = checkpoint / FOLDER
        self.model.load_state_dict(load_file(folder / "model.safetensors"))
        self._optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))

    def _undrop(self) -> None:
        """Without dropout: old and new values of the same weights are to be the same."""
        import torch

        for module in self.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            for name, value in list(vars(module).items()):
                if "dropout" in name and isinstance(value, float):  # what attention is called with
                    setattr(module, name, 0.0)
