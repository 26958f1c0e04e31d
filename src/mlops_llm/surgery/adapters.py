"""Adapters on one base, added up as an adapter: the sum of low-rank changes is a change of the sum of their ranks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_llm.component import name_of
from mlops_llm.errors import RequestError, UserError
from mlops_llm.models import adapter, digested
from mlops_llm.models.tensors import Shape, ShardWriter, Tensors
from mlops_llm.surgery import companions
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.merging import Merging, base, parents, planned
from mlops_llm.surgery.planning import BESIDE, Check, Checks, Planned, Source
from mlops_llm.surgery.rounding import Same, compared
from mlops_llm.surgery.streaming import watched
from mlops_llm.surgery.typed import setting
from mlops_llm.surgery.weights import Factors, factors, finite

if TYPE_CHECKING:
    from torch import Tensor

_CONFIG = ("peft_type", "task_type", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode", "peft_version")
"""Settings that the new adapter has from the first."""


@dataclass
class Additive(Merging):
    """Settings of merges that add changes up, so that adapters can stay adapters."""

    keep_adapter: bool = field(default=False, kw_only=True)
    """Where all models are adapters on one base: the result is an adapter on it, of the sum of their ranks."""

    def plan(self, request: Surgery) -> Planned:
        """See that the models can be merged.

        Raises:
            UserError: they cannot; one line says why.
        """
        return self.planned(request, parents(self, request))

    def planned(self, request: Surgery, sources: Sequence[Source]) -> Planned:
        """The plan for models that are found."""
        if self.keep_adapter:
            return joined(self, request, sources)
        return planned(self, request, sources, base(self, request))


def joined(method: Merging, request: Surgery, sources: Sequence[Source]) -> Planned:
    """The plan of an adapter that adds up several.

    Raises:
        UserError: they are no plain low-rank adapters, or lie on different bases.
    """
    found = [_factors(each) for each in sources]
    under = sources[0].files.base
    assert under
    wanted = digested.weights_digest(under.place)
    for each in sources[1:]:
        if each.files.base is None or digested.weights_digest(each.files.base.place) != wanted:
            what = f"{sources[0].ref} and {each.ref} lie on different bases"
            raise UserError(what, "op.keep_adapter", "leave it out: each is merged into its base first")
    shapes = _shapes(found)
    size = sum(each.bytes for each in shapes.values())
    rows = setting("dataset", request.dataset or "REF")
    return Planned(
        request,
        name_of(request.op),
        f"{method.said(len(sources))}, as an adapter",
        (*sources, Source(under.place.ref, under, "base")),
        size + BESIDE,
        2 * max(each.bytes for each in shapes.values()),
        lambda folder: _write(folder, request, sources, found, shapes),
        Checks(numbers=partial(_again, sources, found, shapes)),
        task=sources[0].files.task,
        facts={"rank": " + ".join(str(each.files.adapter_config.get("r")) for each in sources)},
        next=[f"python -m mlops_llm.surgery op=merge_lora model={{ref}} {rows} then.evaluate=true"],
    )


def _factors(source: Source) -> Factors:
    found = factors(source.files) if source.files.is_adapter else None
    if found is None or found.replaced or found.embeds:
        what = f"{source.ref} is {'an adapter with more than low-rank changes' if source.files.is_adapter else 'no adapter'}"
        raise UserError(what, "op.keep_adapter", "leave it out: each is merged into its base first")
    return found


def _ranks(found: Sequence[Factors]) -> dict[str, int]:
    """Module -> rank of the sum."""
    modules = sorted({module for each in found for module in each.modules})
    return {module: sum(each.rank(module) for each in found) for module in modules}


def _keys(module: str) -> tuple[str, str]:
    return f"base_model.model.{module}.lora_A.weight", f"base_model.model.{module}.lora_B.weight"


def _shapes(found: Sequence[Factors]) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for module, rank in _ranks(found).items():
        wide, tall = next(each.sizes(module) for each in found if module in each.modules)
        for key, shape in zip(_keys(module), ((rank, wide), (tall, rank)), strict=True):
            shapes[key] = Shape("F32", shape, 4 * shape[0] * shape[1])
    return shapes


def _part(key: str, sources: Sequence[Source], found: Sequence[Factors]) -> Tensor:
    """A factor of the sum: those of all side by side, the scaling and the weight of each in its B."""
    import torch

    module, which = key.removeprefix("base_model.model.").rsplit(".lora_", 1)
    is_a = which.startswith("A")
    parts: list[Tensor] = []
    for source, each in zip(sources, found, strict=True):
        if module not in each.modules:
            continue
        a, b = each.read(module)
        if not (finite(a) and finite(b)):
            raise RequestError(f"tensor {key} holds NaN or infinity", source.ref, "take an earlier checkpoint")
        parts.append(a if is_a else b * (each.scaling(module, a.shape[0]) * float(source.weight or 0.0)))
    return torch.cat(parts, dim=0 if is_a else 1)


def _again(sources: Sequence[Source], found: Sequence[Factors], shapes: Mapping[str, Shape], folder: Path) -> list[Check]:
    """All factors added up once more, beside those of the finished folder."""
    with Tensors(folder) as written:
        check = compared(shapes, lambda key: (_part(key, sources, found), written.read(key)), lambda key: Same())
    return [replace(check, name="merged_again")]


def _write(
    folder: Path, request: Surgery, sources: Sequence[Source], found: Sequence[Factors], shapes: Mapping[str, Shape]
) -> str:
    writer = ShardWriter(folder, shapes, 10**15, "adapter_model")
    for key in watched(dict(sorted(shapes.items())), "joining"):
        writer.write(key, _part(key, sources, found))
    written = writer.close()
    companions.copy(sources[0].files, folder)
    (folder / adapter.CONFIG).write_text(json.dumps(_config(sources, _ranks(found)), indent=2) + "\n", encoding="utf-8")
    assert sources[0].files.base
    adapter.write_origin(folder, sources[0].files.base)
    return written


def _config(sources: Sequence[Source], ranks: Mapping[str, int]) -> dict[str, Any]:
    """adapter_config.json of the sum: alpha equals the rank of each module, so that its factors count as they are."""
    first, usual = sources[0].files.adapter_config, max(ranks.values())
    odd = {module: rank for module, rank in ranks.items() if rank != usual}
    return {
        **{name: first[name] for name in _CONFIG if name in first},
        "r": usual,
        "lora_alpha": usual,
        "lora_dropout": 0.0,
        "target_modules": sorted(ranks),
        "rank_pattern": odd,
        "alpha_pattern": odd,
        "use_rslora": False,
    }
