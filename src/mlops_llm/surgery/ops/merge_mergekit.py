"""`op=merge_mergekit`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from mlops_llm import console
from mlops_llm.component import component, name_of, near
from mlops_llm.errors import UserError, first_line, need
from mlops_llm.record import Result
from mlops_llm.surgery import companions
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.execution import work
from mlops_llm.surgery.merging import next_steps, numbers, refuse_twice
from mlops_llm.surgery.operation import Work
from mlops_llm.surgery.planning import Planned, Source, dtype_of, source
from mlops_llm.surgery.streaming import Alone, stream, whole

_PAIR = 2
"""Models of a method that goes from one to another."""


@component("op", "merge_mergekit")
@dataclass
class MergeMergekit:
    """Any method of the library mergekit: model_stock, della, breadcrumbs, nuslerp, karcher, sce and others."""

    method: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Name of the method in mergekit; base=REF where it needs one, of slerp and the like that of the two models at t = 0."""
    parameters: Any = None
    """The method's own settings, which hold for every model: 'op.parameters={density:0.6,epsilon:0.1}'."""
    weights: list[float] = field(default_factory=list)
    """mergekit's parameter weight of each model, in the order of models=."""
    notes: list[str] = field(default_factory=list)
    """What each model is, for a person; kept in the recipe."""
    dry_run: bool = False
    """Show the plan and do nothing."""

    def __post_init__(self) -> None:
        """Check what can be without mergekit."""
        numbers(self.weights, "op.weights")
        if self.parameters is not None and not isinstance(self.parameters, dict):
            raise UserError(f"is {self.parameters}", "op.parameters", "give settings: op.parameters={density:0.7}")

    def prepare(self, request: Surgery) -> Work | Result:
        """Plan a merge by mergekit."""
        return work(self.plan(request), dry_run=self.dry_run)

    def plan(self, request: Surgery) -> Planned:
        """See that mergekit knows the method, and that the models fit each other.

        Raises:
            UserError: one does not hold.
        """
        models = list(request.models)
        method = self._known(models, request.base)
        if request.model:
            raise UserError("is given, but a merge takes several", "model", "name them: models=[A,B]")
        if len(models) < 2:
            raise UserError(f"names {len(models)}, and a merge takes 2 or more", "models", "name them: models=[A,B]")
        refuse_twice(models)
        for name, given in (("op.weights", self.weights), ("op.notes", self.notes)):
            if given and len(given) != len(models):
                raise UserError(f"has {len(given)} for {len(models)} models", name, "give one for each")
        weights: list[Any] = list(self.weights) or [None] * len(models)
        notes = list(self.notes) or [""] * len(models)
        sources = [
            source(ref, request, weight=weight, note=note) for ref, weight, note in zip(models, weights, notes, strict=True)
        ]
        base = source(request.base, request, "base") if request.base else None
        found = stream(Alone(), request, sources, base)  # for its checks: the writing is mergekit's
        for each in found.weights:
            each.close()
        self._validated(self._config([Path(each.ref) for each in sources], Path(base.ref) if base else None, "float32"))
        return Planned(
            request,
            name_of(self),
            f"{method} by mergekit",
            (*sources, *([base] if base else [])),
            found.bytes,
            found.memory * 2,
            lambda folder: self._write(folder, request, sources, base),
            task=sources[0].files.task,
            facts=found.facts,
            warnings=found.warnings,
            next=next_steps(request, sources),
        )

    def _known(self, models: Sequence[str], base: str | None) -> str:
        """The method, which mergekit has, with its base and its settings.

        Raises:
            UserError: one does not hold.
        """
        if not self.method:
            raise UserError("names no method", "op.method", "give one of mergekit's: model_stock, della, breadcrumbs, …")
        need("mergekit", "surgery")
        from mergekit.merge_methods.registry import registered_methods

        known = {str(each.spec.name): each.spec for each in registered_methods()}
        names = sorted(known)
        if self.method not in names:
            raise UserError(f"mergekit has no method '{self.method}'{near(self.method, names)}", "op.method", ", ".join(names))
        wants = known[self.method].contract
        if wants.base.name == "REQUIRED" and wants.max_inputs == _PAIR and (base is None or base not in models):
            what = f"mergekit's {self.method} takes two models and begins at one of them (t = 0)"
            raise UserError(what, "base", f"name that one here too: base={models[0] if models else 'A'}")
        if wants.base.name == "REQUIRED" and not base:
            raise UserError(f"mergekit's {self.method} needs what the models were trained from", "base", "give base=REF")
        settings = [str(each.name) for each in known[self.method].parameters]
        unknown = next((name for name in self.parameters or {} if name not in settings), None)
        if unknown is not None:
            what = f"mergekit's {self.method} has no '{unknown}'{near(unknown, settings)}"
            raise UserError(what, "op.parameters", f"it has: {', '.join(settings) or 'none'}")
        return self.method

    def _config(self, models: Sequence[Path], base: Path | None, dtype: str) -> dict[str, Any]:
        weights: list[Any] = list(self.weights) or [None] * len(models)
        return {
            "merge_method": self.method,
            "models": [
                {"model": str(each), **({"parameters": {"weight": weight}} if weight is not None else {})}
                for each, weight in zip(models, weights, strict=True)
            ],
            **({"base_model": str(base)} if base else {}),
            "parameters": dict(self.parameters or {}),
            "dtype": "float32",
            "out_dtype": dtype,
        }

    def _validated(self, config: dict[str, Any]) -> Any:
        from mergekit.config import MergeConfiguration

        try:
            return MergeConfiguration.model_validate(config)
        except ValueError as error:
            raise UserError(f"mergekit refuses this ({first_line(error)})", "op.parameters", "see its manual") from error

    def _write(self, folder: Path, request: Surgery, sources: Sequence[Source], base: Source | None) -> None:
        from mergekit.merge import MergeOptions, run_merge

        dtype = dtype_of(request, sources[0].files)
        with tempfile.TemporaryDirectory(prefix=".whole-", dir=folder.parent) as beside:
            places = [_whole(each, request, Path(beside) / str(number)) for number, each in enumerate(sources)]
            is_one = next((place for each, place in zip(sources, places, strict=True) if base and each.ref == base.ref), None)
            under = is_one or (_whole(base, request, Path(beside) / "base") if base else None)
            console.detail(f"merging by mergekit's {self.method}")
            options = MergeOptions(
                copy_tokenizer=False,
                lazy_unpickle=True,
                quiet=True,
                random_seed=request.seed,
                write_model_card=False,
                out_shard_size=request.shard_mb * 1_000_000,
            )
            try:
                run_merge(self._validated(self._config(places, under, dtype.name)), str(folder), options)
            except (RuntimeError, ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"mergekit's {self.method} fails ({first_line(error)})", "op.parameters", "see its manual"
                ) from error
        companions.copy(sources[0].files, folder)
        companions.configure(sources[0].files.config, folder, dtype)


def _whole(source: Source, request: Surgery, folder: Path) -> Path:
    """Where a whole model lies; an adapter is merged into its base first."""
    if source.files.is_adapter:
        whole(source, request, folder)
        return folder
    return source.files.place.folder
