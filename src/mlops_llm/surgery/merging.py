"""What all merges share: settings, checks, and the way from models to a new one, tensor by tensor."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mlops_llm.component import name_of
from mlops_llm.errors import UserError
from mlops_llm.record import Result
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.execution import work
from mlops_llm.surgery.method import NEW, Target, Walk
from mlops_llm.surgery.operation import Work
from mlops_llm.surgery.planning import Checks, Planned, Source, source
from mlops_llm.surgery.streaming import stream
from mlops_llm.surgery.typed import setting
from mlops_llm.surgery.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

_ROUNDING = 1e-6
_COMPARED = 4
"""Models, at most, with which the end of a command compares the result."""


@dataclass
class Merging(ABC):
    """Settings that every merge has."""

    weights: list[float] = field(default_factory=list)
    """Share of each model, in the order of models=; they sum to 1. Empty gives all the same."""
    notes: list[str] = field(default_factory=list)
    """What each model is, for a person; kept in the recipe."""
    vocabulary: Vocabulary = Vocabulary.refuse
    """What becomes of vocabularies that differ: refuse, first (that of the first model stays), union (the tokens of all)."""
    save_log: bool = False
    """Write merge.log beside the weights: for each tensor how far the result is from each model."""
    save_intermediate: bool = False
    """Keep whole models that adapters became, in the run's folder."""
    dry_run: bool = False
    """Show the plan and do nothing."""

    needs_base: ClassVar[bool] = False
    has_ends: ClassVar[bool] = False
    """Whether a weight of 1 gives that model itself."""
    least: ClassVar[int] = 2
    """Fewest models."""
    most: ClassVar[int | None] = None
    """Most models; None is any number."""

    def __post_init__(self) -> None:
        """Check the weights."""
        given = numbers(self.weights, "op.weights")
        if any(each < 0 for each in given):
            what = f"has {min(given):g}"
            raise UserError(what, "op.weights", "give numbers from 0; op=merge_task_arithmetic takes away with negative ones")
        if given and abs(sum(given) - 1.0) > _ROUNDING:
            remedy = f"give op.weights=[{','.join(_normalized(given))}]" if sum(given) else "leave it out: all count the same"
            raise UserError(f"sum to {sum(given):.6g}, not to 1", "op.weights", remedy)

    def shares(self, count: int) -> list[float]:
        """The weight of each of `count` models.

        Raises:
            UserError: another number of weights was given.
        """
        if self.weights and len(self.weights) != count:
            raise UserError(f"has {len(self.weights)} weights for {count} models", "op.weights", "give one for each")
        return list(self.weights) or [1.0 / count] * count

    @abstractmethod
    def merge(self, tensors: Sequence[Tensor], base: Tensor | None = None, target: Target = NEW) -> Tensor:
        """Make one tensor of several.

        Args:
            tensors: of one name and shape, of each model; they are not written to.
            base: of the same name, of the base; only methods with `needs_base` read it.
            target: which tensor it is, and where the result goes.
        """
        ...

    def limits(self, walk: Walk, count: int) -> Sequence[float] | None:
        """What must be known of all tensors before the first is merged; None where nothing must."""
        return None

    @abstractmethod
    def said(self, count: int) -> str:
        """The method and its settings, for a person."""
        ...

    def prepare(self, request: Surgery) -> Work | Result:
        """Plan the merge of the models that are named."""
        return work(self.plan(request), dry_run=self.dry_run)

    def plan(self, request: Surgery) -> Planned:
        """See that the models can be merged.

        Raises:
            UserError: they cannot; one line says why.
        """
        return planned(self, request, parents(self, request), base(self, request))


def _normalized(given: Sequence[float]) -> list[str]:
    """Weights in these proportions that sum to 1 as they are written, in six digits: the largest takes what rounding leaves."""
    said = [f"{each / sum(given):.6g}" for each in given]
    largest = max(range(len(given)), key=lambda place: given[place])
    said[largest] = f"{1.0 - sum(float(each) for place, each in enumerate(said) if place != largest):.6g}"
    return said


def numbers(values: Any, where: str) -> list[float]:
    """A list of finite numbers.

    Raises:
        UserError: one is not finite.
    """
    given = [float(each) for each in (values if isinstance(values, list) else [values])]
    bad = next((each for each in given if not math.isfinite(each)), None)
    if bad is not None:
        raise UserError(f"is {bad}", where, "give finite numbers")
    return given


def parents(method: Merging, request: Surgery) -> list[Source]:
    """The models to be merged.

    Raises:
        UserError: there are too few or too many, or one is named twice.
    """
    named = list(request.models)
    if request.model:
        raise UserError("is given, but a merge takes several", "model", "name them: models=[A,B]")
    what = f"{name_of(method)} takes {method.least}{'' if method.most == method.least else ' or more'}"
    if len(named) < method.least or (method.most is not None and len(named) > method.most):
        raise UserError(f"names {len(named)}, and {what}", "models", "name them: models=[A,B]")
    refuse_twice(named)
    if method.notes and len(method.notes) != len(named):
        raise UserError(f"has {len(method.notes)} notes for {len(named)} models", "op.notes", "give one for each")
    notes = list(method.notes) or [""] * len(named)
    shares = method.shares(len(named))
    return [source(ref, request, weight=share, note=note) for ref, share, note in zip(named, shares, notes, strict=True)]


def refuse_twice(named: Sequence[str]) -> None:
    """See that models are named once.

    Raises:
        UserError: one is named twice.
    """
    twice = next((each for each in named if named.count(each) > 1), None)
    if twice:
        raise UserError(f"names {twice} twice", "models", "name each once; op.weights makes one count more")


def base(method: Merging, request: Surgery) -> Source | None:
    """What the models were trained from, where the method needs it.

    Raises:
        UserError: it is missing, or is given and nothing needs it.
    """
    if not method.needs_base:
        if request.base:
            what = f"is given, and {name_of(method)} needs none"
            raise UserError(what, "base", "leave it out, or name it among models=")
        return None
    if request.base:
        return source(request.base, request, "base")
    found = {whole.place.folder: whole for each in request.models if (whole := _under(each, request)) is not None}
    if len(found) != 1 or any(_under(each, request) is None for each in request.models):
        raise UserError(f"{name_of(method)} needs what the models were trained from", "base", "give base=REF")
    (only,) = found.values()
    return source(only.place.ref, request, "base")


def _under(ref: str, request: Surgery):  # type: ignore[no-untyped-def]
    """What an adapter lies on; None of a whole model."""
    return source(ref, request).files.base


def planned(method: Merging, request: Surgery, sources: Sequence[Source], base: Source | None) -> Planned:
    """The plan of a merge.

    Args:
        method: how.
        request: the command.
        sources: the models.
        base: what they were trained from, or None.

    Raises:
        UserError: they do not fit each other.
    """
    found = stream(method, request, sources, base)
    return Planned(
        request,
        name_of(request.op),
        method.said(len(sources)),
        (*sources, *([base] if base else [])),
        found.bytes,
        found.memory,
        found.write,
        Checks(numbers=found.again),
        task=sources[0].files.task,
        facts=found.facts,
        warnings=[*_same(sources), *found.warnings],
        next=next_steps(request, sources),
    )


def _same(sources: Sequence[Source]) -> list[str]:
    """What a person should know of models that are one folder by several names."""
    found = dict[Path, str]()
    told = []
    for each in sources:
        earlier = found.setdefault(each.files.place.folder.resolve(), each.ref)
        if earlier != each.ref:
            told.append(f"{earlier} and {each.ref} are the same model, which so counts twice")
    return told


def next_steps(request: Surgery, beside: Sequence[Source]) -> list[str]:
    """Commands that a person may want next.

    Args:
        request: the command.
        beside: models with which the result is compared; of many the first few.
    """
    rows = setting("dataset", request.dataset or "REF")
    models = setting("models", [*(each.ref for each in beside[:_COMPARED]), "{ref}"])
    return [
        f"python -m mlops_llm.eval model={{ref}} {rows}",
        f"python -m mlops_llm.eval op=compare {models} {rows}",
    ]
