"""The section about what people said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlops_llm.eval import charts
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.outcome import Outcome
from mlops_llm.eval.people.words import LEAST, MOST
from mlops_llm.eval.report.document import Part, Section, Table, Text, cut
from mlops_llm.eval.report.naming import NAME, PEOPLE, label

WAYS = ("alpha_ordinal", "alpha_interval", "kappa")


def section(outcome: Outcome, people: Sequence[Mapping[str, Any]], lang: Lang) -> list[Section]:
    """Scores with intervals, agreement, and how often people prefer this model to others; nothing where nobody rated.

    Args:
        outcome: what was found.
        people: see `rated.people`.
        lang: language.
    """
    parts = [part for each in people for part in _parts(outcome, each, lang)]
    return [Section(lang("人工评分", "Ratings by people"), parts)] if parts else []


def _parts(outcome: Outcome, one: Mapping[str, Any], lang: Lang) -> list[Part]:
    careless = one["careless"]
    failed = lang(f"，其中 {careless} 位没有通过注意力检查", f", {careless} of whom failed the checks") if careless else ""
    said = lang(
        f"{one['raters']} 位评分人{failed}，{LEAST} 至 {MOST} 分，模型名称隐去（运行 {one['run']}，评测 {one['evaluation']}）；"
        "没有回答的行按最低分计。α 为 Krippendorff，κ 为 Cohen：1 为完全一致，0 为偶然。",
        f"{one['raters']} raters{failed}, from {LEAST} to {MOST}, the models' names hidden (run {one['run']}, "
        f"evaluation {one['evaluation']}); a row without an answer has the lowest rating. α is Krippendorff's, κ Cohen's: "
        "1 is full agreement, 0 is chance.",
    )
    rows = [
        [
            label(each["name"], outcome),
            charts.bar(each["value"], MOST, tuple(each["interval"]) if each["interval"] else None),
            f"{each['value']:.2f}",
            f"{each['interval'][0]:.2f} - {each['interval'][1]:.2f}" if each["interval"] else "",
            str(each["rows"]),
            *_agreed(one["agreement"].get(each["name"].removeprefix(PEOPLE), {})),
        ]
        for each in one["scores"]
    ]
    columns = [
        lang("维度", "Dimension"), "", lang("均值", "Mean"), lang("95 % 区间", "95 % interval"), lang("行数", "Rows"),
        lang("α（序数）", "α (ordinal)"), lang("α（等距）", "α (interval)"), "κ",
    ]  # fmt: skip
    wins = [
        [cut(each["other"], NAME), str(each["win"]), str(each["tie"]), str(each["loss"]),
         f"{each['rate']:.2f} ({each['interval'][0]:.2f} - {each['interval'][1]:.2f})"]
        for each in one["wins"]
    ]  # fmt: skip
    against = [
        lang("与之相比", "Against"), lang("胜", "Wins"), lang("平", "Ties"), lang("负", "Losses"),
        lang("胜率（95 % 区间）", "Rate (95 % interval)"),
    ]  # fmt: skip
    return [
        Text(said, soft=True),
        Table(columns, rows, right=range(2, 8)),
        *([Table(against, wins, right=range(1, 5))] if wins else []),
    ]


def _agreed(found: Mapping[str, float]) -> list[str]:
    return [f"{found[way]:.2f}" if found.get(way) is not None else "" for way in WAYS]
