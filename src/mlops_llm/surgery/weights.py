"""A model's weights one tensor at a time, also those of an adapter, which is merged into its base on the way."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from mlops_llm.errors import UserError
from mlops_llm.models import load
from mlops_llm.models.load import Files, ModelLoad
from mlops_llm.models.tensors import Shape, Tensors, coded

if TYPE_CHECKING:
    from torch import Tensor

HEAD = "lm_head.weight"
EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|tok_embeddings)\.weight$")
_PREFIX = "base_model.model."
_LORA = re.compile(r"\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B)(\.weight)?$")


class Weights(Protocol):
    """Tensors by name."""

    @property
    def config(self) -> dict[str, Any]:
        """config.json of the whole model."""
        ...

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """What there is, sorted by name."""
        ...

    def read(self, name: str) -> Tensor:
        """One tensor; whoever asks may not write to it."""
        ...

    def close(self) -> None:
        """Close files and let memory go."""
        ...


def opened(files: Files, how: ModelLoad) -> Weights:
    """The weights of a model or of an adapter merged into its base.

    Raises:
        UserError: they are quantized, pickled, or do not fit their base.
    """
    if "quantization_config" in files.config:
        raise UserError("its weights are quantized", files.place.ref, "take the model that it was made of")
    if files.base is None:
        return _Whole(files)
    if files.task is not files.base.task or not _is_plain(files):
        return _Held(files, how)
    under = opened(files.base, how)
    adapted = _Adapted(files, under)
    return adapted if adapted.fits else _Held(files, how)


class _Whole:
    """The tensors of a folder; an output head that is tied to the embeddings is left out, wherever it is written."""

    def __init__(self, files: Files) -> None:
        self.config = files.config
        self._tensors = Tensors(files.place.folder, "model")
        tied = files.config.get("tie_word_embeddings", False)
        self.shapes = {name: each for name, each in self._tensors.shapes.items() if not (tied and name == HEAD)}
        if not self.shapes:
            raise UserError("holds no safetensors", files.place.ref, "save the model as safetensors first")

    def read(self, name: str) -> Tensor:
        return self._tensors.read(name)

    def close(self) -> None:
        self._tensors.close()


def _is_plain(files: Files) -> bool:
    """Whether an adapter is low-rank factors and whole tensors, and nothing else."""
    config = files.adapter_config
    odd = ("use_dora", "lora_bias", "trainable_token_indices", "megatron_config", "eva_config", "corda_config", "use_qalora")
    return str(config.get("peft_type", "LORA")) == "LORA" and not any(config.get(name) for name in odd)


class _Adapted:
    """A base with low-rank changes (Hu et al. 2021, arXiv:2106.09685, eq. 3): W + scaling * B A, each tensor as it is read."""

    def __init__(self, files: Files, base: Weights) -> None:
        self._base, self._settings = base, files.adapter_config
        self._tensors = Tensors(files.place.folder, "adapter_model")
        self._factors: dict[str, dict[str, str]] = {}
        self._replaced: dict[str, str] = {}
        for key in self._tensors.names:
            name = key.removeprefix(_PREFIX)
            found = _LORA.search(name)
            if found:
                target = f"{name[: found.start()]}.weight"
                self._factors.setdefault(target, {})[found[1].rpartition("_")[2]] = key
                if "embedding" in found[1]:
                    self._factors[target]["embedding"] = key
            else:
                self._replaced[name.replace(".modules_to_save", "").replace(".base_layer", "")] = key
        self.shapes = dict(base.shapes) | {
            name: self._tensors.shape(key) for name, key in self._replaced.items() if name in base.shapes
        }
        self.fits = all(name in base.shapes for name in (*self._factors, *self._replaced))
        self.config = base.config

    def read(self, name: str) -> Tensor:
        import torch

        if name in self._replaced:
            return self._tensors.read(self._replaced[name])
        found = self._base.read(name)
        factors = self._factors.get(name)
        if not factors:
            return found
        a, b = (self._tensors.read(factors[each]).to(torch.float32) for each in ("A", "B"))
        change = (b @ a).mul_(self._scaling(name.removesuffix(".weight"), a.shape[0]))
        if "embedding" in factors or self._settings.get("fan_in_fan_out"):
            change = change.T
        if change.shape != found.shape:
            what = f"the adapter changes {tuple(change.shape)} of {name}, which is {tuple(found.shape)}"
            raise UserError(what, str(self._tensors.folder), "check base_model_name_or_path")
        return change.add_(found).to(found.dtype)

    def _scaling(self, module: str, rank: int) -> float:
        patterns = self._settings.get("alpha_pattern") or {}
        usual = self._settings.get("lora_alpha", 8)
        alpha = float(next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), usual))
        return alpha / (math.sqrt(rank) if self._settings.get("use_rslora") else rank)

    def close(self) -> None:
        self._tensors.close()
        self._base.close()


class _Held:
    """An adapter of another kind, which PEFT merges: the whole model is in memory."""

    def __init__(self, files: Files, how: ModelLoad) -> None:
        self._files, self._how = files, how
        self._state: dict[str, Tensor] | None = None
        model = self._model()
        self.config = model.config.to_dict() | {"architectures": [type(model).__name__]}
        self.shapes = {name: coded(each) for name, each in sorted(self._state_of(model).items())}

    def _model(self) -> Any:
        return load.model(self._files, self._how, merge=True, task=self._files.task)

    def _state_of(self, model: Any) -> dict[str, Tensor]:
        tied = self.config.get("tie_word_embeddings")
        self._state = {name: each for name, each in model.state_dict().items() if not (tied and name == HEAD)}
        return self._state

    def read(self, name: str) -> Tensor:
        state = self._state or self._state_of(self._model())
        return state[name].detach()

    def close(self) -> None:
        self._state = None
