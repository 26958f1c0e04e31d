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


def finite(tensor: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity."""
    import torch

    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.dtype.itemsize == 1:
        tensor = tensor.float()
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) and torch.isfinite(high))


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


def opened(files: Files, how: ModelLoad, *, passing: bool = False) -> Weights:
    """The weights of a model or of an adapter merged into its base.

    Args:
        files: of the model.
        how: number format and rules, where PEFT must merge an adapter.
        passing: a tensor is valid only until the next one is read, which is faster.

    Raises:
        UserError: they are quantized, pickled, or do not fit their base.
    """
    if "quantization_config" in files.config:
        raise UserError("its weights are quantized", files.place.ref, "take the model that it was made of")
    if files.base is None:
        return _Whole(files, passing)
    if files.task is not files.base.task or not _is_plain(files):
        return _Held(files, how)
    under = opened(files.base, how, passing=passing)
    adapted = _Adapted(files, under)
    return adapted if adapted.fits else _Held(files, how)


class _Whole:
    """The tensors of a folder; an output head that is tied to the embeddings is left out, wherever it is written."""

    def __init__(self, files: Files, passing: bool) -> None:
        self.config = files.config
        self._tensors = Tensors(files.place.folder, "model", passing=passing)
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


class Factors:
    """The low-rank changes of an adapter (Hu et al. 2021, arXiv:2106.09685), and the tensors that it has whole."""

    def __init__(self, files: Files) -> None:
        """Read the names in an adapter's file."""
        self._settings, self._tensors = files.adapter_config, Tensors(files.place.folder, "adapter_model")
        self._keys: dict[str, dict[str, str]] = {}
        self.replaced: dict[str, str] = {}
        """Tensor of the base -> the adapter's own in its place."""
        self.embeds = False
        """Whether embeddings are among what changes."""
        for key in self._tensors.names:
            name = key.removeprefix(_PREFIX)
            found = _LORA.search(name)
            if found:
                self._keys.setdefault(name[: found.start()], {})[found[1].rpartition("_")[2]] = key
                self.embeds = self.embeds or "embedding" in found[1]
            else:
                self.replaced[name.replace(".modules_to_save", "").replace(".base_layer", "")] = key

    @property
    def modules(self) -> list[str]:
        """What changes."""
        return sorted(self._keys)

    def rank(self, module: str) -> int:
        """Rank of a change; 0 where there is none."""
        return self._tensors.shape(self._keys[module]["A"]).shape[0] if module in self._keys else 0

    def sizes(self, module: str) -> tuple[int, int]:
        """Columns of A and rows of B."""
        return self._tensors.shape(self._keys[module]["A"]).shape[1], self._tensors.shape(self._keys[module]["B"]).shape[0]

    def read(self, module: str) -> tuple[Tensor, Tensor]:
        """A and B of a change, as float32."""
        import torch

        a, b = (self._tensors.read(self._keys[module][each]).to(torch.float32) for each in ("A", "B"))
        return a, b

    def change(self, module: str) -> Tensor:
        """Scaling * B A, of the shape of the weight that it is added to, as float32."""
        a, b = self.read(module)
        change = (b @ a).mul_(self.scaling(module, a.shape[0]))
        return change.T if "embedding" in self._keys[module]["A"] or self._settings.get("fan_in_fan_out") else change

    def whole(self, name: str) -> Tensor:
        """The tensor that stands in the place of the base's."""
        return self._tensors.read(self.replaced[name])

    def shape(self, name: str) -> Shape:
        """What that tensor is."""
        return self._tensors.shape(self.replaced[name])

    def scaling(self, module: str, rank: int) -> float:
        """Factor of a change: alpha / rank, or alpha / sqrt(rank) in rank-stabilized LoRA (Kalajdzievski 2023)."""
        patterns, usual = self._settings.get("alpha_pattern") or {}, self._settings.get("lora_alpha", 8)
        alpha = float(next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), usual))
        return alpha / (math.sqrt(rank) if self._settings.get("use_rslora") else rank)

    def close(self) -> None:
        """Close the file."""
        self._tensors.close()


def factors(files: Files) -> Factors | None:
    """An adapter's changes; None where it is of another kind."""
    return Factors(files) if _is_plain(files) else None


class _Adapted:
    """A base with low-rank changes (Hu et al. 2021, eq. 3): W + scaling * B A, each tensor as it is read."""

    def __init__(self, files: Files, base: Weights) -> None:
        self._base, self._factors, self._folder = base, Factors(files), files.place.folder
        self._changed = {f"{module}.weight": module for module in self._factors.modules}
        replaced = self._factors.replaced
        self.fits = all(name in base.shapes for name in (*self._changed, *replaced))
        self.shapes = dict(base.shapes) | {name: self._factors.shape(name) for name in replaced if name in base.shapes}
        self.config = base.config
        own = next((name for name in (*self._changed, *replaced) if EMBEDDING.search(name)), None)
        self._head = own if own and self._unties(files) else None
        if self._head:
            self.shapes = dict(sorted({**self.shapes, HEAD: base.shapes[self._head]}.items()))
            self.config = {**base.config, "tie_word_embeddings": False}

    def _unties(self, files: Files) -> bool:
        """Whether the output head stays what the embeddings were: an adapter changes one of the two that were tied."""
        tied = self._base.config.get("tie_word_embeddings", False)
        return bool(tied) and not files.adapter_config.get("ensure_weight_tying")

    def read(self, name: str) -> Tensor:
        if name == HEAD and self._head:
            return self._base.read(self._head)
        found = self._factors.whole(name) if name in self._factors.replaced else self._base.read(name)
        if name not in self._changed:
            return found
        change = self._factors.change(self._changed[name])
        if change.shape != found.shape:
            what = f"the adapter changes {tuple(change.shape)} of {name}, which is {tuple(found.shape)}"
            raise UserError(what, str(self._folder), "check base_model_name_or_path")
        return change.add_(found).to(found.dtype)

    def close(self) -> None:
        self._factors.close()
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
