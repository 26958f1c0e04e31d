"""`recipe.json`: what a checkpoint was made of and how, enough to make it again with the same digest."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from json import dumps
from typing import Any

from mlops_llm.component import plain
from mlops_llm.data.read import Read
from mlops_llm.models.load import ModelLoad, dtype_of
from mlops_llm.models.ref import pinned
from mlops_llm.record import DatasetInput
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.planning import Planned, Source
from mlops_llm.surgery.typed import word
from mlops_llm.tracking.origin import RECIPE

NAME = RECIPE
_PASSING = ("dry_run", "save_log", "save_intermediate")
"""Settings of operations that change nothing of the result."""


def recipe(planned: Planned, weights: str) -> dict[str, Any]:
    """The recipe of a finished checkpoint.

    Args:
        planned: what was done.
        weights: digest of the weights.
    """
    request = planned.request
    return {
        "operation": planned.operation,
        "method": planned.method,
        "settings": plain(request.op)["settings"],
        **({"more": dict(planned.settings)} if planned.settings else {}),
        **_shared(request),
        "sources": [_source(each) for each in planned.sources],
        **({"rows": [_rows(each) for each in planned.inputs]} if planned.inputs else {}),
        **({"pins": dict(planned.pins)} if planned.pins else {}),
        "digest.weights": weights,
        "rebuild": _rebuild(planned),
        "run": request.run_name,
        "versions": {name: version(name) for name in ("mlops-llm", "torch", "transformers", "safetensors")},
    }


def _shared(request: Surgery) -> dict[str, Any]:
    """Settings of the stage on which weights may depend; `auto` is told as what it was on this machine."""
    load = dataclasses.replace(request.model_load, dtype=dtype_of(request.model_load.dtype))
    return {
        "dtype": request.dtype.name,
        "seed": request.seed,
        "shard_mb": request.shard_mb,
        **({"kind": request.kind.name} if request.kind else {}),
        **({"read": _changed(request.read, Read())} if request.read != Read() else {}),
        "model_load": _changed(load, ModelLoad()),
    }


def _changed(settings: Any, usual: Any) -> dict[str, Any]:
    known = plain(usual)
    return {name: value for name, value in plain(settings).items() if value != known[name]}


def _source(each: Source) -> dict[str, Any]:
    return {
        "ref": each.stable,
        "named": each.ref,
        "role": each.role,
        "digest": each.digest,
        **({"weight": each.weight} if each.weight is not None else {}),
        **({"note": each.note} if each.note else {}),
    }


def _rows(each: DatasetInput) -> dict[str, Any]:
    return {
        "dataset": each.name,
        "version": each.version,
        "source": each.source,
        "rows": each.rows,
        "digests": dict(each.digests),
    }


def text(told: Mapping[str, Any]) -> str:
    """A recipe as JSON."""
    return dumps(told, indent=2, ensure_ascii=False, default=str) + "\n"


def command(told: Mapping[str, Any], output: str) -> str:
    """The command that makes a checkpoint again.

    Args:
        told: a recipe.
        output: the folder where it goes.
    """
    return f"{told['rebuild']} {shlex.quote(f'output={word(output)}')}"


def _rebuild(planned: Planned) -> str:
    """The command, but for the folder: every model by a ref with its digest, rows by theirs."""
    request, takes = planned.request, {each.name for each in dataclasses.fields(planned.request.op)}
    settings = {**plain(request.op)["settings"], **planned.pins}
    usual = {each.name: plain(_usual(each)) for each in dataclasses.fields(request.op)}
    parents = [_lasting(each) for each in planned.sources if each.role == "parent"]
    bases = [_lasting(each) for each in planned.sources if each.role == "base"]
    named = {"models": parents} if request.models or request.run else {"model": parents[0]}
    own = {
        f"op.{name}": value
        for name, value in settings.items()
        if name in takes and name not in _PASSING and not (value in (None, "", []) and value == usual[name])
    }
    shared = {name: value for name, value in _shared(request).items() if name != "shard_mb" or value != Surgery.shard_mb}
    words = {
        "op": planned.operation,
        **named,
        **({"base": bases[0]} if bases and _takes_base(planned) else {}),
        **own,
        **dict(_flat(shared)),
    }
    return shlex.join(["python", "-m", "mlops_llm.surgery", *(f"{name}={word(value)}" for name, value in words.items())])


def _takes_base(planned: Planned) -> bool:
    """Whether the operation is told what its models lie on; others find what an adapter lies on by themselves."""
    return bool(planned.request.base) or planned.operation.startswith("merge_")


def _usual(each: dataclasses.Field[Any]) -> Any:
    return each.default_factory() if each.default_factory is not dataclasses.MISSING else each.default


def _lasting(each: Source) -> str:
    return pinned(each.stable, each.digest.partition(" on ")[0])


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and before == "":
            yield from _flat(value, f"{name}.")
        else:
            yield f"{before}{name}", value
