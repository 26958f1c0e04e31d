"""What operations have in common that make a model smaller: limits, measures, and the plan."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mlops_llm.component import name_of
from mlops_llm.errors import UserError
from mlops_llm.models import packed
from mlops_llm.models.load import Dtype, Task
from mlops_llm.record import Result
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.execution import work
from mlops_llm.surgery.forms import Form, again, converted, write
from mlops_llm.surgery.measures import Measures, Where
from mlops_llm.surgery.merging import next_steps
from mlops_llm.surgery.operation import Work
from mlops_llm.surgery.planning import BESIDE, Check, Checks, Planned, Source, dtype_of, source, stored, under
from mlops_llm.surgery.weights import Weights, opened


@dataclass(frozen=True)
class Making:
    """How a model gets its new form."""

    method: str
    """For a person."""
    write: Callable[[Path], str | None]
    """Fills an empty folder."""
    numbers: Callable[[Path], Sequence[Check]]
    """Compares what lies in the finished folder with the model, tensor by tensor."""
    bytes: int
    """Of the result's weights."""
    memory: int
    """Most bytes held at once."""
    facts: Mapping[str, str]
    """More lines of the plan."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the recipe holds besides the operation's own settings."""
    lighter: Mapping[str, int] = field(default_factory=dict)
    """As in `Planned`."""


@dataclass
class Quantizing(ABC):
    """Limits of what may be lost, and what is measured. A certificate that breaks a limit fails."""

    most_kl: float = 1.5
    """Most nats a token by which outputs may be away from the model's, on fixed prompts."""
    least_agreement: float = 0.35
    """Least share of the fixed prompts' tokens after which both would choose the same."""
    most_loss: float = 1.6
    """Most times by which perplexity may grow: on dataset=REF, else on a few short questions."""
    measure: list[Where] = field(default_factory=lambda: [Where.hf])
    """Where speed and memory are measured beside the model's: hf, vllm (takes minutes to start); [] measures none."""
    dry_run: bool = False
    """Show the plan, and do nothing."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.least_agreement <= 1:
            raise UserError(f"is {self.least_agreement}", "op.least_agreement", "give a share from 0 to 1")
        if not 0 < self.most_kl < math.inf:
            raise UserError(f"is {self.most_kl}", "op.most_kl", "give a number above 0")
        if not 1 <= self.most_loss < math.inf:
            raise UserError(f"is {self.most_loss}", "op.most_loss", "give a number from 1")

    def prepare(self, request: Surgery) -> Work | Result:
        """Plan the new form of the model that is named."""
        packed.quiet()
        return work(self.plan(request), dry_run=self.dry_run)

    @abstractmethod
    def plan(self, request: Surgery) -> Planned:
        """See that the model can take the form.

        Raises:
            UserError: it cannot; one line says why.
        """
        ...

    def planned(self, request: Surgery, parent: Source, making: Making) -> Planned:
        """The plan, with what the certificate demands.

        Args:
            request: the command.
            parent: the model.
            making: how it gets its new form.

        Raises:
            UserError: the rows on which loss is measured cannot be asked.
        """
        measures = Measures(parent, request, tuple(self.measure), self.most_loss)
        measures.check()
        evaluated, compared = next_steps(request, [parent])
        return Planned(
            request,
            name_of(self),
            making.method,
            (parent,),
            making.bytes + BESIDE,
            making.memory,
            making.write,
            Checks(parent, self.most_kl, self.least_agreement, under(parent), making.numbers, measures),
            name=name_of(self).partition("_")[2],
            facts=making.facts,
            settings=making.settings,
            reads=("dataset", "metric") if request.dataset else (),
            lighter=making.lighter,
            next=[evaluated, f"{compared} op.measure=true"],
        )


def single(request: Surgery) -> Source:
    """The one model of a request, whose weights are plain.

    Raises:
        UserError: there is none, it is quantized already, or a reward model.
    """
    found = source(request.one, request)
    if found.files.task is not Task.language:
        raise UserError("is a reward model", found.ref, "take a language model")
    packed.refuse(found.files)
    return found


def streamed(
    operation: Quantizing,
    request: Surgery,
    method: str,
    form: Callable[[Source, Weights, Dtype], tuple[Form, Mapping[str, str]]],
    dtype: Dtype | None = None,
) -> Planned:
    """The plan of a form that is made tensor by tensor.

    Args:
        operation: with its limits.
        request: the command.
        method: what is done, for a person.
        form: makes the form of a model's weights, and says of it what a person wants to know.
        dtype: number format of what is not quantized; None takes that of the request.

    Raises:
        UserError: the model cannot take the form.
    """
    parent = single(request)
    weights = opened(parent.files, request.model_load)
    wanted = dtype or dtype_of(request, parent.files)
    made, facts = form(parent, weights, wanted)
    most = request.shard_mb * 1_000_000
    largest = max(each.bytes for each in weights.shapes.values())
    making = Making(
        method,
        partial(_write, made, weights, parent, wanted, most),
        partial(again, made.bounds, weights),
        made.bytes,
        4 * largest,
        {"stored as": f"{stored(parent.files).name} -> {method}", **facts},
    )
    return operation.planned(request, parent, making)


def _write(form: Form, weights: Weights, parent: Source, dtype: Dtype, most: int, folder: Path) -> str:
    return write(form, weights, parent.files, folder, dtype=dtype, most=most)


def half(operation: Quantizing, request: Surgery, dtype: Dtype) -> Planned:
    """The plan of a conversion to sixteen bits.

    Raises:
        UserError: the numbers are so already, or another format is asked for.
    """
    if request.dtype not in (Dtype.auto, dtype):
        raise UserError(f"is {request.dtype.name}, and the operation makes {dtype.name}", "dtype", "leave it out")
    if stored(single(request).files) is dtype:
        raise UserError(f"its numbers are {dtype.name} already", request.one, "nothing is to be done")

    def form(parent: Source, weights: Weights, wanted: Dtype) -> tuple[Form, Mapping[str, str]]:
        return converted(weights, wanted, parent.ref), {}

    return streamed(operation, request, dtype.name, form, dtype)


def said_of(layers: int, kept: str) -> dict[str, str]:
    """What is quantized and what stays, for a person."""
    return {"layers": f"{layers} linear layers; embeddings and output head stay in {kept}"}
