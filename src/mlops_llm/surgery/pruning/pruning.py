"""A pruning from the request to the finished folder: what is looked at, chosen, written and checked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mlops_llm.component import name_of
from mlops_llm.errors import UserError
from mlops_llm.files import intended, read_object, write_text
from mlops_llm.models import load, template
from mlops_llm.models.load import Dtype, Task
from mlops_llm.models.ref import Place
from mlops_llm.record import Result
from mlops_llm.surgery import companions, execution, planning, weights
from mlops_llm.surgery.calibration import BUILT_IN, Calibrating, Calibration, drawn
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.measures import shipped
from mlops_llm.surgery.operation import Work
from mlops_llm.surgery.planning import BYTES, Check, Checks, Planned, Source
from mlops_llm.surgery.pruning import as_llama, writing
from mlops_llm.surgery.pruning.amount import Amount
from mlops_llm.surgery.pruning.cut import Cut, first, told
from mlops_llm.surgery.pruning.layout import Layout, layer_of, layout
from mlops_llm.surgery.pruning.masked import masked
from mlops_llm.surgery.pruning.met import seen_in_training
from mlops_llm.surgery.pruning.remembered import remembered
from mlops_llm.surgery.pruning.texts import TEXTS
from mlops_llm.surgery.restored import Restored
from mlops_llm.surgery.rounding import Same, compared
from mlops_llm.surgery.typed import setting
from mlops_llm.train.teacher import mark

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
STAYS = "pruning.json"
"""File in the new checkpoint that tells what stayed, by the old numbers."""
_PROBES, _PROBE_TOKENS = 4, 128
"""Held-out rows, and tokens of each, on which the result must answer as the masked model."""
_MOST_KL, _MOST_KL_ROUNDED = 1e-5, 2e-2
"""Most nats a token between masked model and result: where nothing is rounded, only the order of sums differs."""


@dataclass(frozen=True)
class Whole:
    """The model that is to be pruned."""

    source: Source
    weights: weights.Weights
    layout: Layout
    tokenizer: Any
    dtype: Dtype
    """In which it is loaded."""

    def once(self, what: str, rows: Calibration, find: Callable[[], T]) -> T:
        """What is found of the model over some rows, looked for once in a process."""
        return remembered((what, self.source.digest, rows.digest, self.dtype), find)

    def rows(self, how: Calibrating, request: Surgery) -> Calibration:
        """Rows by which units are judged, and others by which the model is measured.

        Raises:
            UserError: there are too few, or they are too short.
        """
        shapes = self.weights.shapes
        layers = {name: each for name, each in shapes.items() if layer_of(name) and len(each.shape) == 2}
        return drawn(how, request, self.tokenizer, layers, hold=True, texts=TEXTS)


def whole(request: Surgery) -> Whole:
    """Find the model and read its sizes and its tokenizer.

    Raises:
        UserError: there is none, it is no language model, or its layers are not known here.
    """
    source = planning.source(request.one, request)
    if source.files.task is not Task.language:
        raise UserError("is a reward model, and what pruning costs is told by a language model's text", source.ref, "take one")
    found = weights.opened(source.files, request.model_load)
    tokenizer = load.tokenizer_of(source.files)
    template.ensure(tokenizer, source.ref)
    dtype = load.dtype_of(request.model_load.dtype)
    return Whole(source, found, layout(found.config, found.shapes, source.ref), tokenizer, dtype)


@dataclass
class Pruning:
    """What goes of a model, how it is chosen, and what is found on the way."""

    request: Surgery
    operation: Any
    """The component that was asked for."""
    method: str
    of: Whole
    amount: Amount
    rows: Calibration
    choose: Callable[[Any], Cut]
    """What stays, told by the loaded model."""
    warnings: Sequence[str] = ()
    cut: Cut | None = None
    before: float = math.nan
    """Perplexity of the whole model on the rows held out."""
    wanted: list[Tensor] = field(default_factory=list)
    """Log-probabilities of the masked model on the first of them."""
    facts: dict[str, str] = field(default_factory=dict)
    """For a person: what is known before, and in the end what was found."""

    def work(self) -> Work | Result:
        """What is left to do, or the plan where only that is wanted.

        Raises:
            UserError: the plan does not hold.
        """
        return execution.work(self.planned(), dry_run=self.operation.dry_run)

    def planned(self) -> Planned:
        """The plan.

        Raises:
            UserError: the result cannot be written as a model that others load.
        """
        files, like = self.of.source.files, first(self.of.layout, self.amount)
        if writing.is_llama(like):
            as_llama.check(self.of.weights.config, self.of.source.ref)
        pieces = writing.pieces(like, self.of.weights.shapes, self._dtype())
        left = self.amount.parameters - self.amount.parameters_gone
        self.facts |= {
            "goes": str(self.amount),
            "parameters": f"{self.amount.parameters / 1e6:.2f} M -> {left / 1e6:.2f} M",
            "calibration": str(self.rows),
        }
        if writing.is_llama(like):
            self.facts["written as"] = "llama, the same model: engines tell the size of qwen2's heads from their number"
        return Planned(
            request=self._scored(),
            operation=name_of(self.operation),
            method=self.method,
            sources=(self.of.source,),
            bytes=sum(each.shape.bytes for each in pieces.values()),
            memory=files.whole.parameters * BYTES[self.of.dtype],
            lighter={"model_load.dtype=bfloat16": files.whole.parameters * BYTES[Dtype.bfloat16]},
            write=self.write,
            checks=Checks(numbers=self.again, more=self.checks),
            name="pruned",
            facts=self.facts,
            settings={"calibration.digest": self.rows.digest},
            inputs=self.rows.inputs,
            pins=self.rows.pins,
            warnings=self.warnings,
            next=self._healing(),
        )

    def write(self, folder: Path) -> str:
        """Look at the model, then write what stays.

        Raises:
            UserError: a tensor is not finite, or a file is cut off.
        """
        self._look()
        assert self.cut
        companions.copy(self.of.source.files, folder)
        write_text(folder / STAYS, json.dumps({"operation": name_of(self.operation), **self.cut.told()}))
        made = writing.written(self.of.weights, self.cut, folder, self.request.shard_mb * 10**6, self._dtype())
        self.of.weights.close()
        companions.configure(
            writing.config_of(self.cut, self.of.weights.config), folder, planning.dtype_of(self.request, self.of.source.files)
        )
        return made

    def _look(self) -> None:
        """Choose what stays, and note what the whole and the masked model say."""
        model = self._loaded(self.of.source.files)
        self.before = self.of.once("perplexity", self.rows, lambda: _perplexity(model, self.rows))
        self.cut = self.cut or self.choose(model)
        with masked(model, self.cut):
            self.wanted = _said(model, self.rows)

    def again(self, folder: Path) -> list[Check]:
        """That what lies in the finished folder is what the cut leaves of the model, tensor by tensor."""
        cut = told(self.of.layout, self.amount.unit, read_object(folder / STAYS))
        pieces = writing.pieces(cut, self.of.weights.shapes, self._dtype())
        found = Restored(folder)

        def read(name: str) -> tuple[Tensor, Tensor]:
            return writing.made(self.of.weights, cut, pieces[name]), found.read(name)

        try:
            return [compared(pieces, read, lambda name: Same())]
        finally:
            found.close()
            self.of.weights.close()

    def checks(self, folder: Path) -> list[Check]:
        """That the result answers as the whole model does without what went, and what it lost."""
        if not self.wanted:  # the folder was written by a process that is gone
            self.cut = told(self.of.layout, self.amount.unit, read_object(folder / STAYS))
            self._look()
        try:
            model = self._loaded(load.inspect(Place(str(intended(folder)), folder), self.request.model_load))
        except UserError as error:
            return [Check("loads", error.what, False, str(error))]
        far = max(_divergence(one, two) for one, two in zip(self.wanted, _said(model, self.rows), strict=True))
        limit = self._limit()
        after = _perplexity(model, self.rows)
        ships = self.rows.name == BUILT_IN
        of = shipped(self.before, "texts", "op.calibration=REF") if ships else f"rows of {self.rows.name}"
        held = f"{len(self.rows.held)} {of}"
        met = seen_in_training(self.of.source, self.rows.asked)
        self.facts["perplexity"] = f"{self.before:.4g} -> {after:.4g} on {held} ({met.said})"
        said = f"{far:.2g} nats a token from the source without what went (limit {limit:g})"
        return [
            Check("masked_kl", far, far <= limit, said),
            Check("perplexity_before", self.before, None, f"{self.before:.4g} on {held}"),
            Check("perplexity_after", after, None, f"{after:.4g} on the same rows"),
            Check("seen_in_training", met.said if met.share is None else met.share, None, met.said),
        ]

    def _loaded(self, files: load.Files) -> Any:
        import torch

        model = load.model(files, self.request.model_load, merge=True).eval()
        return model.to("cuda" if torch.cuda.is_available() else "cpu")

    def _limit(self) -> float:
        same = self.request.dtype in (Dtype.auto, planning.stored(self.of.source.files))
        exact = same and self.of.dtype is Dtype.float32
        return _MOST_KL if exact else _MOST_KL_ROUNDED

    def _dtype(self) -> str | None:
        """The number format that is asked for; None leaves each tensor its own."""
        return None if self.request.dtype is Dtype.auto else self.request.dtype.name

    def _scored(self) -> Surgery:
        """The request; where rows are named, source and result are scored on them."""
        if self.request.dataset or self.request.benchmark:
            self.request.then.evaluate = True
        return self.request

    def _healing(self) -> list[str]:
        """Commands that train back what was lost."""
        train = f"python -m mlops_llm.train {setting('dataset', self.operation.calibration or 'DATASET')} model={{ref}}"
        return [f"{train} algo=distill {setting('algo.teacher', self.of.source.stable)}", train]


def _perplexity(model: Any, rows: Calibration) -> float:
    loss = mark(model, rows.held).loss
    return math.exp(loss) if loss < 700 else math.inf


def _said(model: Any, rows: Calibration) -> list[Tensor]:
    """Log-probabilities on the first rows held out, each (tokens, vocabulary) in float32."""
    import torch

    device, found = next(model.parameters()).device, []
    with torch.no_grad():
        for one in rows.held[:_PROBES]:
            ids = torch.tensor([one.ids[:_PROBE_TOKENS]], device=device)
            found.append(torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0].float(), -1).cpu())
    return found


def _divergence(wanted: Tensor, found: Tensor) -> float:
    """Mean KL(wanted || found) of a token, in nats; infinite where it is no number."""
    value = float((wanted.exp() * (wanted - found)).sum(-1).mean())
    return value if math.isfinite(value) else math.inf


def warned(rows: Calibration, task: str) -> list[str]:
    """What a person should know of the rows."""
    if rows.name != BUILT_IN:
        return []
    return [f"{task} by {BUILT_IN}: rows of what the model is for choose better (op.calibration=REF)"]
