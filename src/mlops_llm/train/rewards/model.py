"""What a reward model of our own says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_llm import console
from mlops_llm.component import component
from mlops_llm.data.read import Row
from mlops_llm.errors import UserError
from mlops_llm.models import load, template
from mlops_llm.models.load import Dtype, ModelLoad, Task
from mlops_llm.models.ref import Place, resolve
from mlops_llm.models.scores import scores
from mlops_llm.train.companion import companion, pinned
from mlops_llm.train.needs import Held
from mlops_llm.train.reward import Answers, check_weight


@component("reward", "model")
@dataclass
class RewardModel:
    """The score that a reward model gives, such as algo=reward trains.

    It sees the prompt's turns and the answer in its own chat template, with the end mark even where the answer was cut. A score
    has neither unit nor bounds: only scores of one model compare with each other.
    """

    weight: float = 1.0
    """Factor of this reward in the sum of all."""
    ref: str = ""
    """The reward model: models:/NAME@ALIAS, runs:/RUN/best, a folder or a hub id; an adapter is merged."""
    batch_size: int = 32
    """Answers a forward pass."""
    max_tokens: int = 1024
    """Longer texts are cut at the end, which is said; where the model itself can read fewer, these."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_weight(self.weight, "model")
        if self.batch_size < 1:
            raise UserError(f"is {self.batch_size}", "reward.model.batch_size", "give a number from 1")
        if self.max_tokens < 2:
            raise UserError(f"is {self.max_tokens}", "reward.model.max_tokens", "give a number from 2")
        self._loaded: tuple[Any, Any, int] | None = None
        self._told = False

    def check(self, rows: Sequence[Row]) -> list[str | None]:
        """Every row can be rewarded, once the model is there; its weights are not read yet.

        Raises:
            UserError: no model is named, there is none, it is no reward model, or its template cannot be used.
        """
        if not self.ref:
            remedy = "name one, such as models:/sales_reward@challenger (+experiment=reward_sales trains it)"
            raise UserError("is not given", "reward.model.ref", remedy)
        files = load.inspect(resolve(self.ref), ModelLoad(), Task.reward)
        template.ensure(load.tokenizer_of(files), self.ref)
        return [None] * len(rows)

    def resumed(self, folder: Path) -> None:
        """Take the model that the run began with."""
        self.ref = pinned(folder, "reward model", self.ref)

    def holds(self) -> Sequence[Held]:
        """The model itself."""
        files = load.inspect(resolve(self.ref), ModelLoad(), Task.reward)
        each = 2 if load.dtype_of(ModelLoad().dtype) is Dtype.bfloat16 else 4
        return [Held("reward model", files.parameters, self.ref, each)]

    def begin(self, folder: Path) -> dict[str, str]:
        """Load the model; a resumed run has the one that it began with.

        Raises:
            UserError: its weights are broken, or changed since the run began.
        """
        which = companion(folder, "reward model", self.ref)
        self._loaded = self._load(which.place)
        made = {"reward.model.checkpoint": which.place.checkpoint} if which.place.checkpoint else {}
        return {"digest.reward.model": which.digest, **made}

    def score(self, answers: Answers) -> list[float | None]:
        """The model's score of each answer.

        Raises:
            UserError: the template cannot render a prompt, or a score is not finite.
        """
        if self._loaded is None:
            self.check(answers.rows)
            self._loaded = self._load(resolve(self.ref))
        model, tokenizer, most = self._loaded
        coded = [
            template.encode(tokenizer, [*prompt, {"role": "assistant", "content": each}], max_tokens=most, answers_only=False)
            for prompt, each in zip(answers.prompts, answers.completions, strict=True)
        ]
        cut = sum(1 for one in coded if one.cut)
        if cut and not self._told:
            self._told = True
            console.warn(f"the reward model sees {cut} of {len(coded)} texts cut at {most} tokens (reward.model.max_tokens)")
        found = scores(model, [one.ids for one in coded], tokenizer.pad_token_id, self.batch_size)
        if not all(math.isfinite(each) for each in found):
            raise UserError("gives a score that is not finite", self.ref, "take an earlier checkpoint of the reward model")
        return list(found)

    def _load(self, place: Place) -> tuple[Any, Any, int]:
        """The frozen model, its tokenizer, and the most tokens that it is given; no random number of the training is used."""
        import torch

        files = load.inspect(place, ModelLoad(), Task.reward)
        tokenizer = load.tokenizer_of(files)
        template.ensure(tokenizer, self.ref)
        with torch.random.fork_rng(devices=[]):  # an adapter's base gets a random head before its own
            model = load.model(files, ModelLoad(), merge=True, task=Task.reward)
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        readable = int(files.config.get("max_position_embeddings") or self.max_tokens)
        return model.requires_grad_(False).eval().to(device), tokenizer, min(self.max_tokens, readable)
