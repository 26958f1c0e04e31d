"""Raters' files into the record: on the same checkpoints and dataset version."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.eval.judge import OVERALL
from mlops_llm.eval.people import ballot as ballots
from mlops_llm.eval.people import checked, returned
from mlops_llm.eval.people.ballot import EVALUATION, KEY, Ballot
from mlops_llm.eval.people.checked import Filled
from mlops_llm.eval.people.export import apart
from mlops_llm.eval.people.found import Found
from mlops_llm.eval.people.place import HEADS, Placed
from mlops_llm.eval.people.words import LEAST
from mlops_llm.eval.recording import PREFIX as SCORE
from mlops_llm.eval.recording import named
from mlops_llm.record import Grid, Result, Run
from mlops_llm.tracking import ledger
from mlops_llm.tracking.opening import recorded_text
from mlops_llm.tracking.store import Store, connect, exists

RATINGS = "human/ratings.json"
"""The artifact with every rating."""
IMPORTED = "human.imported"
"""Tag of an import's run: the evaluation that it is of."""
_PEEKED = 50
"""Rows that tell whose a file is."""
_SHOWN = 20
"""Cells that are named, of each kind."""


@dataclass(frozen=True)
class Ready:
    """Files that are checked."""

    ballot: Ballot
    filled: tuple[Filled, ...]
    exported: ledger.RunRow
    """The run that wrote them."""
    dropped: tuple[Filled, ...] = ()
    """Those of raters who failed and are left out."""


def found_run(store: Store, evaluation: str) -> ledger.RunRow:
    """The export that an evaluation's id belongs to.

    Raises:
        UserError: the record knows none.
    """
    runs = ledger.tagged(store, {EVALUATION: evaluation})
    if not runs:
        remedy = "import it where it was exported: check MLFLOW_TRACKING_URI and the folder"
        raise UserError(f"this record knows no evaluation by people {evaluation}", "op.files", remedy)
    return runs[0]


def here() -> Store:
    """The record that is there already: to look something up, none is made.

    Raises:
        UserError: there is none.
    """
    if not exists():
        what = "there is no record of earlier runs here"
        raise UserError(what, remedy="start the command in the folder of the earlier ones, or set MLFLOW_TRACKING_URI")
    return connect()


def home(file: Path) -> str:
    """The project of the export that a file belongs to, so that its models are known there.

    Raises:
        UserError: the file cannot be read, or the record knows no such export.
    """
    evaluation = checked.evaluation(returned.read(file, _PEEKED))
    return found_run(here(), evaluation).project


def ready(files: Sequence[Path], leave_out: bool, drop_failed: bool) -> Ready:
    """Read and check files; what is wrong is printed, each with its cell.

    Args:
        files: what raters sent back.
        leave_out: leave rows and cells out that cannot be taken, instead of refusing the files.
        drop_failed: leave raters out who failed the checks.

    Raises:
        UserError: a file cannot be read, is of another evaluation, comes twice, or has cells that cannot be taken; or no rater
            is left.
    """
    tables = [returned.read(each) for each in files]
    store = here()
    exported = found_run(store, checked.evaluation(tables[0]))
    ballot = ballots.read(recorded_text(store, exported.id, KEY), f"{KEY} of run {exported.name}")
    filled, raters = list[Filled](), dict[int, Path]()
    for each in tables:
        one = checked.check(each, ballot)
        if one.rater in raters:
            what = f"is the file of rater {one.rater}, as is {raters[one.rater]}"
            raise UserError(what, str(each.file), "give one of them; a file for each person: op=human_export op.raters=2")
        raters[one.rater] = each.file
        filled.append(one)
    _tell_faults(filled, leave_out)
    for one in filled:
        _tell_gaps(one)
    dropped = [one for one in filled if drop_failed and one.is_careless]
    kept = [one for one in filled if one not in dropped]
    if not kept:
        cells = [*dropped[0].failed_checks(), *(cell for some in dropped[0].contradictions().values() for cell in some)]
        what = f"every rater failed the checks (the first: {cells[0]})"
        raise UserError(what, "op.drop_failed", "look at what each wrote: without it they are counted, and the cells named")
    return Ready(ballot, tuple(kept), exported, tuple(dropped))


def _tell_faults(filled: Sequence[Filled], leave_out: bool) -> None:
    faults = [fault for one in filled for fault in one.faults]
    for fault in faults[:_SHOWN]:
        console.warn(f"{fault.where}: {fault.what}")
    if not faults:
        return
    more = f"{len(faults)} cells cannot be taken" if len(faults) > 1 else "a cell cannot be taken"
    if not leave_out:
        first = f"{faults[0].where} {faults[0].what}"
        raise UserError(f"{more}: {first}", "op.files", "correct what is named, or leave it out: op.leave_out=true")
    console.warn(f"{more}: left out")


def _tell_gaps(one: Filled) -> None:
    name = one.returned.file.name
    if one.empty:
        more = f" and {len(one.empty) - 3} more" if len(one.empty) > 3 else ""
        console.warn(f"{name}: cells without a score: {len(one.empty)} ({'; '.join(one.empty[:3])}{more})")
    if one.missing:
        console.warn(f"{name}: rows that are not in the file any more: {one.missing}")
    if one.returned.others:
        others = "', '".join(one.returned.others)
        console.warn(f"{name}: only sheet '{one.returned.sheet}' is read; '{others}' has rows of an evaluation, too")


def record(ready: Ready, texts: bool, run: Run) -> Result:
    """Record the scores.

    Args:
        ready: see `ready`.
        texts: whether prompts, answers and comments enter the record again.
        run: the run.
    """
    found = Found(ready.ballot, ready.filled)
    run.input(ready.ballot.dataset)
    run.tags({IMPORTED: ready.ballot.evaluation, "human.exported": ready.exported.name, "human.raters": str(len(ready.filled))})
    run.tags({"metric.human/overall": found.signature})
    for number, model in enumerate(apart(ready.ballot.models)):
        if model.checkpoint:
            run.uses(model.checkpoint)
        step = model.checkpoint.step if model.checkpoint else 0
        for score in found.scores(number):
            name = named(score.name)
            values = {name: score.value}
            if score.interval:
                values |= {f"{name}_low": score.interval[0], f"{name}_high": score.interval[1]}
            run.metrics(values, step, model.checkpoint, "evaluation")
    agreed = _agreement(found)
    ways = {f"{name}/{way}": value for name, each in agreed.items() for way, value in each.items()}
    run.metrics({f"human/{named(name).removeprefix(SCORE)}": value for name, value in ways.items()}, 0)
    place = found.placed()
    if place:
        run.metrics({"human/shown_first/rate": place.rate, "human/shown_first/difference": place.difference}, 0)
    run.artifact(RATINGS, found.table(texts))
    values = _values(found, agreed, ready.dropped) | {"shown first": place.values() if place else None}
    run.artifact("human/summary.json", json.dumps(values, ensure_ascii=False, indent=2))
    return Result(
        f"people's ratings of {ready.ballot.dataset.name}", _table(found, ready), values, shown(found, ready.dropped, place)
    )


def _agreement(found: Found) -> dict[str, dict[str, float]]:
    """Dimension -> way of counting -> value, where there is one."""
    told = dict[str, dict[str, float]]()
    for name, each in found.agreement().items():
        values = {"alpha_ordinal": each.ordinal, "alpha_interval": each.interval}
        values |= {"kappa": each.kappa} if each.kappa is not None else {}
        told[name] = {way: value for way, value in values.items() if not math.isnan(value)}
    return told


def _values(found: Found, agreed: dict[str, Any], dropped: Sequence[Filled]) -> dict[str, Any]:
    models = found.ballot.models
    return {
        "evaluation": found.ballot.evaluation,
        "scores": {
            model.ref: {each.name: {"value": each.value, "interval": each.interval, "rows": each.count}
                        for each in found.scores(number)}
            for number, model in enumerate(models)
        },
        "wins": [
            {"first": models[each.first].ref, "second": models[each.second].ref, "win": each.win, "tie": each.tie,
             "loss": each.loss, "rate": each.rate, "interval": each.interval}
            for each in found.wins()
        ],
        "agreement": agreed,
        "raters": [
            {"rater": each.rater, "file": each.returned.file.name, "failed": each.is_careless, "failed checks":
             each.failed_checks(), "contradictions": [cell for cells in each.contradictions().values() for cell in cells],
             "empty": len(each.empty), "counted": each in found.filled}
            for each in (*found.filled, *dropped)
        ],
    }  # fmt: skip


def _table(found: Found, ready: Ready) -> dict[str, Any]:
    none = len(found.ballot.none)
    rows = {
        "evaluation": f"{found.ballot.evaluation} (run {ready.exported.name})",
        "raters": f"{len(found.filled)} of {len(ready.filled) + len(ready.dropped)} files",
        "answers rated": str(len({one.line.answer for each in found.filled for one in each.rated.values() if one.scores})),
        "no answers": f"{none}, with the worst rating {LEAST}" if none else "",
        "rows were sorted": f"{', '.join(found.sorted_files)}: not counted where the place matters"
        if found.sorted_files
        else "",
    }
    return {label: text for label, text in rows.items() if text}


def shown(found: Found, dropped: Sequence[Filled], place: Placed | None = None) -> list[Grid | str]:
    """For a person: scores, wins, agreement, what the place of an answer does, raters."""
    models = [each.ref for each in found.ballot.models]
    rows = [
        [model, score.name.partition("/")[2], f"{score.value:.2f}", _between(score.interval), score.count]
        for number, model in enumerate(models)
        for score in found.scores(number)
    ]
    grids: list[Grid | str] = [Grid("people's scores", ["model", "dimension", "mean", "95 % interval", "rows"], rows)]
    wins = [
        [f"{models[each.first]} : {models[each.second]}", each.win, each.tie, each.loss, f"{each.rate:.2f}",
         _between(each.interval)]
        for each in found.wins()
    ]  # fmt: skip
    if wins:
        grids.append(Grid(f"which is better, by {OVERALL}", ["models", "win", "tie", "loss", "rate", "95 % interval"], wins))
    agreed = [
        [name, *(_number(value) for value in (each.ordinal, each.interval, each.kappa)), each.items]
        for name, each in found.agreement().items()
    ]
    if agreed:
        columns = ["dimension", "alpha (ordinal)", "alpha (interval)", "kappa", "items"]
        grids.append(Grid("how far raters agree", columns, agreed))
    if place:
        grids.append(Grid("is an answer that is shown first rated otherwise?", HEADS, [place.cells()]))
    return [*grids, *_careless(found.filled, dropped)]


def _careless(kept: Sequence[Filled], dropped: Sequence[Filled]) -> list[Grid | str]:
    rows = list[list[Any]]()
    for each in (*kept, *dropped):
        problems = [f"check failed: {cell}" for cell in each.failed_checks()]
        problems += [f"contradicts itself: {cells}" for some in each.contradictions().values() for cells in some]
        verdict = ("counted" if each in kept else "left out") + (", failed" if each.is_careless else "")
        for place, problem in enumerate(problems[:_SHOWN]):
            rows.append(["" if place else each.rater, "" if place else verdict, problem])
    return [Grid("raters to look at", ["rater", "", "what"], rows)] if rows else []


def _between(interval: tuple[float, float] | None) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else ""


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"
