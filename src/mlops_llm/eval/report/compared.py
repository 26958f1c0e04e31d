"""The chapter that sets an evaluation beside others of the same rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlops_llm import console
from mlops_llm.eval import charts, shown
from mlops_llm.eval.comparison_shown import BEST
from mlops_llm.eval.conclusion import by_reason, chance
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.outcome import Outcome, Score
from mlops_llm.eval.report.against import LETTERS, OWN, better_of, flips
from mlops_llm.eval.report.chinese import reason
from mlops_llm.eval.report.document import Chapter, Part, Points, Section, Table, Text
from mlops_llm.eval.report.naming import kind_of, label

_SHOWN = 5
"""Evaluations that are left out and named."""


def comparison(outcome: Outcome, found: Mapping[str, Any] | None, words: Sequence[str], lang: Lang) -> Chapter:
    """The chapter.

    Args:
        outcome: what was found.
        found: see `rivals.comparison`; None where the record was not asked.
        words: what the comparison comes to.
        lang: language.
    """
    title, beside = lang("模型对比", "Comparison"), (found or {}).get("side_by_side")
    left = _left_out((found or {}).get("left_out", ()), lang)
    if not beside:
        none = lang(
            "记录里没有可与之对比的、其他模型在同样这些行上的评测。",
            "The record has no evaluation of another model on exactly these rows that could be set beside it.",
        )
        return Chapter(title, [Section("", [Text(none), *left])])
    heads = [_head(each["number"], lang) for each in beside["models"]]
    rule = lang(
        "同样这些行上的评测逐样本配对检验（配对自助法与置换检验；对错用 McNemar），p 值经 Holm 校正；"
        f"{BEST} 表示显著优于其他每个模型。",
        "Evaluations of the same rows, tested in pairs by sample (paired bootstrap and permutation; McNemar of right and "
        f"wrong), p by Holm; {BEST} marks what is significantly better than every other model.",
    )
    models = Table(["", *heads], _named(beside["models"], lang), wide=range(1, len(heads) + 1))
    sections = [
        Section("", [Text(rule, soft=True), models, *left, *_warned(beside, lang)]),
        Section(lang("质量", "Quality"), _quality(outcome, beside, heads, words, lang)),
        Section(lang("速度与内存", "Speed and memory"), _speed(beside, heads, lang)),
        Section(lang("成本", "Cost"), [_cost(beside["models"], heads, lang)]),
    ]
    return Chapter(title, sections)


def _head(number: int, lang: Lang) -> str:
    letter = LETTERS[number - 1]
    return lang(f"{letter}（本次）", f"{letter} (this)") if number == OWN else letter


def _named(models: Sequence[Mapping[str, Any]], lang: Lang) -> list[list[str]]:
    return [
        [lang("模型", "Model"), *(each["ref"] for each in models)],
        [lang("运行", "Run"), *(each["evaluation"] for each in models)],
        [lang("权重摘要", "Weights"), *(each["weights"][:12] for each in models)],
    ]


def _left_out(left: Sequence[Mapping[str, str]], lang: Lang) -> list[Part]:
    if not left:
        return []
    named = [f"{each['model']} ({each['run']}): {reason(each['why'], lang)}" for each in left[:_SHOWN]]
    more = lang(f"；另有 {len(left) - _SHOWN} 个", f"; {len(left) - _SHOWN} more") if len(left) > _SHOWN else ""
    return [Text(f"{lang('没有列入：', 'Left out: ')}{lang('；', '; ').join(named)}{more}", soft=True)]


def _warned(beside: Mapping[str, Any], lang: Lang) -> list[Part]:
    """What is to be known of the models, of several that are told the same once."""
    told = dict[str, list[str]]()
    for each in beside["warnings"]:
        model = next((one for one in beside["models"] if each.startswith(f"{one['ref']}: ")), None)
        said = each.removeprefix(f"{model['ref']}: ") if model else each
        told.setdefault(reason(said, lang), []).extend([LETTERS[model["number"] - 1]] if model else [])
    named = [f"{', '.join(letters)}{lang('：', ': ')}{said}" if letters else said for said, letters in told.items()]
    return [Points(named, warns=True)] if named else []


def _quality(outcome: Outcome, beside: Mapping[str, Any], heads: Sequence[str], words: Sequence[str], lang: Lang) -> list[Part]:
    rows, untested = [], list[tuple[str, str]]()
    for row in beside["scores"]:
        cells = [_value(_scale(row), each, number == row["best"]) for number, each in enumerate(row["values"], 1)]
        rows.append([label(row["name"], outcome), *cells])
        if row.get("untested"):
            untested.append((label(row["name"], outcome), reason(row["untested"], lang)))
    parts: list[Part] = [Points(words), Table([lang("得分", "Score"), *heads], rows, right=range(1, len(heads) + 1))]
    parts += _chart(outcome, beside, lang)
    if untested:
        told = by_reason(untested, lang("、", ", "), lang("：", ": "))
        parts.append(Text(f"{lang('没有检验：', 'Not tested: ')}{lang('；', '; ').join(told)}", soft=True))
    return [*parts, *_differences(outcome, beside, lang), *_flips(outcome, beside, lang)]


def _scale(row: Mapping[str, Any]) -> Score:
    return Score(row["name"], 0.0, 0, row["higher_is_better"], most=row["most"])


def _value(score: Score, found: Mapping[str, Any] | None, is_best: bool) -> str:
    if found is None or found["value"] is None:
        return "-"
    span = "" if found["low"] is None else f"\n({shown.value(score, found['low'])} - {shown.value(score, found['high'])})"
    return shown.value(score, found["value"]) + (f" {BEST}" if is_best else "") + span


def _chart(outcome: Outcome, beside: Mapping[str, Any], lang: Lang) -> list[Part]:
    """The score that decides, of each model as a bar."""
    row = next((each for each in beside["scores"] if each["name"] == beside["decides"]), None)
    if row is None or not row["most"]:
        return []
    rows = []
    for number, one in enumerate(row["values"], 1):
        if one and one["value"] is not None:
            span = None if one["low"] is None else (one["low"], one["high"])
            rows.append(
                [_head(number, lang), charts.bar(one["value"], row["most"], span), shown.value(_scale(row), one["value"])]
            )
    return [Table([label(row["name"], outcome), "", ""], rows, right=(2,), wide=())]


def _differences(outcome: Outcome, beside: Mapping[str, Any], lang: Lang) -> list[Part]:
    """This model's differences to each other one."""
    rows = []
    for row in beside["scores"]:
        for pair in row.get("pairs", ()):
            if OWN in (pair["first"], pair["second"]):
                rows.append(_difference(outcome, row, pair, lang))
    columns = [
        lang("得分", "Score"), lang("模型", "Models"), lang("差", "Difference"), lang("95 % 区间", "95 % interval"), "p (Holm)",
        lang("更好", "Better"), lang("样本", "Items"), lang("检验", "Test"),
    ]  # fmt: skip
    said = lang(
        "差是前一个模型减后一个；没有注明更好的，差别不显著。",
        "A difference is the first model's value minus the second one's; where none is called better, it is not significant.",
    )
    return [Table(columns, rows, right=(2, 3, 4, 6)), Text(said, soft=True)] if rows else []


def _difference(outcome: Outcome, row: Mapping[str, Any], pair: Mapping[str, Any], lang: Lang) -> list[str]:
    score, better = _scale(row), better_of(row, pair)
    low, high = pair["low"], pair["high"]
    sign = "+" if pair["difference"] > 0 else ""
    return [
        label(row["name"], outcome),
        f"{LETTERS[pair['first'] - 1]} - {LETTERS[pair['second'] - 1]}",
        sign + shown.value(score, pair["difference"]),
        "" if low is None else lang(" 至 ", " to ").join(shown.value(score, each) for each in (low, high)),
        chance(pair["p_holm"]),
        "" if better is None else LETTERS[better - 1],
        str(pair["samples"]),
        reason(pair["test"], lang),
    ]


def _flips(outcome: Outcome, beside: Mapping[str, Any], lang: Lang) -> list[Part]:
    own = LETTERS[OWN - 1]
    rows = [
        [label(name, outcome), LETTERS[other - 1], str(won), str(lost)]
        for name, other, won, lost in flips(beside)
        if won or lost
    ]
    columns = [
        lang("翻转", "Flips"),
        lang("另一个模型", "Other model"),
        lang(f"只有 {own} 对", f"Only {own} right"),
        lang("只有另一个对", "Only the other right"),
    ]
    return [Table(columns, rows, right=(2, 3), wide=())] if rows else []


def _speed(beside: Mapping[str, Any], heads: Sequence[str], lang: Lang) -> list[Part]:
    kinds: list[tuple[str, str, Callable[[float], str]]] = [
        (lang("每个样本秒数", "Seconds a sample"), "seconds_a_sample", console.number),
        (lang("每秒词元", "Tokens/s"), "tokens_per_second", console.number),
        (lang("内存峰值", "Peak memory"), "peak_memory_bytes", console.size),
    ]
    models, other = beside["models"], lang("不可比", "not comparable")
    rows = [[name, *(other if each[key] is None else write(each[key]) for each in models)] for name, key, write in kinds]
    why = f"{lang('原因：', 'Why: ')}{reason(beside['unequal'], lang)}" if beside["unequal"] else ""
    said = lang(
        "速度只在全部回答都是当次生成、条件相同时才可比；op=compare op.measure=true 单独测量每个模型。",
        "Speeds compare only where all answers were generated in that very run, in equal conditions; "
        "op=compare op.measure=true measures each model by itself.",
    )
    table = Table(["", *heads], rows, right=range(1, len(models) + 1))
    return [table, *([Text(why)] if why else []), Text(said, soft=True)]


def _cost(models: Sequence[Mapping[str, Any]], heads: Sequence[str], lang: Lang) -> Part:
    def judged(name: str, each: Mapping[str, Any]) -> str:
        return console.number(each["judge"][name]) if name in each["judge"] else ""

    rows = [
        [lang("磁盘占用", "Size on disk"), *("" if each["bytes"] is None else console.size(each["bytes"]) for each in models)],
        [lang("评委请求数", "Judge's calls"), *(judged("calls", each) for each in models)],
        [lang("其中缓存中已有的评分", "Ratings known from before"), *(judged("known", each) for each in models)],
        [lang("评委费用", "Judge's cost"), *(judged("cost", each) for each in models)],
        [lang("失败样本", "Failed samples"), *(_failures(each["failures"], lang) for each in models)],
    ]
    return Table(["", *heads], [[each or "-" for each in row] for row in rows if any(row[1:])], right=range(1, len(models) + 1))


def _failures(failures: Mapping[str, int], lang: Lang) -> str:
    kinds = [f"{kind_of(kind, lang)} {times}" for kind, times in failures.items()]
    return f"{sum(failures.values())} ({lang.listed(kinds)})" if kinds else "0"
