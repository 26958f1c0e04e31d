"""The tables of a workbook about other models and about people: all numbers, unrounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlops_llm.eval.report.against import LETTERS, better_of
from mlops_llm.eval.report.chapters import Report
from mlops_llm.eval.report.chinese import reason
from mlops_llm.eval.report.naming import PEOPLE, label
from mlops_llm.eval.report.peoples import WAYS

Sheet = tuple[str, Sequence[str], list[list[Any]]]
"""Title, columns, rows."""


def comparison(about: Report) -> Iterator[Sheet]:
    """The models, every score of each, every difference of two, and the samples by how far the models lie apart."""
    beside, lang = (about.found.get("comparison") or {}).get("side_by_side"), about.lang
    if not beside:
        return
    letters = {each["number"]: LETTERS[each["number"] - 1] for each in beside["models"]}
    columns = [
        "", lang("模型", "Model"), lang("运行", "Run"), lang("运行 ID", "Run id"), lang("权重摘要", "Weights"),
        lang("每个样本秒数", "Seconds a sample"), lang("每秒词元", "Tokens/s"), lang("内存峰值（字节）", "Peak memory (bytes)"),
        lang("磁盘占用（字节）", "Size on disk (bytes)"), lang("评委请求数", "Judge's calls"), lang("评委费用", "Judge's cost"),
        lang("失败样本", "Failed samples"), lang("速度不可比的原因", "Why speeds do not compare"),
    ]  # fmt: skip
    models = [
        [
            letters[each["number"]], each["ref"], each["evaluation"], each["id"], each["weights"], each["seconds_a_sample"],
            each["tokens_per_second"], each["peak_memory_bytes"], each["bytes"], each["judge"].get("calls"),
            each["judge"].get("cost"), sum(each["failures"].values()), reason(beside["unequal"], lang),
        ]
        for each in beside["models"]
    ]  # fmt: skip
    yield lang("对比", "Comparison"), columns, models
    yield _scores(about, beside, letters)
    yield _differences(about, beside, letters)
    yield _samples(about, beside, letters)


def _scores(about: Report, beside: Mapping[str, Any], letters: Mapping[int, str]) -> Sheet:
    lang = about.lang
    columns = [
        lang("得分", "Score"), "", lang("值", "Value"), lang("区间下限", "Low"), lang("区间上限", "High"),
        lang("样本", "Items"),
        lang("显著最好", "Significantly best"), lang("没有检验的原因", "Why it is not tested"),
    ]  # fmt: skip
    rows = [
        [label(row["name"], about.outcome), letters[number], value["value"], value["low"], value["high"], value["samples"],
         letters[number] if number == row["best"] else None, reason(row.get("untested", ""), lang)]
        for row in beside["scores"]
        for number, value in enumerate(row["values"], 1)
        if value
    ]  # fmt: skip
    return lang("对比得分", "Compared scores"), columns, rows


def _differences(about: Report, beside: Mapping[str, Any], letters: Mapping[int, str]) -> Sheet:
    lang = about.lang
    columns = [
        lang("得分", "Score"), lang("前", "First"), lang("后", "Second"), lang("差", "Difference"), lang("区间下限", "Low"),
        lang("区间上限", "High"), "p", "p (Holm)", lang("显著更好", "Significantly better"), lang("样本", "Items"),
        lang("需要样本", "Samples to decide"), lang("检验", "Test"),
    ]  # fmt: skip
    rows = [
        [label(row["name"], about.outcome), letters[pair["first"]], letters[pair["second"]], pair["difference"], pair["low"],
         pair["high"], pair["p"], pair["p_holm"], letters.get(better_of(row, pair) or 0), pair["samples"], pair["needed"],
         reason(pair["test"], lang)]
        for row in beside["scores"]
        for pair in row.get("pairs", ())
    ]  # fmt: skip
    return lang("两两之差", "Differences"), columns, rows


def _samples(about: Report, beside: Mapping[str, Any], letters: Mapping[int, str]) -> Sheet:
    lang = about.lang
    names = [row["name"] for row in beside["scores"]]
    columns = [lang("行", "Row"), lang("任务", "Task"), lang("分歧", "Apart"), lang("胜者", "Winner"), lang("翻转", "Flips")]
    columns += [f"{label(name, about.outcome)} {letter}" for name in names for letter in letters.values()]
    rows = [
        [each["row"], each["task"], each["disagreement"], letters.get(each["winner"] or 0),
         ", ".join(label(name, about.outcome) for name in each["flips"]),
         *(one.get(name) for name in names for one in each["scores"])]
        for each in beside["samples"]
    ]  # fmt: skip
    return lang("逐样本对比", "Compared samples"), columns, rows


def people(about: Report) -> Iterator[Sheet]:
    """People's scores and agreement, a row for each dimension."""
    lang = about.lang
    columns = [
        lang("运行", "Run"), lang("评测", "Evaluation"), lang("评分人", "Raters"), lang("维度", "Dimension"),
        lang("均值", "Mean"), lang("区间下限", "Low"), lang("区间上限", "High"), lang("行数", "Rows"),
        lang("α（序数）", "α (ordinal)"),
        lang("α（等距）", "α (interval)"), "κ",
    ]  # fmt: skip
    rows = [
        [one["run"], one["evaluation"], one["raters"], label(each["name"], about.outcome), each["value"],
         *(each["interval"] or (None, None)), each["rows"], *(agreed.get(way) for way in WAYS)]
        for one in about.found.get("people") or ()
        for each in one["scores"]
        for agreed in (one["agreement"].get(each["name"].removeprefix(PEOPLE), {}),)
    ]  # fmt: skip
    if rows:
        yield lang("人工评分", "Ratings by people"), columns, rows
