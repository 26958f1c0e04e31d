"""`op=merge_lora`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from mlops_llm.component import component, name_of
from mlops_llm.errors import UserError
from mlops_llm.models import adapter, load
from mlops_llm.models.load import Dtype
from mlops_llm.models.ref import Place, resolve
from mlops_llm.record import Result
from mlops_llm.surgery import exporting
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.execution import work
from mlops_llm.surgery.gguf import Type
from mlops_llm.surgery.merging import next_steps
from mlops_llm.surgery.operation import Work
from mlops_llm.surgery.planning import Checks, Planned, Source, dtype_of, source
from mlops_llm.surgery.streaming import Alone, stream

_MOST_KL = {Dtype.float32: 1e-5}
_LEAST_AGREEMENT = {Dtype.float32: 0.99}
"""What rounding may do: in sixteen bits a change that is small beside its weight is partly lost."""


class Format(Enum):
    """Form of the whole model."""

    hf = "hf"
    """A folder as save_pretrained writes it, weights in files of at most shard_mb."""
    safetensors = "safetensors"
    """The same with all weights in one file."""
    gguf = "gguf"
    """One file for llama.cpp, in float16; dtype=float32 writes that."""


@component("op", "merge_lora")
@dataclass
class MergeLora:
    """Make an adapter part of its base (Hu et al. 2021, arXiv:2106.09685): W + scaling * B A, tensor by tensor."""

    format: Format = Format.hf
    """hf splits large weights into files, safetensors writes one, gguf is for llama.cpp (op=export_gguf writes more types)."""
    note: str = ""
    """What the adapter is, for a person; kept in the recipe."""
    dry_run: bool = False
    """Show the plan and do nothing."""

    def prepare(self, request: Surgery) -> Work | Result:
        """Plan the merge of an adapter into its base."""
        return work(self.plan(request), dry_run=self.dry_run)

    def plan(self, request: Surgery) -> Planned:
        """See that the adapter lies on this base.

        Raises:
            UserError: the model is no adapter, or was trained on another base.
        """
        one = self._adapter(request)
        assert one.files.base
        under = Source(one.files.base.place.ref, one.files.base, "base")
        if self.format is Format.gguf:
            return exporting.planned(request, one, Type.f32 if request.dtype is Dtype.float32 else Type.f16, under=under)
        asked = replace(request, shard_mb=10**9) if self.format is Format.safetensors else request
        found = stream(Alone(), asked, [one], None)
        dtype = dtype_of(request, one.files)
        limits = _MOST_KL.get(dtype, 1e-2), _LEAST_AGREEMENT.get(dtype, 0.9)
        return Planned(
            request,
            name_of(self),
            "adapter merged into its base",
            (one, under),
            found.bytes,
            found.memory,
            found.write,
            Checks(like=one, most_kl=limits[0], least_agreement=limits[1], changed_from=under, numbers=found.again),
            task=one.files.task,
            facts=found.facts,
            warnings=found.warnings,
            next=next_steps(request, [one])[1:],
        )

    def _adapter(self, request: Surgery) -> Source:
        place = resolve(request.one)
        if not (place.folder / adapter.CONFIG).is_file():
            raise UserError("is a whole model, no adapter", place.ref, "there is nothing to merge")
        if not request.base:
            return source(request.one, request, note=self.note)
        return Source(request.one, _onto(place, request.base, request), note=self.note)


def _onto(place: Place, base: str, request: Surgery) -> load.Files:
    """An adapter on a base that a person names."""
    under = source(base, request).files
    try:
        return load.onto(place, under, request.model_load)
    except UserError as error:
        if "has other weights" not in error.what:
            raise
        told = adapter.read_origin(place.folder)
        what = (
            f"the adapter was trained on {told.get('base')} (digest {str(told.get('base.digest'))[:12]}…), not on these weights"
        )
        raise UserError(what, base, f"give base={told.get('base')}, or leave base out") from error
