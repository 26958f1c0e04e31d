"""A comparison as one page of HTML that can be sent by mail: its tables are sorted by a click, nothing else runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlops_llm.eval import charts, comparison_shown, shown
from mlops_llm.eval.comparison import Comparison, Row, Together
from mlops_llm.eval.comparison_shown import BEST, UNEQUAL, costs, flipped, label, name
from mlops_llm.eval.conclusion import chance, sentences
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.layout import CELL, LONGEST, cut, document, long, more, section, table
from mlops_llm.eval.markup import Html, tag
from mlops_llm.eval.outcome import Sample, Score

SAMPLES = 200
"""Samples on the page, those on which models lie furthest apart; the table among the artifacts has all of them."""
LARGEST = 950_000
"""Bytes of the page: where texts are too long for it, they are cut shorter, down to `_SHORTEST` characters."""
_SHORTEST, _NAME = 60, 60


def page(found: Comparison, lang: Lang, *, texts: bool = True) -> str:
    """The page. Every text of a model or a dataset is shown as text.

    Args:
        found: the comparison.
        lang: of the conclusion; headings have both languages.
        texts: show prompts and answers; else there are numbers only.
    """
    most, rest = LONGEST, [_head(found), _conclusion(found, lang), _scores(found), _differences(found)]
    while True:
        made = document(cut(found.title, CELL), [*rest, _samples(found, most, texts)], "sort.js")
        if most <= _SHORTEST or len(made.encode("utf-8", "replace")) <= LARGEST:
            return made
        most = max(_SHORTEST, most * 2 // 3)


def _head(found: Comparison) -> Html:
    named = [tag("p", cut(each.name, CELL), class_="sub") for each in found.models]
    warned = [tag("div", f"⚠ {cut(each, 1000)}", class_="warning") for each in found.warnings]
    about = [tag("p", f"{key}: {cut(value, CELL)}", class_="note") for key, value in found.about.items()]
    return Html("\n".join([tag("h1", cut(found.title, CELL)), *named, *about, *warned]))


def _conclusion(found: Comparison, lang: Lang) -> Html:
    told = [tag("p", cut(each, 1000)) for each in sentences(found, lang)]
    return section("Conclusion", "结论", tag("div", *told, class_="said", lang=lang.name))


def _scores(found: Comparison) -> Html:
    heads = ["Score 得分", *(name(each) for each in found.models), "Noise under 噪声", "Samples 样本", "Not tested 未检验"]
    rows: list[list[Any]] = [
        [
            tag("b", cut(label(found, row.score.name), _NAME))
            + _note("↓ lower is better 越低越好", row.score.higher_is_better is False),
            *(_value(row, number, value) for number, value in zip(row.numbers, row.values, strict=True)),
            _noise(found, row),
            min((each.found.count for each in row.pairs), default=""),
            row.untested,
        ]
        for row in found.rows
    ]
    rows = [[Html(row[0]), *row[1:]] for row in rows]
    taken = [[Html(tag("b", english, tag("span", chinese, class_="zh"))), *cells] for english, chinese, cells in costs(found)]
    why = tag("p", f"Speed and memory 速度与内存: {found.unequal}", class_="note") if found.unequal else None
    shapes = {0: "name"} | dict.fromkeys(range(1, len(found.models) + 1), "number")
    stars = f"{BEST} significantly better than every other model 显著优于其他每个模型 (Holm) · 95 % intervals 区间"
    return Html(
        section("Scores", "各项得分", tag("p", stars, class_="note"), table(heads, rows, {0: "name"}, "sortable"))
        + section("Cost", "代价", table(["", *heads[1 : len(found.models) + 1]], taken, shapes), why)
    )


def _value(row: Row, number: int, value: Score | None) -> Html:
    if value is None:
        return tag("span", "-" if any(row.values) else UNEQUAL)
    is_best = row.best == number
    drawn = charts.bar(value.value, value.most, value.interval) if value.most else None
    said = tag("b", shown.value(value) + (f" {BEST}" if is_best else ""), class_="best" if is_best else None)
    return Html(said + (drawn or "") + _note(shown.between(value), bool(value.interval)))


def _noise(found: Comparison, row: Row) -> str:
    bounds = found.resolved(row) if row.pairs else None
    if bounds is None:
        return ""
    low, high = (shown.value(row.score, each) for each in bounds)
    return low if low == high else f"{low} to {high}"


def _differences(found: Comparison) -> Html:
    rows = []
    for row in found.rows:
        for pair in row.pairs:
            apart, between, better = comparison_shown.difference(row, pair)
            sure = [chance(pair.found.p), chance(pair.adjusted)]
            models = f"{pair.first} − {pair.second}"
            needed = found.needs(pair)
            enough = "" if pair.is_significant or needed is None else needed
            rows.append(
                [label(found, row.score.name), models, apart, between, *sure, better, enough, pair.found.count, pair.found.test]
            )
    if not rows:
        return Html()
    heads = [
        "Score 得分",
        "Models 模型",
        "Difference 差",
        "95 % interval 区间",
        "p",
        "p (Holm)",
        "Better 更好",
        "Samples to decide 需要样本",
    ]
    return section(
        "Differences",
        "两两之差",
        table(
            [*heads, "Samples 样本", "Test 检验"], rows, {0: "name"} | dict.fromkeys(range(1, 10), "number"), "sortable dense"
        ),
    )


def _samples(found: Comparison, most: int, texts: bool) -> Html:
    if not found.samples:
        return Html()
    heads = ["Row 行", "Apart 分歧", "Winner 胜者", *(f"{each.number}" for each in found.models), "Flips 翻转"]
    some = found.samples[:SAMPLES]
    if texts:
        heads = [*heads[:3], "Prompt 问题", *(name(each) for each in found.models), heads[-1]]
    rows = [_sample(found, each, most, texts) for each in some]
    said = "sorted by how far the models lie apart 按分歧从大到小"
    flips = sum(bool(each.flips) for each in found.samples)
    said += f" · {flips} flips: right in one model, wrong in another 一个对一个错" if flips else ""
    shapes = dict.fromkeys(range(3), "number")
    return section(
        "Samples",
        "样本",
        tag("p", said, class_="note"),
        table(heads, rows, shapes, "sortable side"),
        more(len(found.samples), SAMPLES),
    )


def _sample(found: Comparison, each: Together, most: int, texts: bool) -> Sequence[Any]:
    first = each.samples[0]
    cells = [
        _answer(comparison_shown.value(found, each, number), sample, each.winner == number, most, texts)
        for number, sample in enumerate(each.samples, 1)
    ]
    winner = "" if each.winner is None else str(each.winner)
    head = [shown.row(first), f"{each.disagreement:.2f}", winner]
    if texts:
        head.append(tag("div", long(first.asked or first.prompt, most), class_="answer", dir="auto"))
    return [*head, *cells, flipped(found, each)]


def _answer(value: str, sample: Sample, is_winner: bool, most: int, texts: bool) -> Html:
    said = tag("b", value + (f" {BEST}" if is_winner else ""), class_="best" if is_winner else None) if value else Html()
    failed = tag("span", sample.failure.kind.value, class_="chip bad") if sample.failure else Html()
    answer = tag("div", long(sample.answer, most), class_="answer", dir="auto") if texts and sample.answer else Html()
    return Html(said + failed + answer)


def _note(said: str, wanted: bool) -> Html:
    return tag("div", said, class_="note") if wanted else Html()
