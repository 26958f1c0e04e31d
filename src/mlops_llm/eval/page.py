"""An evaluation as one page of HTML: it needs no script and nothing from elsewhere, so that it can be sent by mail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlops_llm.console import number, seconds
from mlops_llm.eval import charts, shown
from mlops_llm.eval.markup import Html, tag, text
from mlops_llm.eval.outcome import Outcome, Sample, Score
from mlops_llm.record import Grid

SAMPLES = 50
"""Samples on the page; the table among the artifacts has all of them."""
FAILURES, LOWEST = 50, 10
LONGEST = 3000
"""Characters of a text on the page."""
_ROWS, _CHARTS, _CELL, _PROMPT, _NAME = 200, 24, 300, 100, 60
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
        tag("h1", _cut(outcome.title, _CELL)),
        tag("p", _cut(" · ".join(filter(None, [outcome.model, outcome.dataset, outcome.engine])), _CELL), class_="sub"),
        *(tag("div", f"⚠ {_cut(each, 1000)}", class_="warning") for each in outcome.warnings),
        _totals(outcome),
        _scores(outcome),
        _distribution(outcome),
        _groups(outcome),
        *(_grid(grid) for grid in outcome.tables.values()),
        _failures(outcome, texts),
        *((_samples(outcome), _lowest(outcome)) if texts else ()),
        _facts(outcome),
    ]
    style = Path(__file__).with_name("page.css").read_text("utf-8")
    # Nothing is loaded or run, even if something got through.
    policy = tag("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'")
    head = [
        '<meta charset="utf-8">', policy.removesuffix("</meta>"), '<meta name="viewport" content="width=device-width">',
        tag("title", _cut(outcome.title, _CELL)), f"<style>{style}</style>",
    ]  # fmt: skip
    body = "\n".join(filter(None, parts))
    return f'<!DOCTYPE html>\n<html lang="zh-Hans"><head>\n{"".join(head)}\n</head><body>\n{body}\n</body></html>\n'


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
    return _section("Scores", "各项得分", _table(heads, rows, _SHAPES))


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
    return _section("Distribution", "得分分布", tag("div", *drawn, class_="charts"))


def _groups(outcome: Outcome) -> Html:
    if not outcome.groups:
        return Html()
    grid = shown.grouped(outcome)
    return _section("By metadata", "分组结果", _table(grid.columns, grid.rows[:_ROWS]), _more(len(grid.rows), _ROWS))


def _grid(grid: Grid) -> Html:
    rows = [[number(cell) for cell in row] for row in grid.rows[:_ROWS]]
    return _section(_cut(grid.title, _CELL), "", _table(grid.columns, rows), _more(len(grid.rows), _ROWS))


def _failures(outcome: Outcome, texts: bool) -> Html:
    if not outcome.failures:
        return Html()
    count = len(outcome.samples)
    classes = [[kind, _CLASSES.get(kind, ""), times, f"{times / count:.1%}"] for kind, times in outcome.failures.most_common()]
    failed = [each for each in outcome.samples if each.failure]
    rows = [
        [shown.row(each), each.failure.kind.value, _cut(each.failure.cause, _CELL), _cut(each.prompt, _PROMPT) if texts else ""]
        for each in failed[:FAILURES]
        if each.failure
    ]
    return _section(
        "Failures",
        "失败样本",
        _table(["Class 类别", "", "Times 次数", "Share 占比"], classes),
        tag("p", ""),
        _table(["Row 行", "Class 类别", "Cause 原因", "Prompt 问题"], rows),
        _more(len(failed), FAILURES),
    )


def _samples(outcome: Outcome) -> Html:
    if not outcome.samples:
        return Html()
    some = outcome.samples[:SAMPLES]
    title = f"First {len(some)} of {len(outcome.samples)} samples" if len(some) < len(outcome.samples) else "Samples"
    return _section(title, "样本", *(_sample(each, outcome) for each in some))


def _lowest(outcome: Outcome) -> Html:
    """The answers that came out worst, where the first ones are not all of them."""
    good = [each for each in outcome.scores if each.higher_is_better]
    head = shown.overall(outcome) or next(
        (each for each in good if any(each.name in one.scores for one in outcome.samples)), None
    )
    if head is None or len(outcome.samples) <= SAMPLES:
        return Html()
    found = sorted((each for each in outcome.samples if head.name in each.scores), key=lambda each: each.scores[head.name])
    return _section(
        f"Lowest by {shown.label(head.name, outcome)}", "得分最低", *(_sample(each, outcome) for each in found[:LOWEST])
    )


def _sample(sample: Sample, outcome: Outcome) -> Html:
    chips = [
        tag("span", _cut(name, _NAME), " ", tag("b", value), class_="chip") for name, value in shown.numbers(sample, outcome)
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
    rows: list[tuple[str, Any]] = [("Prompt 问题", _long(sample.prompt))]
    rows += [("Answer 回答", _long(sample.answer) if sample.answer else tag("i", "none 无"))]
    rows += [("Reference 参考", _long(each)) for each in sample.references[:3]]
    rows += [("Label 类别", _long(sample.label))] if sample.label is not None else []
    rows += [("Comment 评语", tag("span", _long(sample.comment), class_="rated"))] if sample.comment else []
    rows += [("Failure 失败", _long(sample.failure.cause))] if sample.failure else []
    rows += (
        [("Metadata", ", ".join(f"{key}: {_cut(value, _CELL)}" for key, value in sample.metadata.items()))]
        if sample.metadata
        else []
    )
    inside = [part for name, said in rows for part in (tag("dt", name), tag("dd", said, dir="auto"))]
    head = tag("h3", f"#{shown.row(sample)}", *chips, tag("span", notes) if notes else None)
    return tag("article", head, tag("dl", *inside), class_="sample failed" if sample.failure else "sample")


def _facts(outcome: Outcome) -> Html:
    if not outcome.facts:
        return Html()
    inside = [part for name, said in outcome.facts.items() for part in (tag("dt", name), tag("dd", _cut(said, LONGEST)))]
    return _section("Facts", "评测条件", tag("dl", *inside))


def _section(title: str, chinese: str, *inside: Any) -> Html:
    return tag("section", tag("h2", title, tag("span", chinese) if chinese else None), *inside)


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]], shapes: Mapping[int, str] | None = None) -> Html:
    """A table without the columns in which nothing stands; `shapes` are CSS classes of columns."""
    kept = [place for place in range(len(heads)) if any(row[place] not in ("", None) for row in rows)]
    shapes = shapes or {}
    head = tag("tr", *(tag("th", heads[place]) for place in kept))
    body = [tag("tr", *(tag("td", _of_cell(row[place]), class_=shapes.get(place)) for place in kept)) for row in rows]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="scroll")


def _of_cell(cell: Any) -> Any:
    return cell if isinstance(cell, Html) else tag("bdi", _cut(str(cell), _CELL))


def _name(name: str, outcome: Outcome) -> str:
    return _cut(shown.label(name, outcome), _NAME)


def _how(score: Score) -> Html:
    """How a score was counted, and which end of it is the good one where that is not the upper one."""
    said = " · ".join(
        filter(
            None, [_cut(score.signature, _CELL), "" if score.higher_is_better is not False else "↓ lower is better 越低越好"]
        )
    )
    return tag("div", said, class_="note") if said else Html()


def _interval(score: Score) -> str:
    return f"95 %: {shown.between(score)}" if score.interval else ""


def _seen(score: Score) -> str:
    """What `shown.stamped` says behind the value."""
    return shown.stamped(score).removeprefix(shown.value(score)).strip(" ()")


def _more(count: int, most: int) -> Html | None:
    return tag("p", f"… and {count - most} more in the artifacts", class_="note") if count > most else None


def _long(said: str) -> Html:
    if len(said) <= LONGEST:
        return text(said)
    left = f" … (cut 已截断; {len(said):,} characters, whole in the table of answers)"
    return Html(text(said[:LONGEST]) + tag("i", left))


def _cut(said: str, most: int) -> str:
    return said if len(said) <= most else f"{said[:most]}…"
