"""Which weights are trained."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from importlib.util import find_spec
from typing import Any, ClassVar

from mlops_llm import console
from mlops_llm.component import component, near
from mlops_llm.errors import UserError
from mlops_llm.models.adapter import put_on
from mlops_llm.models.load import Files, ModelLoad, Task, check_finite, in_four_bits, matrices, model


class Adapter(Enum):
    """What becomes of an adapter that a training starts from."""

    keep = "keep"
    merge = "merge"


@component("peft", "none")
@dataclass
class Full:
    """All weights are trained; a start from an adapter is merged into its base first."""

    trains_adapter: ClassVar[bool] = False
    quantized: ClassVar[bool] = False

    def weights(self, files: Files, bytes_each: int) -> int:
        """Bytes of the model in memory, `bytes_each` a number."""
        return files.parameters * bytes_each

    def starting(self, files: Files) -> Full:
        """The settings as they hold for a start model."""
        return self

    def base(self, files: Files) -> Files | None:
        """What the trained adapter lies on: there is none."""
        return None

    def told(self, files: Files) -> str:
        """What becomes of an adapter that the start model is."""
        return "merged, all weights are trained" if files.is_adapter else ""

    def trained(self, files: Files) -> int:
        """How many numbers are trained."""
        return files.parameters

    def load(self, files: Files, how: ModelLoad, task: Task = Task.language) -> Any:
        """Load the model that is trained."""
        return model(files, how, merge=True, task=task)


@component("peft", "lora")
@dataclass
class Lora:
    """A low-rank adapter is trained, the base stays (Hu et al. 2021, arXiv:2106.09685)."""

    trains_adapter: ClassVar[bool] = True
    quantized: ClassVar[bool] = False

    r: int = 8
    """Rank of the update matrices."""
    alpha: float = 16.0
    """The update is scaled by alpha / r."""
    dropout: float = 0.0
    """Dropout before the update."""
    targets: list[str] = field(default_factory=lambda: ["all-linear"])
    """Modules that get an adapter, by name; all-linear takes every linear layer but the output head."""
    adapter: Adapter = Adapter.keep
    """Of a start that is an adapter: keep trains it on, with its own r, alpha, dropout and targets; merge makes it part of the
    base and trains a new one on that."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.r < 1:
            raise UserError(f"is {self.r}", "peft.r", "give a whole number from 1")
        if not 0 < self.alpha < math.inf:
            raise UserError(f"is {self.alpha}", "peft.alpha", "give a number above 0, such as twice peft.r")
        if not 0 <= self.dropout < 1:
            raise UserError(f"is {self.dropout}", "peft.dropout", "give a share from 0 to below 1")
        if not self.targets:
            raise UserError("is empty", "peft.targets", "name modules, or all-linear")

    def weights(self, files: Files, bytes_each: int) -> int:
        """Bytes of the model in memory."""
        return files.parameters * bytes_each

    def starting(self, files: Files) -> Lora:
        """The settings as they hold for a start model: an adapter that is trained on keeps its own; others are said.

        Raises:
            UserError: an adapter is to be merged, and there is none.
        """
        if self.adapter is Adapter.merge and not files.is_adapter:
            raise UserError("is merge, and the start model is no adapter", "peft.adapter", "leave it out")
        if self.base(files) is files:
            self._check_targets(files)
            return self
        if "r" not in files.adapter_config:
            return self
        own = _own(files.adapter_config)
        mine = {name: getattr(self, name) for name in own} | {"targets": sorted(self.targets)}
        if self.targets == ["all-linear"]:  # the adapter names the layers that this stands for
            mine.pop("targets")
        other = [name for name, value in mine.items() if value != own[name]]
        if other:
            console.warn(
                f"the adapter is trained on with its own {', '.join(f'{name}={own[name]}' for name in other)}; "
                f"{', '.join(f'peft.{name}' for name in other)} would count for a new one (peft.adapter=merge)"
            )
        return replace(self, **own)

    def base(self, files: Files) -> Files:
        """What the trained adapter lies on: the start model, or the base of a start adapter that is trained on."""
        return files if files.base is None or self.adapter is Adapter.merge else files.base

    def told(self, files: Files) -> str:
        """What becomes of an adapter that the start model is."""
        if not files.is_adapter:
            return ""
        if self.adapter is Adapter.merge:
            return "merged, a new one is trained"
        return f"trained on: r={self.r}, alpha={self.alpha:g}, dropout={self.dropout:g}, targets={','.join(self.targets)}"

    def trained(self, files: Files) -> int:
        """How many numbers are trained: two matrices for each target; of an adapter that is trained on, those that it has."""
        if self.base(files) is not files:
            return files.adapter
        widths = [width for name, width in matrices(files.whole.place.folder).items() if self._adapts(name)]
        return self.r * sum(widths)  # 0 for pickled weights, of which nothing is known yet

    def _check_targets(self, files: Files) -> None:
        """See that each target is a module's name; of pickled weights nothing is known yet.

        Raises:
            UserError: one is not.
        """
        modules = matrices(files.whole.place.folder)
        for target in [] if self.targets == ["all-linear"] else self.targets:
            if modules and not any(f".{module}".endswith(f".{target}") for module in modules):
                names = sorted({module.rpartition(".")[2] for module in modules if Lora()._adapts(module)})
                what = f"the model has no module '{target}'{near(target, names)}"
                raise UserError(what, "peft.targets", f"its linear layers are: {', '.join(names)}")

    def _adapts(self, module: str) -> bool:
        last = module.rpartition(".")[2]
        if self.targets == ["all-linear"]:
            return not any(part in last for part in ("embed", "wte", "wpe", "lm_head"))
        return last in self.targets or any(module.endswith(f".{target}") for target in self.targets)

    def load(self, files: Files, how: ModelLoad, task: Task = Task.language) -> Any:
        """Load the base with a new adapter on it, or the adapter that `files` holds, ready to be trained further.

        A reward model's head is trained and saved with the adapter (PEFT's task type SEQ_CLS does so).

        Raises:
            UserError: no module has a target's name.
        """
        base = self._under(self.base(files), how, task)
        if self.base(files) is not files:
            kept = put_on(base, files, task, merge=False)
            check_finite(((name, tensor) for name, tensor in kept.named_parameters() if tensor.requires_grad), files.place.ref)
            return kept
        from peft import LoraConfig, get_peft_model

        targets: Any = "all-linear" if self.targets == ["all-linear"] else list(self.targets)
        settings = LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=targets,
            task_type="CAUSAL_LM" if task is Task.language else "SEQ_CLS",
        )
        try:
            return get_peft_model(base, settings)
        except ValueError as error:
            names = sorted(
                {name.rpartition(".")[2] for name, module in base.named_modules() if "Linear" in type(module).__name__}
            )
            raise UserError(
                f"the model has no modules {self.targets}", "peft.targets", f"its linear layers are: {', '.join(names)}"
            ) from error

    def _under(self, base: Files, how: ModelLoad, task: Task) -> Any:
        """Load what the adapter lies on."""
        return model(base, how, merge=True, task=task)


@component("peft", "qlora")
@dataclass
class Qlora(Lora):
    """As lora, on a base of 4-bit numbers (Dettmers et al. 2023, arXiv:2305.14314): NF4, scales quantized again, bitsandbytes.

    Only the training sees 4-bit numbers: checkpoints hold the adapter, and wherever it is loaded it lies on the base as it was,
    so that its answers and losses there differ a little.
    """

    quantized: ClassVar[bool] = True

    def starting(self, files: Files) -> Lora:
        """The settings as they hold for a start model.

        Raises:
            UserError: bitsandbytes is missing, or the base is no folder's weights, which alone can be loaded as 4-bit numbers.
        """
        if find_spec("bitsandbytes") is None:
            raise UserError(
                "bitsandbytes is not installed", "peft", "install it with: pip install 'mlops-llm[qlora]', or take peft=lora"
            )
        if self.base(files).is_adapter:
            raise UserError(
                "a base with a merged adapter cannot be loaded as 4-bit numbers",
                "peft",
                "take peft=lora" + ("" if self.adapter is Adapter.keep else ", or leave out peft.adapter=merge"),
            )
        return super().starting(files)

    def weights(self, files: Files, bytes_each: int) -> int:
        """Bytes of the model in memory, roughly: embeddings as they are, all else as 4-bit numbers with a scale for 64 each."""
        embeddings = int(files.config.get("vocab_size", 0)) * int(files.config.get("hidden_size", 0))
        return min(embeddings, files.parameters) * 4 + max(0, files.parameters - embeddings) * 33 // 64

    def _under(self, base: Files, how: ModelLoad, task: Task) -> Any:
        from peft import prepare_model_for_kbit_training

        # Gradients are checkpointed by the trainer, where that is wanted.
        return prepare_model_for_kbit_training(in_four_bits(base, how), use_gradient_checkpointing=False)


@contextmanager
def whole_numbers(model: Any) -> Iterator[None]:
    """While a TRL trainer is built: keep an adapter on a base of 4-bit numbers in float32, as every other adapter.

    TRL would round it to bfloat16, and a resumed run, which loads it as float32, would not repeat the one before.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    four = getattr(base, "is_loaded_in_4bit", False)
    if four:
        base.is_loaded_in_4bit = False
    try:
        yield
    finally:
        if four:
            base.is_loaded_in_4bit = True


def _own(adapter: dict[str, Any]) -> dict[str, Any]:
    """An adapter's own settings, as ours are called; of the targets the last part of their names."""
    targets = adapter.get("target_modules") or []
    return {
        "r": int(adapter.get("r", 8)),
        "alpha": float(adapter.get("lora_alpha", 8)),
        "dropout": float(adapter.get("lora_dropout", 0.0)),
        "targets": [targets] if isinstance(targets, str) else sorted({each.rpartition(".")[2] for each in targets}),
    }
