"""The chapter of results: totals, dimensions, distribution, groups, failures, samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mlops_llm import console
from mlops_llm.eval import charts, shown
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.outcome import Outcome, Sample, Score
from mlops_llm.eval.report import chinese
from mlops_llm.eval.report.document import Case, Cases, Chapter, Charts, Part, Section, Table, Text, cut
from mlops_llm.eval.report.naming import decisive, dimensions, kind_of, label
from mlops_llm.eval.report.peoples import section
from mlops_llm.record import Grid

CHARTS, ROWS, FAILURES = 12, 60, 30
LONGEST = 600
"""Characters of a text; Excel and JSON have it whole."""
_CELL = 120


def results(outcome: Outcome, people: Sequence[Mapping[str, Any]], lang: Lang, samples: int) -> Chapter:
    """What was found.

    Args:
        outcome: what was found.
        people: see `rated.people`.
        lang: language.
        samples: how many samples are shown, the lowest first; 0 shows none.
    """
    rated = dimensions(outcome) if len(dimensions(outcome)) > 1 else []
    whole = [each for each in outcome.scores if each not in rated]
    sections = [Section(lang("总体得分", "Totals"), [_scores(outcome, whole, lang)])] if whole else []
    if rated:
        sections.append(Section(lang("各维度", "Dimensions"), [_scores(outcome, rated, lang)]))
    sections += section(outcome, people, lang)
    drawn = _distribution(outcome)
    if drawn.items:
        sections.append(Section(lang("得分分布", "Distribution"), [drawn]))
    if outcome.groups:
        sections.append(Section(lang("分组结果", "Groups"), _grid(_grouped(outcome), lang)))
    sections += [Section(cut(chinese.table(each.title, lang), _CELL), _grid(each, lang)) for each in outcome.tables.values()]
    sections.append(Section(lang("失败样本", "Failures"), _failures(outcome, lang)))
    if samples and outcome.samples:
        sections.append(Section(lang("样本", "Samples"), _cases(outcome, lang, samples)))
    return Chapter(lang("评测结果", "Results"), sections)


def _scores(outcome: Outcome, scores: Sequence[Score], lang: Lang) -> Table:
    rows = [
        [
            label(each.name, outcome),
            charts.bar(each.value, each.most, each.interval) if each.most and math.isfinite(each.value) else "",
            shown.value(each),
            shown.between(each).replace(" to ", " - "),
            str(each.count),
            shown.value(each, each.answered) if each.answered is not None else "",
            f"{each.seen.share:.1%}" if each.seen else "",
            shown.value(each, each.seen.rest) if each.seen and each.seen.rest is not None else "",
        ]
        for each in scores
    ]
    columns = [
        lang("得分", "Score"), "", lang("值", "Value"), lang("95 % 区间", "95 % interval"), lang("样本", "Items"),
        lang("仅成功", "Answered only"), lang("训练中见过", "Seen in training"), lang("其余", "On the rest"),
    ]  # fmt: skip
    return Table(columns, rows, right=(2, 3, 4, 5, 6, 7))


def _distribution(outcome: Outcome) -> Charts:
    most = {each.name: each.most for each in outcome.scores}
    names = list(dict.fromkeys(name for each in outcome.samples for name in each.scores))[:CHARTS]
    drawn = []
    for name in names:
        values = [each.scores[name] for each in outcome.samples if math.isfinite(each.scores.get(name, math.nan))]
        if values:
            drawn.append((label(name, outcome), charts.histogram(values, most.get(name))))
    return Charts(drawn)


def _grid(grid: Grid, lang: Lang) -> list[Part]:
    rows = [[cut(console.number(each), _CELL) for each in row] for row in grid.rows[:ROWS]]
    right = [place for place in range(len(grid.columns)) if _are_numbers([row[place] for row in grid.rows])]
    parts: list[Part] = [Table([cut(chinese.head(str(each), lang), _CELL) for each in grid.columns], rows, right, wide=())]
    return parts + _more(len(grid.rows), ROWS, lang)


def _grouped(outcome: Outcome) -> Grid:
    """The groups, with scores as a report calls them."""
    grid, names = (
        shown.grouped(outcome),
        {shown.label(each.name, outcome): label(each.name, outcome) for each in outcome.scores},
    )
    return Grid(grid.title, [names.get(str(each), each) for each in grid.columns], grid.rows)


def _are_numbers(cells: Sequence[Any]) -> bool:
    """Whether a column has numbers, of which some may be missing."""
    said = [str(each).replace(".", "", 1).replace(",", "").lstrip("-") for each in cells if each not in (None, "", "-")]
    return bool(said) and all(each.isdigit() for each in said)


def _failures(outcome: Outcome, lang: Lang) -> list[Part]:
    if not outcome.failures:
        said = lang("没有失败的样本。", "No sample failed.") if outcome.samples else lang("没有样本。", "There are no samples.")
        return [Text(said)]
    count = len(outcome.samples)
    classes = [[kind_of(kind, lang), str(times), f"{times / count:.1%}"] for kind, times in outcome.failures.most_common()]
    failed = [each for each in outcome.samples if each.failure]
    rows = [
        [shown.row(each), kind_of(each.failure.kind.value, lang), cut(each.failure.cause, _CELL), cut(each.prompt, 60)]
        for each in failed[:FAILURES]
        if each.failure
    ]
    kinds = [lang("类别", "Class"), lang("次数", "Times"), lang("占比", "Share")]
    columns = [lang("行", "Row"), kinds[0], lang("原因", "Cause"), lang("问题", "Prompt")]
    parts: list[Part] = [Table(kinds, classes, (1, 2), wide=()), Table(columns, rows, wide=(2, 3))]
    return parts + _more(len(failed), FAILURES, lang)


def _cases(outcome: Outcome, lang: Lang, most: int) -> list[Part]:
    """The lowest samples by the decisive score, those without it first; all in their own order where there is room."""
    score, chosen = decisive(outcome), list(outcome.samples)
    said = lang(f"全部 {len(chosen)} 个样本。", f"All {len(chosen)} samples.")
    if len(chosen) > most:
        name = score.name if score else ""
        sign = -1 if score and score.higher_is_better is False else 1
        chosen.sort(key=lambda each: sign * each.scores.get(name, -math.inf * sign))
        chosen = chosen[:most]
        by = lang.quoted(label(name, outcome)) if score else ""
        said = lang(
            f"{len(outcome.samples)} 个样本中按 {by} 最差的 {most} 个；Excel 和 JSON 里有全部。",
            f"The {most} worst of {len(outcome.samples)} samples by {by}; Excel and JSON have all of them.",
        )
    return [Text(said, soft=True), Cases([_case(each, outcome, lang) for each in chosen])]


def _case(sample: Sample, outcome: Outcome, lang: Lang) -> Case:
    names = {shown.label(name, outcome): label(name, outcome) for name in sample.scores}
    chips = [f"{names[name]} {value}" for name, value in shown.numbers(sample, outcome)]
    chips += [kind_of(sample.failure.kind.value, lang)] if sample.failure else []
    chips += [lang("训练中见过", "seen in training")] if sample.was_seen else []
    chips += [*([lang("截断", "cut")] if sample.cut else []), *sample.flags]
    rows = [(lang("问题", "Prompt"), cut(sample.prompt, LONGEST))]
    rows.append((lang("回答", "Answer"), cut(sample.answer, LONGEST) or lang("（无）", "(none)")))
    rows += [(lang("参考", "Reference"), cut(each, LONGEST)) for each in sample.references[:3]]
    rows += [(lang("类别", "Label"), sample.label)] if sample.label else []
    rows += [(lang("评语", "Comment"), cut(sample.comment, LONGEST))] if sample.comment else []
    rows += [(lang("失败", "Failure"), cut(sample.failure.cause, LONGEST))] if sample.failure and sample.failure.cause else []
    return Case(f"#{shown.row(sample)}", [cut(each, 60) for each in chips], rows, sample.failure is not None)


def _more(count: int, most: int, lang: Lang) -> list[Part]:
    left = count - most
    return (
        [Text(lang(f"……另有 {left} 行，见 Excel 和 JSON。", f"… and {left} more, in Excel and JSON."), soft=True)]
        if left > 0
        else []
    )
