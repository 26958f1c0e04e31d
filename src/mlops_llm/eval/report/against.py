"""What a comparison with other evaluations says of the one that is reported, which is its first model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mlops_llm.eval.lang import Lang
from mlops_llm.eval.outcome import Outcome
from mlops_llm.eval.report.document import cut
from mlops_llm.eval.report.naming import NAME, label

LETTERS = "ABCDEFGH"
OWN = 1
"""Number of the reported evaluation among the models."""


def sides(beside: Mapping[str, Any], outcome: Outcome, lang: Lang) -> tuple[list[str], list[str]]:
    """In what the model is significantly better than others, and in what worse, in sentences."""
    better, worse = list[str](), list[str]()
    for other in beside["models"][1:]:
        won, lost = list[str](), list[str]()
        for row in beside["scores"]:
            for pair in row.get("pairs", ()):
                if {pair["first"], pair["second"]} == {OWN, other["number"]} and pair["significant"]:
                    (won if better_of(row, pair) == OWN else lost).append(label(row["name"], outcome))
        name = cut(other["ref"], NAME)
        better += [
            lang(f"{lang.listed(won)} 显著优于 {name}。", f"Significantly better than {name} in {lang.listed(won)}.")
        ] * bool(won)
        worse += [
            lang(f"{lang.listed(lost)} 显著差于 {name}。", f"Significantly worse than {name} in {lang.listed(lost)}.")
        ] * bool(lost)
    return better, worse


def better_of(row: Mapping[str, Any], pair: Mapping[str, Any]) -> int | None:
    """Number of the model of a pair that is significantly better, if one is."""
    if not pair["significant"] or not pair["difference"]:
        return None
    return int(pair["first"] if (pair["difference"] > 0) == row["higher_is_better"] else pair["second"])


def flips(beside: Mapping[str, Any]) -> Iterator[tuple[str, int, int, int]]:
    """Scores that are right or wrong: name, number of another model, samples right in ours alone, and in the other alone."""
    named = dict.fromkeys(row["name"] for row in beside["scores"] if row["most"] == 1)
    for name in named:
        values = [[one.get(name) for one in each["scores"]] for each in beside["samples"]]
        there = [each for each in values if None not in each]
        if not there or not {value for each in there for value in each} <= {0.0, 1.0}:
            continue
        for place, other in enumerate(beside["models"][1:], 1):
            gained = sum(each[0] > each[place] for each in there)
            yield name, other["number"], gained, sum(each[0] < each[place] for each in there)
