"""A distillation, as the training that it is: a command in a process of its own."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.models import load
from mlops_llm.record import Result, Run
from mlops_llm.surgery import planning, publishing
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.planning import Source
from mlops_llm.tracking import ledger

_STAGE = "mlops_llm.train"
_OWN = ("model", "dataset", "algo", "algo.teacher", "algo.temperature", "seed", "project", "run_name", "output", "register_as")
"""Settings of the training that are told by the request."""


@dataclass(frozen=True)
class Distillation:
    """Who teaches whom, and by what command."""

    request: Surgery
    teacher: Source
    student: Source
    words: tuple[str, ...]
    """Of the training, without its run's name."""


def distillation(request: Surgery, temperature: float, settings: Any) -> Distillation:
    """Check a distillation.

    Args:
        request: with two models, teacher and student, and the rows to learn.
        temperature: by which both distributions are softened.
        settings: more of the training's.

    Raises:
        UserError: there are not two models, no rows, or the models' vocabularies differ.
    """
    from mlops_llm.train import teacher as teaching

    if len(request.models) != 2 or request.model:
        raise UserError(f"names {len(request.models)} models", "models", "give two: models=[TEACHER,STUDENT]")
    if not request.dataset:
        raise UserError("names no rows to learn", "dataset", "give dataset=REF")
    named = zip(request.models, ("teacher", "parent"), strict=True)
    teacher, student = (planning.source(ref, request, role) for ref, role in named)
    teaching.inspect(teacher.ref, load.tokenizer_of(student.files))
    told = {
        "model": student.ref,
        "dataset": request.dataset,
        "algo": "distill",
        "algo.teacher": teacher.ref,
        "algo.temperature": temperature,
        "seed": request.seed,
        "project": request.project or _project(student, teacher),
        "output": request.output,
        "register_as": request.name,
        **_more(settings),
    }
    words = tuple(f"{key}={_word(value)}" for key, value in told.items() if value is not None)
    _check(words)
    return Distillation(request, teacher, student, words)


def _project(*sources: Source) -> str | None:
    """The project of the run that made one of the models."""
    from mlops_llm.tracking.store import connect

    run = next((each.files.place.run for each in sources if each.files.place.run), "")
    return ledger.find_run(connect(), run).project if run else None


def _check(words: Sequence[str]) -> None:
    """See that the training takes these settings.

    Raises:
        UserError: it says what it does not take.
    """
    done = subprocess.run([sys.executable, "-m", _STAGE, *words, "--cfg", "job"], capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line.partition("error: ")[2] for line in done.stderr.splitlines() if line.startswith("error: ")]
        raise UserError(said[-1] if said else "the training does not take them", "op.settings", "see mlops_llm.train --help")


def _more(settings: Any) -> dict[str, Any]:
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        raise UserError("is no mapping", "op.settings", "write op.settings={trainer.max_steps:100}")
    own = next((str(key) for key in settings if key in _OWN), None)
    if own:
        raise UserError(f"sets {own}, which the command tells already", "op.settings", "leave it out")
    return {str(key): value for key, value in settings.items()}


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{','.join(map(_word, value))}]" if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


def command(found: Distillation, name: str) -> list[str]:
    """The training's command line.

    Args:
        found: the distillation.
        name: of the training's run.
    """
    return [sys.executable, "-m", _STAGE, *found.words, *([f"run_name={name}"] if name else [])]


def shown(found: Distillation) -> Result:
    """The command, which is not run."""
    said = shlex.join(["python", *command(found, "")[1:]])
    return Result("plan of distill", {"teacher": found.teacher.ref, "student": found.student.ref, "command": said}, {})


def trained(found: Distillation, run: Run) -> Result:
    """Run the training to its end.

    Raises:
        UserError: it failed; its own log and run say why.
    """
    from mlops_llm.tracking.store import connect

    for each in (found.teacher, found.student):
        run.uses(publishing.used(each))
    name = f"{run.name}-training"
    words = command(found, name)
    run.tags({"operation": "distill", "training": name, "command.training": shlex.join(["python", *words[1:]])})
    code = _ended(words)
    if code:
        remedy = f"see the lines above; go on with: python -m {_STAGE} resume={name}"
        raise UserError(f"the training ended with code {code}", name, remedy)
    store = connect()
    trained = ledger.find_run(store, name)
    best = trained.tags.get("best.checkpoint", "")
    ref = f"runs:/{name}/{best or 'last'}"
    run.tags({"training.run": trained.id, "result": ref})
    losses = {key: value for key, value in trained.metrics.items() if key.startswith("distill/")}
    run.metrics(losses, 0)
    table = {
        "model": ref,
        "teacher": found.teacher.ref,
        "student": found.student.ref,
        **{key.partition("/")[2].replace("_", " "): value for key, value in losses.items()},
        "training": f"{name} ({trained.id})",
    }
    return Result("distill: done", table, {"ref": ref, "training": trained.id})


def _ended(words: Sequence[str]) -> int:
    """Run a command that prints where this one does, and return its exit code; what stops this process stops it too."""
    console.detail(shlex.join(["python", *words[1:]]))
    # An adopted run and a multirun's parent are this command's, not the other's.
    kept = {key: value for key, value in os.environ.items() if key not in ("MLFLOW_RUN_ID", "MLOPS_LLM_PARENT_RUN")}
    process = subprocess.Popen(words, env=kept)
    try:
        return process.wait()
    except BaseException:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.wait()
        raise
