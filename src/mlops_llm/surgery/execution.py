"""Carrying a plan out: write, certify, publish."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

from mlops_llm import console, files
from mlops_llm.errors import UserError
from mlops_llm.record import NullRun, Result, Run
from mlops_llm.surgery import publishing, recipe
from mlops_llm.surgery.certificate import NAME, Certificate, certify, weights_of
from mlops_llm.surgery.living import only_while_this_lives
from mlops_llm.surgery.operation import Work
from mlops_llm.surgery.planning import Planned, checked


def work(planned: Planned, *, dry_run: bool = False) -> Work | Result:
    """What an operation's `prepare` returns: the plan to be carried out, or only shown.

    Raises:
        UserError: there is no room for the result, or its folder exists.
    """
    plan = planned if _is_there(planned) else checked(planned)
    if unread := _unread(plan):
        plan = replace(plan, warnings=[*plan.warnings, unread])
    return shown(plan) if dry_run else lambda run: carry_out(plan, run)


def _unread(planned: Planned) -> str:
    """What is told of settings that were given and that only scoring reads, where nothing is scored."""
    request = planned.request
    given = [name for name in ("dataset", "metric", "judge", "benchmark") if getattr(request, name)]
    unread = [name for name in given if name not in planned.reads]
    if request.then.evaluate or not unread:
        return ""
    rows = "" if request.dataset or request.benchmark else "dataset=REF "
    return f"{', '.join(unread)}: nothing is scored without {rows}then.evaluate=true"


def shown(planned: Planned) -> Result:
    """A plan as a person reads it; nothing is done."""
    for each in planned.warnings:
        console.warn(each)
    return Result(f"plan of {planned.operation}", planned.lines, {}, [planned.grid])


def carry_out(planned: Planned, run: Run | None = None) -> Result:
    """Make the new checkpoint: it appears whole, with recipe and certificate, or not at all.

    Raises:
        UserError: a source is broken, or the disk fills up; nothing is left behind.
    """
    run = run or NullRun()
    began = time.perf_counter()
    for name, value in planned.lines.items():
        console.detail(f"{name}: {value}")
    for each in planned.warnings:
        console.warn(each)
    publishing.inputs(planned, run)
    done = made(planned)
    return publishing.publish(planned, done, run, time.perf_counter() - began)


def _is_there(planned: Planned) -> bool:
    """Whether a run that goes on had written its checkpoint already."""
    file = planned.output / recipe.NAME
    return bool(planned.request.resume) and file.is_file() and files.read_object(file).get("run") == planned.request.run_name


def made(planned: Planned) -> publishing.Made:
    """The finished folder: written, certified, with its recipe, under its own name.

    Raises:
        UserError: see `carry_out`.
    """
    output = planned.output
    if _is_there(planned):
        told = files.read_object(output / recipe.NAME)
        return publishing.Made(output, told, certify(planned, output, told["digest.weights"]))
    files.clear_drafts(output)
    try:
        with files.whole_folder(output) as draft:
            written = planned.write(draft) or weights_of(draft)
            told = recipe.recipe(planned, written)
            with only_while_this_lives(draft):
                found = _certified(planned, draft, written)
                files.write_text(draft / recipe.NAME, recipe.text(told))
                files.write_text(draft / NAME, found.text)
    except Exception as error:
        if not files.is_disk_full(error) or isinstance(error, UserError):
            raise
        raise UserError(
            "the disk filled up while the new weights were written; nothing is left of them",
            str(output.parent),
            "free some disk",
        ) from error
    return publishing.Made(output, json.loads(recipe.text(told)), found)


def _certified(planned: Planned, draft: Path, written: str) -> Certificate:
    console.detail("checking the result")
    return certify(planned, draft, written)
