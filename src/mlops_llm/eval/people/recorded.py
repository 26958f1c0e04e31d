"""Ratings that the record holds, of people and of model judges, by row and answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from mlops_llm.errors import UserError
from mlops_llm.eval.judge import OVERALL
from mlops_llm.eval.people.cells import mark
from mlops_llm.eval.people.imported import IMPORTED, RATINGS
from mlops_llm.eval.people.words import FACTS
from mlops_llm.eval.recording import TABLE
from mlops_llm.eval.shown import JUDGE
from mlops_llm.tracking import ledger
from mlops_llm.tracking.opening import recorded_text
from mlops_llm.tracking.store import Store

Key = tuple[int, str]
"""Row, from 1, and mark of the answer: the same text to the same prompt, whoever wrote it."""
_RAW = "data.evaluation.digest.raw"
_OF_PAIRS = ("win", "tie", "loss", "flip")


@dataclass
class Ratings:
    """What one side says."""

    name: str
    runs: list[str] = field(default_factory=list)
    by: dict[str, dict[Key, float]] = field(default_factory=dict)
    """Dimension -> answer -> rating, a mean where there are several."""
    lengths: dict[Key, int] = field(default_factory=dict)
    """Characters of each answer."""
    sheets: list[dict[int, list[tuple[int, float]]]] = field(default_factory=list)
    """Of each person: row -> place where an answer was shown, from 1, and its overall rating; see `place.placed`."""

    @property
    def is_of_pairs(self) -> bool:
        """Whether it says which of two answers is better."""
        return "flip" in self.by


def home(store: Store, raw: str) -> str:
    """The project of the newest ratings of a dataset by people, else by a judge; empty where there are none."""
    found = ledger.tagged(store, _imported(raw)) or ledger.tagged(store, _judged(raw))
    return found[0].project if found else ""


def _imported(raw: str) -> dict[str, str]:
    return {_RAW: raw, IMPORTED: "h%"}


def _judged(raw: str) -> dict[str, str]:
    return {_RAW: raw, "metric.judge/overall": f"{JUDGE.rstrip('/')}:%"}


def people(store: Store, raw: str) -> Ratings:
    """What people said of a dataset's rows; of an evaluation that was imported twice the newest.

    Args:
        store: the record.
        raw: digest of the dataset's file.

    Raises:
        UserError: a run's table of ratings cannot be read.
    """
    found, given, seen = Ratings("people"), dict[str, dict[Key, list[float]]](), set[str]()
    for run in ledger.tagged(store, _imported(raw)):
        if run.status != "FINISHED" or run.tags[IMPORTED] in seen:
            continue
        seen.add(run.tags[IMPORTED])
        found.runs.append(run.name)
        sheets = dict[Any, dict[int, list[tuple[int, float]]]]()
        for row in _rows(store, run, RATINGS):
            key = (int(row["row"]), str(row["answer mark"]))
            found.lengths[key] = int(row["characters"])
            if row["repeated"]:
                continue
            for name in (each for each in row if each not in FACTS and row[each] is not None):
                given.setdefault(name, {}).setdefault(key, []).append(float(row[name]))
            if row["shown"] and row.get(OVERALL) is not None:
                shown = sheets.setdefault(row["rater"], {}).setdefault(key[0], [])
                shown.append((int(row["shown"]), float(row[OVERALL])))
        found.sheets += sheets.values()
    found.by = {name: {key: fmean(values) for key, values in of.items()} for name, of in given.items()}
    return found


def judges(store: Store, raw: str) -> list[Ratings]:
    """What each judge said of a dataset's rows, the newest judge first; of one answer its newest rating.

    Raises:
        UserError: a run's table of answers cannot be read.
    """
    found = dict[str, Ratings]()
    for run in ledger.tagged(store, _judged(raw)):
        if run.status != "FINISHED":
            continue
        try:
            rows = list(_rows(store, run, TABLE))
        except UserError:
            continue  # save_outputs=false keeps no answers
        signature = run.tags["metric.judge/overall"]
        name = f"{run.params.get('judge.model') or 'the first model'} ({run.params.get('judge.name', signature)})"
        one = found.setdefault(signature, Ratings(name))
        one.runs.append(run.name)
        for row in rows:
            if not row.get("answer"):
                continue
            key = (int(row["row"]), mark(str(row["answer"])))
            one.lengths[key] = len(str(row["answer"]))
            for column in (each for each in row if each.startswith(JUDGE) and row[each] is not None):
                one.by.setdefault(column.removeprefix(JUDGE), {}).setdefault(key, float(row[column]))
    return _named_apart(found)


def _named_apart(found: dict[str, Ratings]) -> list[Ratings]:
    names = [each.name for each in found.values()]
    for signature, each in found.items():
        if names.count(each.name) > 1:
            each.name += f" {signature.rpartition(':')[2][:6]}"
    return list(found.values())


def _rows(store: Store, run: ledger.RunRow, table: str) -> Iterator[dict[str, Any]]:
    try:
        whole = json.loads(recorded_text(store, run.id, table))
        for row in whole["data"]:
            yield dict(zip(whole["columns"], row, strict=True))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{table} of run {run.name} is no table", remedy="remove the run, or write its table anew") from error
