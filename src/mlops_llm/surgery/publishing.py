"""A new checkpoint enters the record, with what it was made of, how, and what was checked."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from mlops_llm import console, files
from mlops_llm.errors import UserError
from mlops_llm.models import code, digested, load, template
from mlops_llm.models.ref import Place
from mlops_llm.record import Checkpoint, Grid, Registration, Result, Run
from mlops_llm.surgery.certificate import NAME, Certificate
from mlops_llm.surgery.planning import Planned, Source
from mlops_llm.surgery.scoring import scored


@dataclass(frozen=True)
class Made:
    """A finished folder."""

    folder: Path
    recipe: Mapping[str, Any]
    certificate: Certificate


def inputs(planned: Planned, run: Run) -> None:
    """Name what the new checkpoint is made of, and by which rows; every weight is read once for its digest.

    Raises:
        UserError: weights are not those that the record says.
    """
    for each in planned.sources:
        run.uses(used(each))
    for rows in planned.inputs:
        run.input(rows)
    run.tags(
        {
            "operation": planned.operation,
            "method": planned.method,
            "parents": json.dumps([each.stable for each in planned.sources]),
        }
    )


def used(source: Source) -> Checkpoint:
    """A source as the record names it."""
    return digested.as_recorded(source.files.place)


def publish(planned: Planned, made: Made, run: Run, seconds: float) -> Result:
    """Record the checkpoint, score it where that is wanted, and say how it went."""
    found = made.certificate
    checkpoint = Checkpoint(planned.name, 0, made.folder, _tags(planned, made))
    numbers = {each.key: each.value for each in found.checks if isinstance(each.value, int | float)}
    run.metrics({name: float(value) for name, value in numbers.items()}, 0, checkpoint)
    run.metrics({"perf/seconds": seconds, "model/bytes": float(checkpoint.tags["bytes"])}, 0)
    run.artifact("recipe.json", made.folder / "recipe.json")
    run.artifact(NAME, made.folder / NAME)
    run.checkpoint(checkpoint, {"operation": planned.operation, "method": planned.method, "step": 0})
    run.tags({"certificate": found.verdict, "digest.weights": checkpoint.tags["digest.weights"]})
    ref = f"runs:/{run.name}/{planned.name}"
    grids: list[Grid | str] = [planned.grid, found.grid]
    result = _result(planned, made, ref, grids, seconds)
    if not planned.request.then.evaluate or found.failures:
        return result
    grid, ended = scored(planned, ref, run)
    return replace(
        result,
        shown=[*grids, grid],
        values={**result.values, "scores": ended.values["scores"]},
        score=ended.score,
        higher_is_better=ended.higher_is_better,
        score_name=ended.score_name,
    )


def _tags(planned: Planned, made: Made) -> dict[str, str]:
    from mlops_llm.tracking.deliver import published_bytes

    tags = {
        "task": planned.task.name,
        "operation": planned.operation,
        "method": planned.method,
        "parents": json.dumps([each.stable for each in planned.sources]),
        "certificate": made.certificate.verdict,
        "digest.weights": str(made.recipe["digest.weights"]),
        "bytes": str(published_bytes(made.folder)),
    }
    own = next((each.files.code for each in planned.sources if each.files.code), "")
    if own:
        tags[code.TAG] = own
    try:
        tags["digest.template"] = template.template_digest(load.tokenizer(Place(str(made.folder), made.folder)))
    except UserError:  # a form without a tokenizer of its own, such as an adapter
        tags["digest.template"] = template.template_digest(load.tokenizer_of(planned.sources[0].files))
    return tags


def _result(planned: Planned, made: Made, ref: str, grids: list[Grid | str], seconds: float) -> Result:
    found, request = made.certificate, planned.request
    weights = str(made.recipe["digest.weights"])
    registered = None if found.failures else request.name
    why = f"{planned.method} of {', '.join(each.ref for each in planned.sources if each.role == 'parent')}"
    table = {
        "model": ref,
        "folder": str(made.folder),
        "size": console.size(files.size(made.folder)),
        "parameters": f"{_parameters(made.folder):,}" if _parameters(made.folder) else None,
        "method": planned.method,
        "sources": ", ".join(_said(each) for each in planned.sources),
        **planned.facts,
        "time": console.seconds(seconds),
        "certificate": found.said,
        "registered": f"{registered} (alias challenger)" if registered else None,
        "weights digest": weights[:16],
        **{
            f"next {number}": each.replace("{ref}", ref).replace("{output}", shlex.quote(str(made.folder)))
            for number, each in enumerate(planned.next, 1)
        },
    }
    return Result(
        f"{planned.operation}: {'the certificate failed' if found.failures else 'done'}",
        {name: value for name, value in table.items() if value is not None},
        {
            "ref": ref,
            "digest.weights": weights,
            "certificate.verdict": found.verdict,
            "output": str(made.folder),
            "rebuild": made.recipe["rebuild"],
        },
        grids,
        failed=bool(found.failures),
        best=Registration(planned.name, registered, "challenger", why) if registered else None,
    )


def _parameters(folder: Path) -> int:
    """Numbers of the new model, in however few bits they are stored."""
    from mlops_llm.models import packed
    from mlops_llm.models.tensors import Tensors

    if one := packed.gguf_file(folder):
        return sum(prod(each.shape) for each in packed.gguf_tensors(one))
    file = folder / "config.json"
    shapes = {name: each.shape for name, each in Tensors(folder).shapes.items()}
    return packed.parameters(files.read_object(file) if file.is_file() else {}, shapes)


def _said(source: Source) -> str:
    weight = f" x {source.weight:g}" if source.weight is not None else ""
    role = f" ({source.role})" if source.role != "parent" else ""
    return f"{source.ref}{weight}{role}" + (f" [{source.note}]" if source.note else "")
