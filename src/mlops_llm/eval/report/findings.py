"""What the numbers of an evaluation say in sentences: nothing is said that they do not show.

A rating or a share is called high or low only where its whole 95 % interval lies there; groups, dimensions and models are told
apart only where a test of the samples does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_llm.eval import shown
from mlops_llm.eval.judge import OVERALL
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.outcome import Outcome, Score
from mlops_llm.eval.people.words import MOST
from mlops_llm.eval.report import against
from mlops_llm.eval.report.advice import POOR, SEEN, advice, count_of_cut
from mlops_llm.eval.report.document import cut
from mlops_llm.eval.report.grouped import Apart, apart
from mlops_llm.eval.report.naming import NAME, PEOPLE, between, decisive, dimensions, figure, kind_of, label
from mlops_llm.eval.significance import LEVEL, of_means, resolved

GOOD = 0.8
"""Of the largest value: from where on a rating or a share is high."""
_Z = 1.959963984540054
"""Half an interval in standard errors."""


@dataclass(frozen=True)
class Words:
    """The sentences of a report."""

    findings: list[str]
    advice: list[str]
    strengths: list[str]
    problems: list[str]
    comparison: list[str]

    def as_json(self, lang: Lang) -> dict[str, Any]:
        """As the JSON of a report holds them."""
        return {"lang": lang.value, "findings": self.findings, "advice": self.advice, "strengths": self.strengths,
                "problems": self.problems, "comparison": self.comparison}  # fmt: skip


def words(
    outcome: Outcome, comparison: Mapping[str, Any] | None, lang: Lang, people: Sequence[Mapping[str, Any]] = ()
) -> Words:
    """The sentences about an evaluation.

    Args:
        outcome: what was found.
        comparison: see `rivals.comparison`; None where the record was not asked.
        lang: language.
        people: see `rated.people`.
    """
    beside = (comparison or {}).get("side_by_side")
    groups, compared = apart(outcome), list(beside["conclusion"][lang.name]) if beside else []
    strong, weak = _extremes(outcome, lang)
    better, worse = against.sides(beside, outcome, lang) if beside else ([], [])
    return Words(
        [
            *_whole(outcome, lang),
            *_answered(outcome, lang),
            *_dimensions(outcome, lang),
            *_seen(outcome, lang),
            *_rated(people[:1], lang),
            *(compared[:1] or _resolved(outcome, lang)),
        ],
        list(dict.fromkeys(advice(outcome, groups, bool(people), lang))),
        [*strong, *better],
        [*weak, *worse, *_failed(outcome, lang), *_cut(outcome, lang), *_groups(groups, outcome, lang)],
        compared,
    )


def _whole(outcome: Outcome, lang: Lang) -> Iterator[str]:
    score = decisive(outcome)
    if score is None:
        return
    name, said = lang.quoted(label(score.name, outcome)), figure(score) + between(score, lang)
    better = lang("，越低越好", "; lower is better") if score.higher_is_better is False else ""
    yield lang(
        f"{cut(outcome.model, NAME)} 在 {score.count} 个样本上的 {name} 为 {said}{better}。",
        f"{cut(outcome.model, NAME)} reaches {name} {said} on {score.count} items{better}.",
    )


def _resolved(outcome: Outcome, lang: Lang) -> Iterator[str]:
    """What so many samples can tell apart, where no other model shows how its answers vary beside this one's."""
    score = decisive(outcome)
    if score is None or not score.interval or score.count < 2:
        return
    spread = (score.interval[1] - score.interval[0]) / 2 / _Z * math.sqrt(score.count)
    least, name = shown.value(score, resolved(spread * math.sqrt(2), score.count)), lang.quoted(label(score.name, outcome))
    if not float(least.replace(",", "")):  # all values are alike, and nothing says how far others may lie apart
        return
    yield lang(
        f"{score.count:,} 个样本下，与得分同样分散的另一个模型相比，{name} 小于约 {least} 的差距都是噪声：五次里看出不到四次。",
        f"With {score.count:,} samples, gaps in {name} under about {least} to a model whose scores vary as much are noise: "
        "fewer than four of five are found.",
    )


def _answered(outcome: Outcome, lang: Lang) -> Iterator[str]:
    count = len(outcome.samples)
    if count and not outcome.failures:
        yield lang(f"{count} 个样本全部得到回答。", f"All {count} samples were answered.")
    elif count:
        share = f"{outcome.succeeded / count:.1%}"
        yield lang(
            f"{count} 个样本中 {outcome.succeeded} 个成功（{share}），{count - outcome.succeeded} 个失败。",
            f"{outcome.succeeded} of {count} samples succeeded ({share}), {count - outcome.succeeded} failed.",
        )


def _dimensions(outcome: Outcome, lang: Lang) -> Iterator[str]:
    found = dimensions(outcome)
    if len(found) < 2:
        return
    best, worst = found[0], found[-1]
    names = [lang.quoted(label(each.name, outcome)) for each in (best, worst)]
    if _differ(outcome, best, worst, len(found)):
        yield lang(
            f"各维度中最高的是 {names[0]}（{figure(best)}），最低的是 {names[1]}（{figure(worst)}）。",
            f"Of the dimensions {names[0]} is highest ({figure(best)}) and {names[1]} lowest ({figure(worst)}).",
        )
    else:
        yield lang(
            f"各维度从 {figure(worst)} 到 {figure(best)}，差别不显著：分不出高下。",
            f"The dimensions lie between {figure(worst)} and {figure(best)}, not significantly apart: none stands out.",
        )


def _differ(outcome: Outcome, best: Score, worst: Score, count: int) -> bool:
    """Whether the outermost of so many dimensions differ on the same answers; p is multiplied by the number of their pairs."""
    pairs = [
        (values[best.name], values[worst.name])
        for values in (each.scores for each in outcome.samples)
        if all(math.isfinite(values.get(each.name, math.nan)) for each in (best, worst))
    ]
    if not pairs:
        return False
    (found,) = of_means([[one for one, _ in pairs]], [[other for _, other in pairs]], [(best.least, best.most)])
    return found.p * count * (count - 1) / 2 <= LEVEL


def _rated(people: Sequence[Mapping[str, Any]], lang: Lang) -> Iterator[str]:
    """What people say as a whole."""
    for each in people:
        for score in (one for one in each["scores"] if one["name"] == f"{PEOPLE}{OVERALL}"):
            said, raters, rows = f"{score['value']:.2f} / {MOST}", each["raters"], score["rows"]
            low, high = (f"{one:.2f}" for one in score["interval"] or (math.nan, math.nan))
            yield lang(
                f"{raters} 位评分人在 {rows} 行上给出的总分为 {said}（95 % 区间 {low} 至 {high}）。",
                f"People ({raters} raters, {rows} rows) rate it {said} as a whole (95 % interval {low} to {high}).",
            )


def _seen(outcome: Outcome, lang: Lang) -> Iterator[str]:
    score = decisive(outcome)
    if score is None or score.seen is None or score.seen.share < SEEN:
        return
    rest = score.seen.rest
    behind = lang(f"，其余题目得 {figure(score, rest)}", f"; the rest reach {figure(score, rest)}") if rest is not None else ""
    yield lang(
        f"{score.seen.share:.1%} 的题目模型在训练中见过{behind}。",
        f"The model met {score.seen.share:.1%} of the items in training{behind}.",
    )


def _is_plain(score: Score, outcome: Outcome) -> bool:
    """Whether a score's height means the same everywhere: a rating, or a share of answers that are right or wrong.

    A likeness to references, such as BLEU or ROUGE, is no such score: good answers may be far from the largest value.
    """
    values = {each.scores[score.name] for each in outcome.samples if score.name in each.scores}
    return score.name.startswith(shown.JUDGE) or (score.most == 1 and bool(values) and values <= {0.0, 1.0})


def _extremes(outcome: Outcome, lang: Lang) -> tuple[list[str], list[str]]:
    """What is certainly high, and what is certainly low, of ratings and shares."""
    strong, weak = list[str](), list[str]()
    for each in outcome.scores:
        if not each.higher_is_better or each.most is None or each.interval is None or not _is_plain(each, outcome):
            continue
        name, said = lang.quoted(label(each.name, outcome)), figure(each) + between(each, lang)
        if each.interval[0] >= GOOD * each.most:
            strong.append(lang(f"{name} 高：{said}。", f"{name} is high: {said}."))
        elif each.interval[1] <= POOR * each.most:
            weak.append(lang(f"{name} 低：{said}。", f"{name} is low: {said}."))
    if outcome.samples and not outcome.failures:
        strong.append(lang("没有失败的样本。", "No sample failed."))
    return strong, weak


def _failed(outcome: Outcome, lang: Lang) -> Iterator[str]:
    if outcome.failures:
        kinds = lang.listed([f"{kind_of(name, lang)} {times}" for name, times in outcome.failures.most_common()])
        count = outcome.failures.total()
        yield lang(f"{count} 个样本失败：{kinds}。", f"{count} samples failed: {kinds}.")


def _cut(outcome: Outcome, lang: Lang) -> Iterator[str]:
    count = count_of_cut(outcome)
    if count:
        total = len(outcome.samples)
        yield lang(
            f"{total} 个回答中有 {count} 个因长度上限而中断。",
            f"{count} of {total} answers were cut: they reached their greatest length.",
        )


def _groups(groups: Sequence[Apart], outcome: Outcome, lang: Lang) -> Iterator[str]:
    for each in groups:
        name, by, score = lang.quoted(label(each.score.name, outcome)), cut(each.key, NAME), each.score
        low, high = lang.quoted(cut(each.worst.value, NAME)), lang.quoted(cut(each.best.value, NAME))
        worst, best = (f"{figure(score, side.mean)}" for side in (each.worst, each.best))
        few, many, p = each.worst.count, each.best.count, "p < 0.001" if each.p < 0.001 else f"p = {each.p:.3f}"
        yield lang(
            f"按 {by} 分组，{name} 在{low}上（{worst}，{few} 条）显著差于{high}（{best}，{many} 条；{p}）。",
            f"By {by}, {name} is significantly worse on {low} ({worst}, {few} items) than on {high} "
            f"({best}, {many} items; {p}).",
        )
