"""Rows on which a method of quantization sees what numbers come into each layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from mlops_llm.errors import UserError
from mlops_llm.models import load, template
from mlops_llm.models.tensors import Shape
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.planning import Source
from mlops_llm.surgery.quantizing import Quantizing


@dataclass(frozen=True)
class Calibration:
    """Token ids of rows."""

    ref: str
    rows: list[list[int]]
    digest: str
    """Of the rows' tokens, for the recipe."""

    @property
    def said(self) -> str:
        """For a person."""
        return f"{len(self.rows)} rows of {self.ref}, {sum(map(len, self.rows)):,} tokens"


@dataclass
class Calibrated(Quantizing):
    """What methods share that see rows: which they are, and the Python in which the method lives."""

    calibration: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Rows to calibrate on, like those that the model will meet: the name of a dataset, NAME@LABEL, or a path."""
    samples: int = 100
    """How many rows, drawn by the seed."""
    max_tokens: int = 512
    """Longer rows are cut there."""
    python: Optional[str] = None  # noqa: UP045
    """Python of an environment with the method's packages, which do not live beside vLLM's; null is this one."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        for name, least in (("samples", 1), ("max_tokens", 8)):
            if getattr(self, name) < least:
                raise UserError(f"is {getattr(self, name)}", f"op.{name}", f"give a whole number from {least}")

    def rows(self, request: Surgery, parent: Source, layers: Mapping[str, Shape]) -> Calibration:
        """The rows as the model sees them: a conversation in its chat template, with its answer where there is one.

        A layer's error is corrected along the numbers that came into it; as many tokens as the widest layer has columns are
        the fewest that tell all of its columns apart (GPTQ; Frantar et al. 2023, arXiv:2210.17323, section 3: H = 2 X X^T).

        Raises:
            UserError: none are named, there are too few of them, or they are too short.
        """
        from mlops_llm import digest
        from mlops_llm.data.kinds import Kind, infer
        from mlops_llm.data.ref import open_dataset
        from mlops_llm.data.split import drawn_order
        from mlops_llm.eval.questions import question
        from mlops_llm.eval.rendering import answered, prompted

        if not self.calibration:
            remedy = "name rows like those that the model will meet: op.calibration=REF op.samples=100"
            raise UserError("names no rows", "op.calibration", remedy)
        source = open_dataset(self.calibration, request.read)
        if len(source.rows) < self.samples:
            what = f"has {len(source.rows)} rows, and {self.samples} are wanted"
            raise UserError(what, self.calibration, f"op.samples={len(source.rows)}, or name more rows")
        tokenizer = load.tokenizer_of(parent.files)
        template.ensure(tokenizer, parent.ref)
        found = []
        for place in sorted(drawn_order(source.rows, request.seed)[: self.samples]):
            where = source.where(place)
            one = question(source.rows[place], request.kind or infer(source.rows[place]) or Kind.eval, where)
            if one.references:
                ids = answered(tokenizer, one, one.references[0])[0]
            else:
                ids = tokenizer(prompted(tokenizer, one, where), add_special_tokens=False).input_ids
            found.append(list(ids[: self.max_tokens]))
        name = max(layers, key=lambda each: layers[each].shape[-1])
        columns, tokens = layers[name].shape[-1], sum(map(len, found))
        if tokens < columns:
            what = f"{len(found)} rows have {tokens} tokens together, fewer than {name.removesuffix('.weight')} has columns"
            raise UserError(f"{what} ({columns})", self.calibration, "give more or longer rows: op.samples=, op.max_tokens=")
        return Calibration(self.calibration, found, digest.seen((ids, ids) for ids in found))
