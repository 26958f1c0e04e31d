"""What a person reads of an evaluation: on a terminal, and the words and tables that other views share with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlops_llm import console
from mlops_llm.data.preview import safe
from mlops_llm.errors import printable
from mlops_llm.eval.judge import OVERALL
from mlops_llm.eval.outcome import Outcome, Sample, Score
from mlops_llm.record import Answer, Grid

JUDGE = "judge/"
"""What the names of a judge's scores begin with."""
CELLS = 10
"""Width of a bar on a terminal, in characters."""
SAMPLES = 5
"""Samples that are printed."""
_EIGHTHS = " ▏▎▍▌▋▊▉"
_LONGEST = 160
"""Characters of a text that are printed."""
_TABLE_ROWS = 12
_COLUMNS = 6
"""Scores of a group that are printed; the page has all."""
_CAUSES = 3
"""Failed rows that are named for each class."""


def label(name: str, outcome: Outcome) -> str:
    """A score's name for a person: a judge's dimension alone, where no other score is called the same."""
    short = name.removeprefix(JUDGE)
    names = {each.name for each in outcome.scores}
    return name if name != short and short in names else short


def overall(outcome: Outcome) -> Score | None:
    """A judge's rating as a whole, where there is one."""
    return next((each for each in outcome.scores if each.name == f"{JUDGE}{OVERALL}"), None)


def value(score: Score, number: float | None = None) -> str:
    """A score's value, or another of its kind, with as many digits as its scale needs."""
    number = score.value if number is None else number
    return f"{number:.2f}" if score.most is not None and score.most > 1 else console.number(float(number))


def stamped(score: Score, *, of: bool = False) -> str:
    """A value with what of it the model met in training: `4.42 (3 % of items seen in training; 4.31 on the rest)`.

    Args:
        score: what is written.
        of: also write the largest value, `4.42 / 5`.
    """
    said = value(score) + (f" / {score.most:g}" if of and score.most is not None else "")
    if score.seen is None:
        return said
    share, rest = score.seen.share, score.seen.rest
    if not share:
        return f"{said} (no item seen in training)"
    percent = min(max(round(share * 100), 1), 99 if share < 1 else 100)
    about = "< " if share < 0.005 else "> " if 0.995 < share < 1 else ""
    behind = f"; {value(score, rest)} on the rest" if rest is not None else ""
    return f"{said} ({about}{percent} % of items seen in training{behind})"


def between(score: Score) -> str:
    """A score's 95 % interval, or nothing."""
    return f"{value(score, score.interval[0])} to {value(score, score.interval[1])}" if score.interval else ""


def bar(share: float, cells: int = CELLS) -> str:
    """A share from 0 to 1 as a bar that is exact to an eighth of a character."""
    eighths = round(min(1.0, max(0.0, share)) * cells * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def failed(outcome: Outcome) -> str:
    """How many failed, by class: `2 (timeout 1, unparsable 1)`."""
    counted = outcome.failures
    classes = ", ".join(f"{kind} {times}" for kind, times in counted.most_common())
    return f"{counted.total()} ({classes})" if counted else "0"


def table(outcome: Outcome) -> dict[str, Any]:
    """Label -> value for `record.Result.table`: totals, the overall score, and the facts."""
    whole = overall(outcome)
    rows = {"model": outcome.model, "dataset": outcome.dataset, "engine": outcome.engine}
    if outcome.samples:
        rows |= {"samples": str(len(outcome.samples)), "success": str(outcome.succeeded), "failed": failed(outcome)}
    if whole:
        rows["overall score"] = stamped(whole, of=True)
    return {_cell(key): _cell(text, 600) for key, text in (rows | dict(outcome.facts)).items() if text}


def lines(outcome: Outcome, samples: int = SAMPLES) -> list[Grid | str]:
    """What `record.Result.shown` takes: scores with bars, groups, small tables, the first samples, failures, warnings.

    Args:
        outcome: what was found.
        samples: how many are printed; 0 prints none.
    """
    found: list[Grid | str] = [scores(outcome)] if outcome.scores else []
    found += [grouped(outcome)] if outcome.groups else []
    found += [_small(each) for each in outcome.tables.values() if len(each.rows) <= _TABLE_ROWS]
    if outcome.samples and samples:
        found.append(f"[bold]first samples[/] ({min(samples, len(outcome.samples))} of {len(outcome.samples)})")
        found += [_sample(each, outcome) for each in outcome.samples[:samples]]
        found.append("")
    found += [_failures(outcome)] if outcome.failures else []
    return found + [f"[yellow]⚠[/yellow] {_line(each, 600)}" for each in outcome.warnings]


def scores(outcome: Outcome) -> Grid:
    """Every score with a bar, where there is a largest value."""
    rows = []
    for each in outcome.scores:
        drawn = bar(each.value / each.most) if each.most else ""
        answered = value(each, each.answered) if each.answered is not None else ""
        name = _cell(label(each.name, outcome))
        rows.append([name, stamped(each), drawn, between(each), each.count, answered])
    columns = ["score", "value", "", "95 % interval", "items", "answered only"]
    kept = [place for place in range(6) if place < 2 or any(row[place] not in ("", None) for row in rows)]
    return Grid(_cell(outcome.title), [columns[place] for place in kept], [[row[place] for place in kept] for row in rows])


def grouped(outcome: Outcome) -> Grid:
    """The scores by what rows say of themselves."""
    by_name = {each.name: each for each in outcome.scores}
    there = list(dict.fromkeys(name for group in outcome.groups for name in group.scores))
    good = [name for name in there if name not in by_name or by_name[name].higher_is_better is not None]
    names = (good or there)[:_COLUMNS]
    rows = [
        [_cell(group.key), _cell(group.value), group.count]
        + [_of_group(group.scores, name, by_name.get(name)) for name in names]
        for group in outcome.groups
    ]
    return Grid("by metadata", ["key", "value", "items", *(_cell(label(name, outcome)) for name in names)], rows)


def answers(outcome: Outcome, most: int) -> list[Answer]:
    """The first samples as `record.Run.answers` takes them, numbered through: rows of several sets have the same places."""
    return [
        Answer(
            number,
            each.prompt,
            each.answer,
            tuple(each.references),
            {name: number for name, number in each.scores.items() if math.isfinite(number)},
            tuple(name for name in each.scores if name.startswith(JUDGE)),
            each.comment,
            (each.failure.kind.value, each.failure.cause) if each.failure else None,
            each.seconds,
            each.tokens,
            dict(each.metadata),
        )
        for number, each in enumerate(outcome.samples[:most])
    ]


def columns(outcome: Outcome) -> dict[str, list[Any]]:
    """Every sample as a table for `record.Run.artifact`: column -> values. Columns in which nothing stands are left out."""
    samples = outcome.samples
    names = dict.fromkeys(name for each in samples for name in each.scores)
    keys = dict.fromkeys(key for each in samples for key in each.metadata)
    found: dict[str, list[Any]] = {
        "row": [each.place + 1 for each in samples],
        "prompt": [each.prompt for each in samples],
        "answer": [each.answer for each in samples],
        "reference": ["\n".join(each.references) for each in samples],
        "label": [each.label for each in samples],
        **{name: [each.scores.get(name) for each in samples] for name in names},
        "comment": [each.comment for each in samples],
        "failure": [each.failure.kind.value if each.failure else None for each in samples],
        "cause": [each.failure.cause if each.failure else None for each in samples],
        "flags": [", ".join([*each.flags, *(["cut"] if each.cut else [])]) for each in samples],
        "seen in training": [each.was_seen for each in samples],
        "seconds": [round(each.seconds, 3) for each in samples],
        "tokens": [each.tokens for each in samples],
        **{f"metadata.{key}": [each.metadata.get(key) for each in samples] for key in keys},
    }
    always = {"row", "prompt", "answer"}
    return {name: values for name, values in found.items() if name in always or any(each not in (None, "") for each in values)}


def row(sample: Sample) -> str:
    """Which row a sample is, from 1; of a benchmark's with the task's name."""
    return f"{sample.place + 1}" + (f" of {sample.task}" if sample.task else "")


def numbers(sample: Sample, outcome: Outcome) -> Iterator[tuple[str, str]]:
    """(name, value) of a sample's scores, for a person."""
    by_name = {each.name: each for each in outcome.scores}
    for name, each in sample.scores.items():
        known = by_name.get(name)
        whole = each == int(each) if math.isfinite(each) else False
        yield label(name, outcome), str(int(each)) if whole else value(known, each) if known else console.number(each)


def _sample(sample: Sample, outcome: Outcome) -> str:
    rows = [("answer", _line(sample.answer))] if sample.answer else []
    rows += [("reference", _line(each)) for each in sample.references[:1]]
    rated = "  ".join(f"{_line(name)} {number}" for name, number in numbers(sample, outcome))
    rows += [("scores", rated)] if rated else []
    rows += [("comment", _line(sample.comment))] if sample.comment else []
    if sample.failure:
        rows.append(("failed", f"[red]{_line(sample.failure.kind.value)}[/]: {_line(sample.failure.cause)}"))
    head = f"[bold]{_line(row(sample)):>4}[/]  {_line(sample.asked or sample.prompt)}"
    return "\n".join([head, *(f"      [dim]{name:<9}[/]  {text}" for name, text in rows)])


def _failures(outcome: Outcome) -> Grid:
    rows: list[Sequence[Any]] = []
    for kind, times in outcome.failures.most_common():
        of_kind = [each for each in outcome.samples if each.failure and each.failure.kind.value == kind]
        for place, each in enumerate(of_kind[:_CAUSES]):
            cause = each.failure.cause if each.failure else ""
            rows.append(["" if place else kind, "" if place else times, _cell(row(each)), _cell(cause)])
        if times > _CAUSES:
            rows.append(["", "", "…", f"{times - _CAUSES} more"])
    columns = ["class", "times", "row", "cause"]
    kept = 4 if any(each.failure and each.failure.cause for each in outcome.samples) else 3
    return Grid("failures", columns[:kept], [row[:kept] for row in rows])


def _small(grid: Grid) -> Grid:
    rows = [[_cell(console.number(each)) for each in row] for row in grid.rows]
    return Grid(_cell(grid.title), [_cell(each) for each in grid.columns], rows)


def _of_group(scores: Mapping[str, float], name: str, score: Score | None) -> str:
    if name not in scores:
        return "-"
    return value(score, scores[name]) if score else console.number(scores[name])


def _cut(text: str, most: int) -> str:
    flat = " ".join(text[: most * 8].split())
    return f"{flat[:most]}…" if len(flat) > most or len(text) > most * 8 else flat


def _line(text: str, most: int = _LONGEST) -> str:
    """A text in one line that neither a terminal nor rich's markup takes for orders."""
    return safe(_cut(text, most))


def _cell(text: str, most: int = _LONGEST) -> str:
    return printable(_cut(text, most))
