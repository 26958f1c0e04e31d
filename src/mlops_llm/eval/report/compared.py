"""The chapter that sets an evaluation beside others of the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlops_llm import console
from mlops_llm.eval import charts, shown
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.outcome import Outcome
from mlops_llm.eval.recording import PREFIX, named
from mlops_llm.eval.report.document import Chapter, Part, Points, Section, Table, Text
from mlops_llm.eval.report.findings import decisive, label

_CONDITIONS = {
    "rows": "样本",
    "engine": "引擎",
    "settings of the engine": "引擎设置",
    "batch size": "批大小",
    "answer length": "回答长度",
    "sampling": "采样",
    "number format": "数值格式",
    "processor": "处理器",
    "GPU": "GPU",
    "torch": "torch 版本",
    "transformers": "transformers 版本",
}


def comparison(outcome: Outcome, found: Mapping[str, Any] | None, words: Sequence[str], lang: Lang) -> Chapter:
    """The chapter.

    Args:
        outcome: what was found.
        found: see `rivals.comparison`; None where the record was not asked.
        words: what is certainly better or worse.
        lang: language.
    """
    title = lang("模型对比", "Comparison")
    if not found or len(found["runs"]) < 2:
        none = lang(
            "记录里没有其他模型在同样这些行上的评测。", "The record has no evaluation of another model on exactly these rows."
        )
        return Chapter(title, [Section("", [Text(none)])])
    runs = found["runs"]
    heads = [_head(each, place, lang) for place, each in enumerate(runs)]
    rule = lang(
        "同一个评测集版本的同样这些行（按摘要）。只有 95 % 区间不重叠时才说更好或更差；"
        "逐样本的检验见 python -m mlops_llm.eval op=compare。",
        "The same rows of the same version (by digest). Better or worse is said only where the 95 % intervals do not overlap; "
        "for tests by sample: python -m mlops_llm.eval op=compare.",
    )
    left = found["left_out"]
    more = lang(f"另有 {left} 个模型的评测没有列出。", f"Evaluations of {left} more models are not listed.") if left else ""
    quality: list[Part] = [_quality(outcome, runs, heads, lang), Points(words), *_chart(outcome, runs, lang)]
    sections = [
        Section("", [Text(f"{rule}{more}", soft=True), Table(["", *heads], _named(runs, lang), wide=range(1, len(runs) + 1))]),
        Section(lang("质量", "Quality"), quality),
        Section(lang("速度与内存", "Speed and memory"), _speed(runs, heads, lang)),
        Section(lang("成本", "Cost"), [_cost(runs, heads, lang)]),
    ]
    return Chapter(title, sections)


def _head(run: Mapping[str, Any], place: int, lang: Lang) -> str:
    letter = "ABCDEFGH"[place]
    return lang(f"{letter}（本次）", f"{letter} (this)") if place == 0 else letter


def _named(runs: Sequence[Mapping[str, Any]], lang: Lang) -> list[list[str]]:
    return [
        [lang("模型", "Model"), *(each["model"] for each in runs)],
        [lang("运行", "Run"), *(each["run"] for each in runs)],
        [lang("权重摘要", "Weights"), *(each["weights"][:12] for each in runs)],
    ]


def _quality(outcome: Outcome, runs: Sequence[Mapping[str, Any]], heads: Sequence[str], lang: Lang) -> Table:
    rows = []
    for each in outcome.scores:
        cells = []
        for run in runs:
            score = run["scores"].get(named(each.name).removeprefix(PREFIX))
            interval = score["interval"] if score else None
            span = f" ({shown.value(each, interval[0])} - {shown.value(each, interval[1])})" if interval else ""
            cells.append(shown.value(each, score["value"]) + span if score else "-")
        rows.append([label(each.name, outcome), *cells])
    return Table([lang("得分", "Score"), *heads], rows, right=range(1, len(runs) + 1))


def _chart(outcome: Outcome, runs: Sequence[Mapping[str, Any]], lang: Lang) -> list[Part]:
    """The decisive score of each as a bar."""
    score = decisive(outcome)
    if score is None or not score.most:
        return []
    key, rows = named(score.name).removeprefix(PREFIX), []
    for place, run in enumerate(runs):
        one = run["scores"].get(key)
        if one:
            drawn = charts.bar(one["value"], score.most, tuple(one["interval"]) if one["interval"] else None)
            rows.append([_head(run, place, lang), drawn, shown.value(score, one["value"])])
    return [Table([label(score.name, outcome), "", ""], rows, right=(2,), wide=())]


def _speed(runs: Sequence[Mapping[str, Any]], heads: Sequence[str], lang: Lang) -> list[Part]:
    """What each took; of one that ran in other conditions nothing that could be compared."""
    rows = [
        (lang("每个样本秒数", "Seconds a sample"), "seconds_a_sample", console.number),
        (lang("每秒词元", "Tokens/s"), "tokens_per_second", console.number),
        (lang("内存峰值", "Peak memory"), "peak_memory_bytes", console.size),
        (lang("显存峰值", "Peak GPU memory"), "peak_gpu_memory_bytes", console.size),
    ]
    other = lang("不可比", "not comparable")
    table = [
        [
            name,
            *(other if run["other_conditions"] else written(run["speed"][key]) if key in run["speed"] else "-" for run in runs),
        ]
        for name, key, written in rows
        if any(key in run["speed"] for run in runs)
    ]
    notes = list[Part]()
    for head, run in zip(heads, runs, strict=True):
        names = [lang(_CONDITIONS[each], each) for each in run["other_conditions"]]
        if names:
            notes.append(Text(f"{head}: {lang('条件不同', 'other conditions')}: {lang.listed(names)}", soft=True))
    seen = lang(
        "只在全部回答都是当次生成时才有秒数。", "Seconds are known only where all answers were generated in that very run."
    )
    return [Table(["", *heads], table, right=range(1, len(runs) + 1)), *notes, Text(seen, soft=True)]


def _cost(runs: Sequence[Mapping[str, Any]], heads: Sequence[str], lang: Lang) -> Part:
    rows = [
        [name, *(console.number(run["cost"][key]) if key in run["cost"] else "-" for run in runs)]
        for name, key in (
            (lang("评委请求数", "Judge's calls"), "judge_calls"),
            (lang("评委费用", "Judge's cost"), "judge_cost"),
        )
        if any(key in run["cost"] for run in runs)
    ]
    if not rows:
        return Text(lang("没有用到收费的评委。", "No judge was paid."))
    return Table(["", *heads], rows, right=range(1, len(runs) + 1))
