"""An evaluation as one page of HTML: it needs no script and nothing from elsewhere, so that it can be sent by mail."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mlops_llm.console import number, seconds
from mlops_llm.eval import charts, shown
from mlops_llm.eval.layout import CELL, LONGEST, cut, document, long, more, section, table
from mlops_llm.eval.markup import Html, tag
from mlops_llm.eval.outcome import Outcome, Sample, Score
from mlops_llm.record import Grid

SAMPLES = 50
"""Samples on the page; the table among the artifacts has all of them."""
FAILURES, LOWEST = 50, 10
_ROWS, _CHARTS, _PROMPT, _NAME = 200, 24, 100, 60
_SHAPES = {0: "name", 2: "number", 3: "number", 4: "number", 5: "number", 6: "number"}
"""Of the columns of scores."""
_CLASSES = {
    "timeout": "超时",
    "empty": "空回答",
    "too long": "过长",
    "unparsable": "无法解析",
    "refused": "被拒绝",
    "server": "服务错误",
}


def page(outcome: Outcome, *, texts: bool = True) -> str:
    """The page. Every text of a model, a dataset or a judge is shown as text, cut where it is very long.

    Args:
        outcome: what was found.
        texts: show prompts, answers and comments; else there are numbers only.
    """
    parts = [
        tag("h1", cut(outcome.title, CELL)),
        tag("p", cut(" · ".join(filter(None, [outcome.model, outcome.dataset, outcome.engine])), CELL), class_="sub"),
        *(tag("div", f"⚠ {cut(each, 1000)}", class_="warning") for each in outcome.warnings),
        _totals(outcome),
        _scores(outcome),
        _distribution(outcome),
        _groups(outcome),
        *(_grid(grid) for grid in outcome.tables.values()),
        _failures(outcome, texts),
        *((_samples(outcome), _lowest(outcome)) if texts else ()),
        _facts(outcome),
    ]
    return document(cut(outcome.title, CELL), parts)


def _totals(outcome: Outcome) -> Html:
    cards, whole, count = [], shown.overall(outcome), len(outcome.samples)
    head = whole or (outcome.scores[0] if outcome.scores else None)
    if head:
        title = ("Overall score", "总分") if whole else (_name(head.name, outcome), "")
        most = f" / {head.most:g}" if head.most is not None else ""
        cards.append(_card(*title, shown.value(head) + most, [_interval(head), _seen(head)], "main"))
    if count:
        share = f"{outcome.succeeded / count:.1%}"
        cards.append(_card("Samples", "样本", count))
        cards.append(_card("Success", "成功", outcome.succeeded, [share], "good"))
        kinds = ", ".join(f"{kind} {times}" for kind, times in outcome.failures.most_common())
        cards.append(_card("Failed", "失败", count - outcome.succeeded, [kinds], "bad" if kinds else ""))
    return tag("div", *cards, class_="cards") if cards else Html()


def _card(title: str, chinese: str, value: Any, notes: Iterable[str] = (), kind: str = "") -> Html:
    head = tag("span", title, tag("span", chinese, class_="zh") if chinese else None)
    return tag("div", head, tag("b", value), *(tag("small", each) for each in notes if each), class_=f"card {kind}".strip())


def _scores(outcome: Outcome) -> Html:
    if not outcome.scores:
        return Html()
    rows = [
        [
            Html(tag("b", _name(each.name, outcome)) + _how(each)),
            charts.bar(each.value, each.most, each.interval) if each.most else "",
            shown.value(each),
            shown.between(each),
            each.count,
            shown.value(each, each.answered) if each.answered is not None else "",
            _seen(each).replace(" of items seen in training", ""),
        ]
        for each in outcome.scores
    ]
    heads = [
        "Score",
        "",
        "Value 得分",
        "95 % interval 区间",
        "Items 样本",
        "Answered only 仅成功",
        "Seen in training 训练中见过",
    ]
    return section("Scores", "各项得分", table(heads, rows, _SHAPES))


def _distribution(outcome: Outcome) -> Html:
    most = {each.name: each.most for each in outcome.scores}
    found: dict[str, list[float]] = {}
    for sample in outcome.samples:
        for name, each in sample.scores.items():
            found.setdefault(name, []).append(each)
    if not found:
        return Html()
    drawn = [
        tag("figure", tag("figcaption", _name(name, outcome)), charts.histogram(values, most.get(name)))
        for name, values in list(found.items())[:_CHARTS]
    ]
    return section("Distribution", "得分分布", tag("div", *drawn, class_="charts"))


def _groups(outcome: Outcome) -> Html:
    if not outcome.groups:
        return Html()
    grid = shown.grouped(outcome)
    return section("By metadata", "分组结果", table(grid.columns, grid.rows[:_ROWS]), more(len(grid.rows), _ROWS))


def _grid(grid: Grid) -> Html:
    rows = [[number(cell) for cell in row] for row in grid.rows[:_ROWS]]
    return section(cut(grid.title, CELL), "", table(grid.columns, rows), more(len(grid.rows), _ROWS))


def _failures(outcome: Outcome, texts: bool) -> Html:
    if not outcome.failures:
        return Html()
    count = len(outcome.samples)
    classes = [[kind, _CLASSES.get(kind, ""), times, f"{times / count:.1%}"] for kind, times in outcome.failures.most_common()]
    failed = [each for each in outcome.samples if each.failure]
    rows = [
        [shown.row(each), each.failure.kind.value, cut(each.failure.cause, CELL), cut(each.prompt, _PROMPT) if texts else ""]
        for each in failed[:FAILURES]
        if each.failure
    ]
    return section(
        "Failures",
        "失败样本",
        table(["Class 类别", "", "Times 次数", "Share 占比"], classes),
        tag("p", ""),
        table(["Row 行", "Class 类别", "Cause 原因", "Prompt 问题"], rows),
        more(len(failed), FAILURES),
    )


def _samples(outcome: Outcome) -> Html:
    if not outcome.samples:
        return Html()
    some = outcome.samples[:SAMPLES]
    title = f"First {len(some)} of {len(outcome.samples)} samples" if len(some) < len(outcome.samples) else "Samples"
    return section(title, "样本", *(_sample(each, outcome) for each in some))


def _lowest(outcome: Outcome) -> Html:
    """The answers that came out worst, where the first ones are not all of them."""
    good = [each for each in outcome.scores if each.higher_is_better]
    head = shown.overall(outcome) or next(
        (each for each in good if any(each.name in one.scores for one in outcome.samples)), None
    )
    if head is None or len(outcome.samples) <= SAMPLES:
        return Html()
    found = sorted((each for each in outcome.samples if head.name in each.scores), key=lambda each: each.scores[head.name])
    return section(
        f"Lowest by {shown.label(head.name, outcome)}", "得分最低", *(_sample(each, outcome) for each in found[:LOWEST])
    )


def _sample(sample: Sample, outcome: Outcome) -> Html:
    chips = [
        tag("span", cut(name, _NAME), " ", tag("b", value), class_="chip") for name, value in shown.numbers(sample, outcome)
    ]
    if sample.failure:
        chips.append(
            tag("span", f"{sample.failure.kind.value} {_CLASSES.get(sample.failure.kind.value, '')}", class_="chip bad")
        )
    if sample.was_seen:
        chips.append(tag("span", "seen in training 训练中见过", class_="chip seen"))
    chips += [tag("span", each, class_="chip") for each in [*(["cut 截断"] if sample.cut else []), *sample.flags]]
    took = seconds(sample.seconds) if sample.seconds else ""
    notes = " · ".join(filter(None, [took, f"{sample.tokens} tokens" if sample.tokens else ""]))
    rows: list[tuple[str, Any]] = [("Prompt 问题", long(sample.prompt))]
    rows += [("Answer 回答", long(sample.answer) if sample.answer else tag("i", "none 无"))]
    rows += [("Reference 参考", long(each)) for each in sample.references[:3]]
    rows += [("Label 类别", long(sample.label))] if sample.label is not None else []
    rows += [("Comment 评语", tag("span", long(sample.comment), class_="rated"))] if sample.comment else []
    rows += [("Failure 失败", long(sample.failure.cause))] if sample.failure else []
    rows += (
        [("Metadata", ", ".join(f"{key}: {cut(value, CELL)}" for key, value in sample.metadata.items()))]
        if sample.metadata
        else []
    )
    inside = [part for name, said in rows for part in (tag("dt", name), tag("dd", said, dir="auto"))]
    head = tag("h3", f"#{shown.row(sample)}", *chips, tag("span", notes) if notes else None)
    return tag("article", head, tag("dl", *inside), class_="sample failed" if sample.failure else "sample")


def _facts(outcome: Outcome) -> Html:
    if not outcome.facts:
        return Html()
    inside = [part for name, said in outcome.facts.items() for part in (tag("dt", name), tag("dd", cut(said, LONGEST)))]
    return section("Facts", "评测条件", tag("dl", *inside))


def _name(name: str, outcome: Outcome) -> str:
    return cut(shown.label(name, outcome), _NAME)


def _how(score: Score) -> Html:
    """How a score was counted, and which end of it is the good one where that is not the upper one."""
    said = " · ".join(
        filter(None, [cut(score.signature, CELL), "" if score.higher_is_better is not False else "↓ lower is better 越低越好"])
    )
    return tag("div", said, class_="note") if said else Html()


def _interval(score: Score) -> str:
    return f"95 %: {shown.between(score)}" if score.interval else ""


def _seen(score: Score) -> str:
    """What `shown.stamped` says behind the value."""
    return shown.stamped(score).removeprefix(shown.value(score)).strip(" ()")
