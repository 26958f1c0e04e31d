"""What is to be made and of what, known before a weight is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mlops_llm import console, files
from mlops_llm.errors import UserError
from mlops_llm.files import expanded
from mlops_llm.models import digested, load
from mlops_llm.models.load import Dtype, Files, Task
from mlops_llm.models.ref import EMBEDDED, resolve, unpinned
from mlops_llm.record import DatasetInput, Grid
from mlops_llm.surgery import memory
from mlops_llm.surgery.config import Surgery

BYTES = {Dtype.float32: 4, Dtype.bfloat16: 2, Dtype.float16: 2}
"""Bytes of a number."""
BESIDE = 20_000_000
"""Bytes of tokenizer and config, at most."""


@dataclass(frozen=True)
class Source:
    """A model that a new one is made of."""

    ref: str
    """As a person named it."""
    files: Files
    role: str = "parent"
    """`parent`, `base` or `teacher`."""
    weight: float | None = None
    note: str = ""

    @cached_property
    def stable(self) -> str:
        """A ref that means the same for ever: of a checkpoint in the record its id, since aliases move on."""
        place = self.files.place
        if place.checkpoint:
            return f"models:/{place.checkpoint}"
        if self.ref in EMBEDDED or not expanded(self.ref).is_dir():
            return self.ref
        from mlops_llm.tracking import checkpoints
        from mlops_llm.tracking.store import connect, exists

        row = checkpoints.by_weights(connect(), self.digest) if exists() else None
        return f"models:/{row.id}" if row else str(place.folder)

    @cached_property
    def digest(self) -> str:
        """Digest of its weights, and of what it lies on where it is an adapter.

        Raises:
            UserError: they are not those that the record says.
        """
        return _digest(self.files)


def _digest(found: Files) -> str:
    own = digested.weights_digest(found.place)
    return own if found.base is None else f"{own} on {_digest(found.base)}"


@dataclass(frozen=True)
class Check:
    """One line of a certificate."""

    name: str
    """Snake case: `logit_kl`."""
    value: Any
    """What was found: a number, or words."""
    passed: bool | None
    """None where it was only measured."""
    said: str
    """The same for a person, with the limit."""
    of: int = 1
    """Number of the source that it is about, where it is said of several; the one with limits is the first."""

    @property
    def key(self) -> str:
        """What the record calls it."""
        return f"certificate/{self.name}" + (f"/{self.of}" if self.of > 1 else "")


@dataclass(frozen=True)
class Checks:
    """What a certificate demands beyond what holds for every result: finite numbers, whole files, tied weights, vocabulary."""

    like: Source | None = None
    """The source that the limits are about; None: outputs are measured against every source, and nothing is demanded."""
    most_kl: float | None = None
    """Most nats a token by which outputs may be away from those of `like`; None only measures."""
    least_agreement: float | None = None
    """Least share of tokens of which the greedy choice is that of `like`; None only measures."""
    changed_from: Source | None = None
    """Whose outputs the result must not have: catches an export that is the base model."""
    numbers: Callable[[Path], Sequence[Check]] | None = None
    """The operation's own checks of what lies in the finished folder, tensor by tensor."""
    more: Callable[[Path], Sequence[Check]] | None = None
    """The operation's own checks that open whole models; where there is no memory for one, they fail."""


@dataclass(frozen=True)
class Planned:
    """An operation that can be carried out."""

    request: Surgery
    operation: str
    """The component's name."""
    method: str
    """What is done, for a person: `SLERP (t = 0.4)`."""
    sources: tuple[Source, ...]
    bytes: int
    """Of the result on disk."""
    memory: int
    """Most bytes held at once while the result is written."""
    write: Callable[[Path], str | None]
    """Fills an empty folder with a whole model: config, tokenizer, template, generation config, weights.

    Reports progress through `console`. Returns the digest of the weights where it was computed on the way (`digest.weights`),
    else None: it is then read from the files.
    """
    checks: Checks = field(default_factory=Checks)
    name: str = "merged"
    """What the record calls the new checkpoint: `runs:/RUN/merged`."""
    task: Task = Task.language
    facts: Mapping[str, str] = field(default_factory=dict)
    """More lines of the plan and of the end."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the recipe holds besides the component's own settings."""
    reads: Sequence[str] = ()
    """Settings of how models are scored that it reads itself, without then.evaluate=true."""
    inputs: Sequence[DatasetInput] = ()
    """Rows that it looks at, as the record names them."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """Setting of the operation -> ref that means the same for ever: what the recipe has instead of a name that moves on."""
    warnings: Sequence[str] = ()
    lighter: Mapping[str, int] = field(default_factory=dict)
    """What a person may give where memory is short, and the bytes that are then held at once."""
    before: Sequence[Source] = ()
    """Whose scores stand beside the result's (then.evaluate=true); empty takes all parents."""
    next: Sequence[str] = ()
    """Commands that a person may want next; `{ref}` stands for the new checkpoint, `{output}` for its folder."""

    @property
    def output(self) -> Path:
        """Folder of the new checkpoint."""
        own = Path(self.request.folder or ".") / self.name
        return expanded(self.request.output).absolute() if self.request.output else own.absolute()

    @property
    def opened(self) -> int:
        """Bytes of the largest model when it is opened to be checked: one at a time, in float32 on a CPU."""
        size = BYTES[load.dtype_of(self.request.model_load.dtype)]
        return max((each.files.parameters + each.files.adapter) * size for each in self.sources)

    @property
    def lines(self) -> dict[str, Any]:
        """The plan for a person."""
        names = ", ".join(dict.fromkeys(str((each.files.config.get("architectures") or ["?"])[0]) for each in self.sources))
        return {
            "method": self.method,
            "architecture": names,
            **self.facts,
            "output": str(self.output),
            "size": f"{console.size(self.bytes)} of {console.size(files.free_bytes(self.output.parent))} free",
            "memory": f"{console.size(self.memory)} at most to write it, {console.size(self.opened)} to check it, "
            f"{console.size(memory.free())} free",
        }

    @property
    def grid(self) -> Grid:
        """The sources as a table."""
        heads = ("model", "role", "weight", "parameters", "dtype", "note")
        rows = [
            (each.ref, each.role, each.weight, f"{each.files.parameters:,}", stored(each.files).name, each.note)
            for each in self.sources
        ]
        used = [place for place in range(len(heads)) if any(row[place] not in (None, "") for row in rows)]
        return Grid("plan", [heads[place] for place in used], [[row[place] for place in used] for row in rows])


def source(ref: str, request: Surgery, role: str = "parent", *, weight: float | None = None, note: str = "") -> Source:
    """Find a model and check its files without reading its weights.

    Raises:
        UserError: there is none, its files are missing, cut off or pickled, or its weights are not those that the ref names.
    """
    found = load.inspect(resolve(ref), request.model_load, Task.reward, fresh=True)
    if (name := unpinned(ref)) != ref:
        digested.weights_digest(found.place)
    return Source(name, found, role, weight, note)


def under(one: Source) -> Source | None:
    """What an adapter lies on, which nothing that is made of it may be; None of a whole model."""
    return Source(one.files.base.place.ref, one.files.base, "base") if one.files.base else None


def stored(found: Files) -> Dtype:
    """The number format that a model's weights are stored in, of an adapter those of its base; float32 where it is another."""
    from mlops_llm.models.tensors import Tensors

    names = {"F32": Dtype.float32, "BF16": Dtype.bfloat16, "F16": Dtype.float16}
    kinds = Tensors(found.whole.place.folder).kinds
    return names.get(max(kinds, key=lambda kind: kinds[kind]), Dtype.float32) if kinds else Dtype.float32


def dtype_of(request: Surgery, first: Files) -> Dtype:
    """The number format of the result."""
    return stored(first) if request.dtype is Dtype.auto else request.dtype


def checked(planned: Planned) -> Planned:
    """See what holds for every operation: there is room on the disk and in memory, the output is new.

    Memory for the operation is demanded; of that for the certificate's questions it is said that it is missing.

    Raises:
        UserError: one does not hold.
    """
    output = planned.output
    if output.exists():
        raise UserError("exists already", str(output), "choose another output= or remove it")
    above = next(each for each in output.parents if each.exists())
    if not above.is_dir():
        raise UserError("is a file, and the output is to lie in it", str(above), "choose another output=")
    free = files.free_bytes(above)
    if planned.bytes > free:
        what = f"{console.size(planned.bytes)} are needed and {console.size(free)} are free"
        raise UserError(what, str(output.parent), "free some disk or choose another output=")
    memory.enough(planned.memory, planned.lighter)
    if planned.request.then.evaluate:
        _askable(planned)
    if planned.request.name and not re.fullmatch(r"[^/:.%\"']+", planned.request.name):
        raise UserError("is no name for the registry", "name", "take letters, digits, - and _")
    return planned if planned.opened <= memory.free() else replace(planned, warnings=[*planned.warnings, _unasked(planned)])


def _unasked(planned: Planned) -> str:
    size, dtype = planned.opened, load.dtype_of(planned.request.model_load.dtype)
    less = size // BYTES[dtype] * 2
    remedy = f"; model_load.dtype=bfloat16 needs {console.size(less)}" if less < size else ""
    then = f"no output will be asked, and no policy promotes it{remedy}"
    return f"the certificate opens a whole model, and {console.size(size)} are not free: {then}"


def _askable(planned: Planned) -> None:
    """See that the result can be scored, by what it is made of.

    Raises:
        UserError: rows are missing, or do not fit the metrics.
    """
    request = planned.request
    if not (request.dataset or request.benchmark):
        raise UserError("names no rows to score", "then.evaluate", "give dataset=REF, or benchmark=[gsm8k]")
    from mlops_llm.eval.plan import prepare

    prepare(request.evaluation(planned.sources[0].ref, str(planned.output.parent)))
