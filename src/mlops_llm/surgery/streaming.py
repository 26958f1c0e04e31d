"""Models in, one model out: one tensor of each in memory at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_llm import console, files
from mlops_llm.errors import RequestError
from mlops_llm.models.load import Dtype
from mlops_llm.models.tensors import Shape, ShardWriter, Tensors, by_layer, cast
from mlops_llm.surgery import companions
from mlops_llm.surgery.compatible import agree, is_of_vocabulary
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.merge.pieces import PIECE, pieces
from mlops_llm.surgery.method import NEW, Method, Target, Walk
from mlops_llm.surgery.planning import BESIDE, Check, Source, dtype_of, stored
from mlops_llm.surgery.vocabulary import Joined, Vocabulary, joined
from mlops_llm.surgery.weights import EMBEDDING, Weights, finite, opened

if TYPE_CHECKING:
    from torch import Tensor

LOG = "merge.log"
_FLOATS = ("F64", "F32", "F16", "BF16")
_AGAIN = 250_000_000
"""Bytes of a result that is merged a second time as a whole; of a larger one it is a tensor of each kind."""


@dataclass(frozen=True)
class Stream:
    """A merge that can be written."""

    method: Method
    request: Surgery
    sources: Sequence[Source]
    """The models, and the base as the last one where there is one."""
    has_base: bool
    weights: Sequence[Weights]
    shapes: Mapping[str, Shape]
    """Of the result."""
    dtype: Dtype
    joined: Joined | None
    warnings: Sequence[str]
    known: MutableMapping[tuple[str, str], Any] | None = None
    """What was found of the tensors, where they stay in memory and are merged again and again."""

    @property
    def bytes(self) -> int:
        """Of the result."""
        return sum(each.bytes for each in self.shapes.values()) + BESIDE

    @property
    def memory(self) -> int:
        """Most bytes at once: one tensor of each model, that of the result, and pieces in float32."""
        held = (sum(each.shapes[name].bytes for each in self.weights) + shape.bytes for name, shape in self.shapes.items())
        return max(held) + 4 * PIECE * (len(self.weights) + 3)

    @property
    def facts(self) -> dict[str, str]:
        """For the plan."""
        kinds = list(dict.fromkeys(stored(each.files).name for each in self.sources))
        tied = bool(self.weights[0].config.get("tie_word_embeddings"))
        return {
            "stored as": f"{', '.join(kinds)} -> {self.dtype.name}, arithmetic in float32",
            "vocabulary": f"{self.joined.size:,} rows, brought together" if self.joined else "the same in all",
            "output head": "tied to the embeddings" if tied else "its own",
        }

    def write(self, folder: Path) -> str:
        """Fill an empty folder.

        Raises:
            UserError: a model holds NaN or infinity, or a file ends too early.
        """
        first = self.sources[0].files
        if self.method.save_intermediate:
            for number, each in enumerate(self.sources, 1):
                if each.files.is_adapter:
                    whole(each, self.request, Path(self.request.folder or ".") / "intermediate" / f"model-{number}")
        with ExitStack() as stack:
            for one in self.weights:
                stack.callback(one.close)
            writer = ShardWriter(folder, self.shapes, self.request.shard_mb * 1_000_000)
            limits = self.method.limits(self._walk, len(self.sources) - self.has_base)
            log = stack.enter_context((folder / LOG).open("w", encoding="utf-8")) if self.method.save_log else None
            for name in watched(self.shapes, "merging"):
                tensors = self._read(name)
                merged = self._merged(name, tensors, limits)
                if log:
                    log.write(_line(name, merged, tensors, self.sources))
                writer.write(name, merged)
                del tensors, merged
            written = writer.close()
        companions.copy(first, folder, tokenizer=self.joined.tokenizer if self.joined else "")
        rows = next((each.shape[0] for name, each in self.shapes.items() if EMBEDDING.search(name)), None)
        companions.configure(self.weights[0].config, folder, self.dtype, **({"vocab_size": rows} if rows else {}))
        return written

    def into(self, targets: Mapping[str, Tensor]) -> None:
        """Merge into tensors that are there, of a model in memory; each gets the numbers that `write` would write.

        Args:
            targets: by name, those of the result at least, in any number format and wherever they lie.

        Raises:
            UserError: a model holds NaN or infinity, or a file ends too early.
        """
        import torch

        limits = self.method.limits(self._walk, len(self.sources) - self.has_base)
        wanted = getattr(torch, self.dtype.name)
        for name in self.shapes:
            target = targets[name]
            is_ready = target.dtype is wanted and target.device.type == "cpu" and target.is_contiguous()
            merged = self._merged(name, self._read(name), limits, target if is_ready else None)
            if merged is not target:
                target.copy_(merged)

    def again(self, folder: Path) -> list[Check]:
        """Tensors merged once more from the models as they lie there, beside those of the finished folder.

        All of a small model; of a larger one a tensor of each kind, for that takes a moment.
        """
        import torch

        names = [name for name, shape in self.shapes.items() if shape.dtype in _FLOATS]
        whole = self.bytes <= _AGAIN
        names = names if whole else _of_each_kind(names)
        with ExitStack() as stack:
            for one in self.weights:
                stack.callback(one.close)
            written = stack.enter_context(Tensors(folder))
            limits = self.method.limits(self._walk, len(self.sources) - self.has_base)
            other = next(
                (name for name in names if not torch.equal(self._merged(name, self._read(name), limits), written.read(name))),
                None,
            )
        said = f"{len(names)} tensors, {'all there are' if whole else 'one of each kind'}, are what the models give"
        return [Check("merged_again", other or len(names), other is None, f"{other} is not what they give" if other else said)]

    def _read(self, name: str) -> list[Tensor]:
        found = []
        for number, (source, each) in enumerate(zip(self.sources, self.weights, strict=True)):
            tensor = each.read(name)
            if not Target(name, known=self.known).once(f"finite {number}", partial(finite, tensor)):
                raise RequestError(f"tensor {name} holds NaN or infinity", source.ref, "take an earlier checkpoint")
            found.append(tensor)
        if self.joined and is_of_vocabulary(name):
            return self.joined.aligned(found)
        return found

    def _merged(
        self, name: str, tensors: Sequence[Tensor], limits: Sequence[float] | None, out: Tensor | None = None
    ) -> Tensor:
        import torch

        if self.shapes[name].dtype not in _FLOATS:
            return tensors[0]
        out = torch.empty(tensors[0].shape, dtype=getattr(torch, self.dtype.name)) if out is None else out
        base = tensors[-1] if self.has_base else None
        parts = tensors[:-1] if self.has_base else tensors
        return self.method.merge(parts, base, Target(name, self.request.seed, limits, out, self.known))

    def _walk(self) -> Iterator[tuple[Sequence[Tensor], Tensor]]:
        """Every tensor of the models, and that of the base, which is the last."""
        for name, shape in self.shapes.items():
            if shape.dtype in _FLOATS:
                *tensors, last = self._read(name)
                yield tensors, last


def whole(source: Source, request: Surgery, folder: Path) -> None:
    """Write the whole model that an adapter becomes on its base."""
    with files.whole_folder(folder) as draft:
        stream(Alone(), request, [source], None).write(draft)


class Alone:
    """The method that leaves a model as it is."""

    vocabulary, save_log, save_intermediate = Vocabulary.refuse, False, False

    def merge(self, tensors: Sequence[Tensor], base: Tensor | None = None, target: Target = NEW) -> Tensor:
        """The tensor in the wanted format."""
        (only,) = tensors
        return only if target.out is None else target.out.copy_(only)

    def limits(self, walk: Walk, count: int) -> Sequence[float] | None:
        """Nothing must be known."""
        return None


def watched(shapes: Mapping[str, Shape], what: str) -> Iterator[str]:
    """Each tensor's name, in order, with progress by layer in megabytes, of which the time left is reckoned."""
    layers = [list(names) for _, names in groupby(by_layer(list(shapes)), key=lambda each: each[1])]
    total, done = sum(each.bytes for each in shapes.values()), 0
    progress = console.Progress(what, _mega(total))
    try:
        for number, names in enumerate(layers, 1):
            for name, _ in names:
                yield name
                done += shapes[name].bytes
            progress.at(_mega(done), f"MB: {names[0][1]} done, {number} of {len(layers)}")
    finally:
        progress.close()


def _of_each_kind(names: Sequence[str]) -> list[str]:
    """One name of each kind, which is a name without its layer's number; each kind in another layer, as far as there are."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(re.sub(r"\.\d+\.", ".", name), []).append(name)
    return [several[place % len(several)] for place, several in enumerate(kinds.values())]


def _mega(count: int) -> int:
    return -(-count // 1_000_000)


def _line(name: str, merged: Tensor, tensors: Sequence[Tensor], sources: Sequence[Source]) -> str:
    """How far a tensor of the result is from that of each model, as a share of its length."""
    told = []
    for source, each in zip(sources, tensors, strict=True):
        away = length = 0.0
        for (one, other), _ in pieces([merged, each]):
            away, length = away + float((one - other).pow(2).sum()), length + float(other.pow(2).sum())
        told.append(f"{source.ref} {(away / length) ** 0.5 if length else 0.0:.3e}")
    return f"{name} {tuple(merged.shape)} {str(merged.dtype).removeprefix('torch.')}  away from: {', '.join(told)}\n"


def stream(method: Method, request: Surgery, parents: Sequence[Source], base: Source | None) -> Stream:
    """See that models fit each other and lay out the result.

    Raises:
        UserError: they do not.
    """
    sources = [*parents, *([base] if base else [])]
    weights = [opened(each.files, request.model_load, passing=True) for each in sources]
    rows = [_rows(each) for each in weights]
    told = joined(sources, rows, method.vocabulary) if all(rows) else None
    warnings = agree(sources, weights, rows_differ=told is not None)
    if method.save_intermediate and not any(each.files.is_adapter for each in sources):
        warnings.append("op.save_intermediate: no model is an adapter, so there is nothing between")
    warnings += _templates(sources)
    dtype = dtype_of(request, parents[0].files)
    shapes = {name: cast(each, dtype.name) for name, each in sorted(weights[0].shapes.items())}
    if told:
        sizes = {name: each for name, each in shapes.items() if is_of_vocabulary(name)}
        shapes |= {name: _with_rows(each, told.size) for name, each in sizes.items()}
    return Stream(method, request, sources, base is not None, weights, dict(sorted(shapes.items())), dtype, told, warnings)


def _templates(sources: Sequence[Source]) -> list[str]:
    """Of models with another chat template than the first."""
    found = [companions.template(each.files) for each in sources]
    other = next((each.ref for each, text in zip(sources, found, strict=True) if text != found[0]), None)
    return [f"chat templates differ: the result has that of {sources[0].ref}, not that of {other}"] if other else []


def _rows(weights: Weights) -> int:
    return next((each.shape[0] for name, each in weights.shapes.items() if EMBEDDING.search(name)), 0)


def _with_rows(shape: Shape, rows: int) -> Shape:
    return Shape(shape.dtype, (rows, *shape.shape[1:]), shape.bytes // shape.shape[0] * rows)
