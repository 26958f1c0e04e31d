"""Which weights are trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.models.load import Files, ModelLoad, Task, matrices, model


@component("peft", "none")
@dataclass
class Full:
    """All weights are trained; a start from an adapter is merged into its base first."""

    adapter: ClassVar[bool] = False

    def trained(self, files: Files) -> int:
        """How many numbers are trained."""
        return files.parameters

    def load(self, files: Files, how: ModelLoad, task: Task = Task.language) -> Any:
        """Load the model that is trained."""
        return model(files, how, merge=True, task=task)


@component("peft", "lora")
@dataclass
class Lora:
    """A low-rank adapter is trained, the base stays (Hu et al. 2021, arXiv:2106.09685); an adapter is trained on."""

    adapter: ClassVar[bool] = True

    r: int = 8
    """Rank of the update matrices."""
    alpha: float = 16.0
    """The update is scaled by alpha / r."""
    dropout: float = 0.0
    """Dropout before the update."""
    targets: list[str] = field(default_factory=lambda: ["all-linear"])
    """Modules that get an adapter, by name; all-linear takes every linear layer but the output head."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.r < 1:
            raise UserError(f"is {self.r}", "peft.r", "give a whole number from 1")
        if not 0 <= self.dropout < 1:
            raise UserError(f"is {self.dropout}", "peft.dropout", "give a share from 0 to below 1")
        if not self.targets:
            raise UserError("is empty", "peft.targets", "name modules, or all-linear")

    def trained(self, files: Files) -> int:
        """How many numbers are trained: two matrices for each target; of an adapter, those that it has."""
        if files.is_adapter:
            return files.adapter
        widths = [width for name, width in matrices(files.place.folder).items() if self._adapts(name)]
        return self.r * sum(widths)  # 0 for pickled weights, of which nothing is known yet

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
        base = model(files, how, merge=False, task=task)
        if files.is_adapter:
            return base
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
