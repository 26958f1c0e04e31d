"""What a person reads of a comparison on a terminal, and the words that its page shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mlops_llm import console
from mlops_llm.data.preview import safe
from mlops_llm.errors import printable
from mlops_llm.eval import shown
from mlops_llm.eval.comparison import Comparison, Cost, Model, Pair, Row, Together
from mlops_llm.eval.conclusion import chance, sentences
from mlops_llm.eval.lang import Lang
from mlops_llm.record import Grid

SAMPLES, PAIRS = 5, 24
"""Samples, and differences of other scores than the one that decides, that are printed."""
UNEQUAL = "not comparable"
BEST = "★"
"""Behind the value of a model that is significantly better than every other one."""
_LONGEST, _NAME = 160, 36


def label(found: Comparison, name: str) -> str:
    """A score's name for a person."""
    return shown.label(name, found.models[0].outcome)


def name(model: Model) -> str:
    """A model's number and the end of its ref, which tells more than the beginning."""
    ref = printable(model.ref)
    return f"{model.number} {ref if len(ref) <= _NAME else '…' + ref[-_NAME:]}"


def costs(found: Comparison) -> list[tuple[str, str, list[str]]]:
    """What models take: label, label in Chinese, and a cell for each model."""
    kinds: list[tuple[str, str, Callable[[Cost], str | None]]] = [
        ("seconds a sample", "每样本秒数", lambda cost: None if cost.seconds is None else f"{cost.seconds:.3f}"),
        ("tokens/s", "每秒 token", lambda cost: None if cost.tokens is None else f"{cost.tokens:.1f}"),
        ("peak memory", "内存峰值", lambda cost: None if cost.memory is None else console.size(cost.memory)),
        ("size on disk", "磁盘占用", lambda cost: "" if cost.bytes is None else console.size(cost.bytes)),
        ("judge", "评委用量", _judged),
    ]
    made = _unanswered(found)
    for english, chinese, write in kinds:
        cells = [write(each.cost) for each in found.models]
        if any(cells) or None in cells:
            made.append((english, chinese, [UNEQUAL if None in cells else str(each) for each in cells]))
    return made


def _unanswered(found: Comparison) -> list[tuple[str, str, list[str]]]:
    """How many samples each model did not answer, where one did not answer all."""
    lacking = [sum(one.failure is not None and not one.answer for one in each.outcome.samples) for each in found.models]
    return [("no answer", "没有回答", list(map(str, lacking)))] if any(lacking) else []


def difference(row: Row, pair: Pair) -> tuple[str, str, str]:
    """A pair's difference with its sign, its interval, and the better model's number where there is one."""
    found = pair.found
    between = (
        f"{shown.value(row.score, found.interval[0])} to {shown.value(row.score, found.interval[1])}" if found.interval else ""
    )
    sign = "+" if found.difference > 0 else ""
    better = ""
    if pair.is_significant:
        better = str(pair.first if row.beats(pair.first, pair.second) else pair.second)
    return sign + shown.value(row.score, found.difference), between, better


def table(found: Comparison) -> Grid:
    """Every score and cost by model."""
    rows = []
    for row in found.rows:
        cells = []
        for number, value in zip(row.numbers, row.values, strict=True):
            nothing = "-" if any(row.values) else UNEQUAL
            said = f"{shown.value(value)} {BEST if row.best == number else ''}".strip() if value else nothing
            cells.append(f"{said}  ({shown.between(value)})" if value and value.interval else said)
        rows.append(
            [_cell(label(found, row.score.name)), *cells, "↓" if row.score.higher_is_better is False else "", row.untested]
        )
    rows += [[english, *cells, "", ""] for english, _, cells in costs(found)]
    heads = ["score", *(name(each) for each in found.models), "", "not tested"]
    kept = [place for place in range(len(heads)) if any(row[place] for row in rows)]
    title = f"{found.title}   {BEST} significantly better than every other"
    return Grid(_cell(title), [heads[place] for place in kept], [[row[place] for place in kept] for row in rows])


def differences(found: Comparison, rows: Sequence[Row]) -> Grid:
    """The differences of every pair."""
    made = []
    for row in rows:
        for pair in row.pairs:
            apart, between, better = difference(row, pair)
            models, name, p = f"{pair.first} - {pair.second}", _cell(label(found, row.score.name)), chance(pair.adjusted)
            made.append([name, models, apart, between, p, better, str(pair.found.count), pair.found.test])
    return Grid(
        "differences", ["score", "models", "difference", "95 % interval", "p (Holm)", "better", "samples", "test"], made
    )


def lines(found: Comparison, lang: Lang, samples: int = SAMPLES) -> list[Grid | str]:
    """What `record.Result.shown` takes: the table, differences, samples on which models lie apart, the conclusion, warnings."""
    head = found.head
    told: list[Grid | str] = [table(found)]
    if head:
        told.append(differences(found, found.rows if found.comparisons <= PAIRS else [head]))
    apart = [each for each in found.samples[:samples] if each.disagreement or each.flips]
    if apart:
        told.append("[bold]where the models lie furthest apart[/]")
        told += [_sample(each, found) for each in apart]
        told.append("")
    told += [f"[bold]·[/] {safe(each)}" for each in sentences(found, lang)]
    if found.unequal:
        told.append(f"[dim]speed and memory: {safe(found.unequal)}[/]")
    return [*told, *(f"[yellow]⚠[/yellow] {_line(each, 600)}" for each in found.warnings)]


def flipped(found: Comparison, together: Together) -> str:
    """By which scores a sample is right of one model and wrong of another, and of which: `exact_match: 1 right, 2 wrong`."""
    told = []
    for score in together.flips:
        sides = {1.0: list[str](), 0.0: list[str]()}
        for number, each in enumerate(together.samples, 1):
            if score in each.scores:
                sides[each.scores[score]].append(str(number))
        told.append(f"{label(found, score)}: {', '.join(sides[1.0])} right, {', '.join(sides[0.0])} wrong")
    return "; ".join(told)


def value(found: Comparison, together: Together, number: int) -> str:
    """A model's value by the score that tells the winner, with its name where it is not the one that decides otherwise."""
    if together.by is None:
        return ""
    of, head = together.by.name, found.head
    name = "" if head and head.score.name == of else f" {label(found, of)}"
    return shown.value(together.by, together.samples[number - 1].scores[of]) + name


def _sample(each: Together, found: Comparison) -> str:
    first = each.samples[0]
    rows = [
        f"      [dim]{number}[/]  {value(found, each, number):>6}{' ' + BEST if each.winner == number else '  '} "
        f"{_line(sample.answer) or ('[red]' + _line(sample.failure.kind.value) + '[/]' if sample.failure else '')}"
        for number, sample in enumerate(each.samples, 1)
    ]
    flips = flipped(found, each)
    head = f"[bold]{_line(shown.row(first)):>4}[/]  {_line(first.asked or first.prompt)}"
    return "\n".join([head, *rows, *([f"      [dim]flip[/]  {_line(flips)}"] if flips else [])])


def _cell(text: str, most: int = _LONGEST) -> str:
    return printable(text[:most])


def _line(text: str, most: int = _LONGEST) -> str:
    flat = " ".join(text[: most * 8].split())
    return safe(flat if len(flat) <= most else f"{flat[:most]}…")


def _judged(cost: Cost) -> str:
    """Calls of the judge, what they cost, and how many ratings were known from before: `26 calls (3 known), cost 0.12`."""
    if not cost.judge:
        return ""
    known = f" ({cost.judge['known']:,.0f} known)" if cost.judge.get("known") else ""
    paid = f", cost {cost.judge['cost']:.4g}" if "cost" in cost.judge else ""
    return f"{cost.judge.get('calls', 0):,.0f} calls{known}{paid}"


def facts(found: Comparison) -> dict[str, Any]:
    """Label -> value for `record.Result.table`."""
    names = {f"model {each.number}": printable(each.ref) for each in found.models}
    return {**names, "dataset": _cell(found.dataset), "samples": len(found.samples), "comparisons": found.comparisons}
