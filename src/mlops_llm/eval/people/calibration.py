"""How well a model judge agrees with people on the same answers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from mlops_llm.data.read import raw_digest
from mlops_llm.data.ref import locate, open_dataset
from mlops_llm.errors import UserError
from mlops_llm.eval.config import Eval
from mlops_llm.eval.interval import wilson
from mlops_llm.eval.judge import OVERALL
from mlops_llm.eval.people import recorded
from mlops_llm.eval.people.compared import Compared, Number, compared, spearman
from mlops_llm.eval.people.place import HEADS, Placed, placed
from mlops_llm.eval.people.recorded import Ratings
from mlops_llm.record import DatasetInput, Grid, Result, Run
from mlops_llm.tracking.store import Store


@dataclass(frozen=True)
class Agreement:
    """Two sides in one dimension."""

    first: str
    second: str
    dimension: str
    found: Compared


@dataclass(frozen=True)
class Bias:
    """Something that a rating should not depend on."""

    who: str
    count: int
    found: Number


@dataclass(frozen=True)
class Calibration:
    """What is known of the judges of a dataset."""

    dataset: DatasetInput
    people: Ratings
    judges: Sequence[Ratings]
    agreement: Sequence[Agreement]
    """People and each judge."""
    drift: Sequence[Agreement]
    """Two judges."""
    length: Sequence[Bias]
    """Rank correlation of the overall rating with the answer's length, of people and of each judge on the same answers."""
    first: Placed | None
    """How people rate an answer that was shown first."""
    flips: Sequence[Bias]
    """Share of pairs that a judge decides otherwise when the two answers change places."""


def home(settings: Eval, store: Store) -> str:
    """The project of the ratings, see `recorded.home`.

    Raises:
        UserError: no dataset is named, or there is none of this name.
    """
    return recorded.home(store, raw_digest(locate(_named(settings)).path, ()))


def _named(settings: Eval) -> str:
    if not settings.dataset:
        raise UserError("names no rows", "dataset", "give dataset=REF")
    return settings.dataset


def calibrated(settings: Eval, store: Store) -> Calibration:
    """Read what the record holds, and compare it.

    Raises:
        UserError: no dataset is named, or neither two judges nor people and a judge have rated the same answers.
    """
    source = open_dataset(_named(settings), settings.read)
    people, judges = recorded.people(store, source.raw), recorded.judges(store, source.raw)
    if not people.by and len(judges) < 2:
        what = f"no ratings of {source.name} by people are in the record"
        raise UserError(what, "dataset", "collect them: op=human_export, then op=human_import")
    if not judges:
        raise UserError(f"no judge has rated answers to {source.name}", "dataset", "let one: op=score judge=rubric_zh")
    rating = [each for each in judges if not each.is_of_pairs]
    agreement = [each for judge in rating for each in _agreed(people, judge)]
    drift = [each for one, other in combinations(rating, 2) for each in _agreed(one, other)]
    flips = [_flips(each) for each in judges if each.is_of_pairs]
    if not agreement and not drift and not flips:
        what = f"people and judges rated no answer to {source.name} that is the same"
        raise UserError(what, "dataset", "let the judge rate what people rated: the same model, sampling and seed")
    digests = {"raw": source.raw, "canonical": source.canonical}
    dataset = DatasetInput(source.name, source.version, str(source.path), "evaluation", len(source.rows), digests)
    return Calibration(dataset, people, judges, agreement, drift, _lengths(people, rating), placed(people.sheets), flips)


def _agreed(one: Ratings, other: Ratings) -> list[Agreement]:
    found = list[Agreement]()
    for name in (each for each in one.by if each in other.by):
        shared = sorted(one.by[name].keys() & other.by[name].keys())
        if shared:
            values = compared([one.by[name][key] for key in shared], [other.by[name][key] for key in shared])
            found.append(Agreement(one.name, other.name, name, values))
    return sorted(found, key=lambda each: each.dimension == OVERALL)


def _lengths(people: Ratings, judges: Sequence[Ratings]) -> list[Bias]:
    found = list[Bias]()
    for judge in judges:
        of_judge, of_people = judge.by.get(OVERALL, {}), people.by.get(OVERALL, {})
        shared = sorted(of_judge.keys() & of_people.keys())
        sides = (
            ((judge.name, of_judge), (f"people, on what {judge.name} rated", of_people))
            if shared
            else ((judge.name, of_judge),)
        )
        for who, given in sides:
            keys = shared or sorted(given)
            lengths = [float(judge.lengths[key]) for key in keys]
            found.append(Bias(who, len(keys), spearman(lengths, [given[key] for key in keys])))
    return found


def _flips(judge: Ratings) -> Bias:
    shares = list(judge.by["flip"].values())
    return Bias(judge.name, len(shares), Number(sum(shares) / len(shares), wilson(sum(shares), len(shares))))


def record(found: Calibration, run: Run) -> Result:
    """Record a calibration and show it."""
    run.input(found.dataset)
    for each in found.agreement:
        numbers = {"spearman": each.found.spearman, "kappa": each.found.kappa, "difference": each.found.difference}
        prefix = f"calibrate/{_plain(each.second)}/{_plain(each.dimension)}"
        run.metrics({f"{prefix}/{name}": one.value for name, one in numbers.items() if one.is_known}, 0, None, "evaluation")
        for name, one in numbers.items():
            if one.interval:
                run.metrics({f"{prefix}/{name}_low": one.interval[0], f"{prefix}/{name}_high": one.interval[1]}, 0)
    if found.first:
        values = {"rate": found.first.rate, "difference": found.first.difference}
        run.metrics({f"calibrate/people/shown_first/{name}": value for name, value in values.items()}, 0)
    values = _values(found)
    run.artifact("calibration.json", json.dumps(values, ensure_ascii=False, indent=2))
    table = {
        "dataset": f"{found.dataset.name} ({found.dataset.version})",
        "people": ", ".join(found.people.runs),
        **{f"judge {each.name}": ", ".join(each.runs) for each in found.judges},
    }
    return Result(f"judges of {found.dataset.name}", {key: text for key, text in table.items() if text}, values, _shown(found))


def _plain(name: str) -> str:
    """A name of characters that MLflow takes."""
    return re.sub(r"[^\w.\-]+", "_", name).strip("_")


def _values(found: Calibration) -> dict[str, Any]:
    def pairs(some: Sequence[Agreement]) -> list[dict[str, Any]]:
        made = [{**asdict(each), **asdict(each.found)} for each in some]
        return [{name: _known(value) for name, value in each.items() if name != "found"} for each in made]

    def biases(some: Sequence[Bias]) -> list[dict[str, Any]]:
        return [{"who": each.who, "count": each.count, **(_known(asdict(each.found)) or {})} for each in some]

    return {
        "agreement": pairs(found.agreement),
        "drift": pairs(found.drift),
        "length": biases(found.length),
        "shown first": found.first.values() if found.first else None,
        "flips": biases(found.flips),
        "runs": {"people": found.people.runs, **{each.name: each.runs for each in found.judges}},
    }


def _known(value: Any) -> Any:
    """A value as JSON can hold it: what is no number is null."""
    is_number = isinstance(value, dict) and set(value) == {"value", "interval"}
    return None if is_number and value["value"] != value["value"] else value


def _shown(found: Calibration) -> list[Grid | str]:
    columns = ["judge", "dimension", "answers", "Spearman", "95 %", "kappa", "95 %", "judge - people", "95 %"]
    grids: list[Grid | str] = []
    if found.agreement:
        rows = [[each.second, *_row(each)] for each in found.agreement]
        grids.append(Grid("judges beside people", columns, rows))
    if found.drift:
        rows = [[f"{each.second} beside {each.first}", *_row(each)] for each in found.drift]
        grids.append(Grid("judges beside each other", [*columns[:7], "difference", "95 %"], rows))
    if found.length:
        grids.append(_biases("does a longer answer have a better rating? (rank correlation)", found.length))
    if found.first:
        grids.append(Grid("do people rate an answer that is shown first otherwise?", HEADS, [found.first.cells()]))
    if found.flips:
        grids.append(_biases("does the place of an answer decide for a judge? (share of pairs)", found.flips))
    return grids


def _biases(title: str, some: Sequence[Bias]) -> Grid:
    return Grid(title, ["who", "answers", "value", "95 %"], [[one.who, one.count, *_cells(one.found)] for one in some])


def _row(each: Agreement) -> list[Any]:
    one = each.found
    return [each.dimension, one.count, *_cells(one.spearman), *_cells(one.kappa), *_cells(one.difference)]


def _cells(number: Number) -> list[str]:
    low_high = f"{number.interval[0]:.2f} to {number.interval[1]:.2f}" if number.interval else ""
    return [f"{number.value:.2f}" if number.is_known else "-", low_high]
