"""What a job's result depends on, and whether it is there already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mlops_llm import digest
from mlops_llm.component import name_of, plain
from mlops_llm.data.ref import open_dataset, record
from mlops_llm.errors import UserError
from mlops_llm.files import expanded, read_object
from mlops_llm.models import digested
from mlops_llm.models.ref import resolve
from mlops_llm.surgery import certificate, planning, recipe
from mlops_llm.surgery.config import Surgery
from mlops_llm.tracking import environment, ledger

JOB, RESULT = "batch.job", "batch.result"
"""Tags of a job's run: what its result depends on, and the ref of what it made (empty of one that makes no checkpoint)."""
_ROWS = ("dataset", "calibration")
"""Settings, the request's or an operation's, that name rows."""
_PASSING = ("output", "folder", "project", "run_name", "resume", "launch", "cache", "care", "model", "models", "base", "run")


def identity(request: Surgery) -> str:
    """Digest of a job's settings, its models' weights and its rows; how a model or a dataset is called does not count.

    Raises:
        UserError: a model or a dataset is not there.
    """
    settings = {key: value for key, value in plain(request).items() if key not in _PASSING}
    operation = dict(settings["op"]["settings"])
    operation.pop("dry_run", None)
    rows = {key: _rows(str(ref), request) for key, ref in _named_rows(request, operation)}
    settings["op"] = [name_of(request.op), {key: value for key, value in operation.items() if key not in _ROWS}]
    facts = {**settings, **rows, "models": _models(request), "base": request.base and _weights(request.base, request)}
    return digest.row({**facts, "dataset": rows.get("dataset"), "run": request.run and _run(request.run)})


def _named_rows(request: Surgery, operation: Mapping[str, Any]) -> list[tuple[str, Any]]:
    own = [(f"op.{key}", operation[key]) for key in _ROWS if operation.get(key)]
    return [*own, *([("dataset", request.dataset)] if request.dataset else [])]


def _rows(ref: str, request: Surgery) -> str:
    return _canonical(ref, str(plain(request.read)), lambda: open_dataset(ref, request.read).canonical)


_known: dict[tuple[str, str], str] = {}


def _canonical(ref: str, how: str, read: Any) -> str:
    """The digest of a dataset's rows, which are read once for all jobs of a process."""
    if (ref, how) not in _known:
        _known[ref, how] = read()
    return _known[ref, how]


def _models(request: Surgery) -> list[str]:
    return [_weights(each, request) for each in [*([request.model] if request.model else []), *request.models]]


def _weights(ref: str, request: Surgery) -> str:
    return planning.source(ref, request).digest


@cache
def _run(ref: str) -> str:
    from mlops_llm.tracking.store import connect

    return ledger.find_run(connect(), ref).id


@dataclass(frozen=True)
class Earlier:
    """What an earlier run did of a job."""

    ref: str = ""
    """Of its checkpoint."""
    whole: bool = True
    """False where the process ended before all was done."""
    run: str = ""
    """Id of the run that was cut off, where one was."""
    name: str = ""
    """Its name where its folder is whole, and only to be checked and recorded; empty where all is to be done again."""


def earlier(request: Surgery, which: str) -> Earlier | None:
    """Find what is there of a job, in the record or in its output folder; None where it is to be done.

    Args:
        request: the job's settings.
        which: its identity.
    """
    store = record()
    rows = ledger.tagged(store, {JOB: which}) if store else []
    for row in rows:
        if row.status == "FINISHED" and RESULT in row.tags and _is_there(row.tags[RESULT], request):
            return Earlier(row.tags[RESULT])
    dead = [row for row in rows if row.status != "FINISHED" and not _lives(row)]
    told = _recipe(request)
    if told is None:
        return Earlier(whole=False, run=dead[0].id) if dead else None
    cut_off = next((row for row in dead if row.name == told.get("run")), None)
    if cut_off:
        return Earlier(whole=False, run=cut_off.id, name=cut_off.name)
    return Earlier(str(_output(request))) if _is_same(told, request) else None


def _lives(row: ledger.RunRow) -> bool:
    return row.status == "RUNNING" and environment.believed_alive(row.tags)


def _is_there(ref: str, request: Surgery) -> bool:
    """Whether the checkpoint can be opened still, has the weights that it had, and lies where the job wants it."""
    if not ref:
        return True
    output = _output(request)
    if output is not None and not output.is_dir():
        return False
    try:
        return bool(digested.weights_digest(resolve(ref)))
    except (UserError, OSError, ValueError):
        return False


def _output(request: Surgery) -> Path | None:
    return expanded(request.output).absolute() if request.output else None


def _recipe(request: Surgery) -> dict[str, Any] | None:
    """The recipe in the job's output folder, or in the folder of its run that goes on."""
    output = _output(request)
    folders = [output] if output else sorted(Path(request.folder or ".").glob("*"))
    found = next((folder for folder in folders if (folder / recipe.NAME).is_file()), None)
    return {**read_object(found / recipe.NAME), "folder": found} if found else None


def _is_same(told: Mapping[str, Any], request: Surgery) -> bool:
    """Whether a folder was made by the same recipe, on the same rows where it saw any."""
    settings = {key: value for key, value in plain(request.op)["settings"].items() if key != "dry_run"}
    wanted = [*_models(request), *([_weights(request.base, request)] if request.base else [])]
    return bool(
        _saw_the_same(told, settings.get("calibration"), request)
        and told.get("operation") == name_of(request.op)
        and {key: value for key, value in told.get("settings", {}).items() if key != "dry_run"} == settings
        and told.get("dtype") == request.dtype.name
        and told.get("seed") == request.seed
        and sorted(each["digest"] for each in told.get("sources", ())) == sorted(wanted)
        and _is_sound(told)
    )


def _saw_the_same(told: Mapping[str, Any], ref: str | None, request: Surgery) -> bool:
    pin = str(told.get("pins", {}).get("calibration", ""))
    return pin.rpartition("@")[2] == (_rows(ref, request) if ref else "")


def _is_sound(told: Mapping[str, Any]) -> bool:
    """Whether the weights in a recipe's folder are those that were written, and nothing was found against them."""
    verdict = read_object(told["folder"] / certificate.NAME).get("verdict")
    is_good = verdict in (certificate.PASSED, certificate.UNMEASURED)
    return is_good and certificate.weights_of(told["folder"]) == told.get("digest.weights")
