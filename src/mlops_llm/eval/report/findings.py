"""What the numbers of an evaluation say in sentences: nothing is said that they do not show.

A rating or a share is called high or low only where its whole 95 % interval lies there, and one score is called better than
another only where their intervals do not touch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlops_llm.eval import shown
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.outcome import Outcome, Score
from mlops_llm.eval.recording import PREFIX, named
from mlops_llm.eval.report.document import cut

GOOD, POOR = 0.8, 0.6
"""Of the largest value: from where on a rating or a share is high, and up to where it is low."""
FEW = 100
"""Samples, below which it is said how much an answer more or less moves a score."""
CUT, SEEN = 0.05, 0.01
"""Shares of answers, from which on they are named."""
NAME = 60
"""Characters of a score's name."""
SMALL = 5
"""Items that a group must have to be named."""


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


def decisive(outcome: Outcome) -> Score | None:
    """The score that stands for the whole: a judge's rating, else the first that has a good end."""
    return shown.overall(outcome) or next((each for each in outcome.scores if each.higher_is_better is not None), None)


def words(outcome: Outcome, comparison: dict[str, Any] | None, lang: Lang) -> Words:
    """The sentences about an evaluation.

    Args:
        outcome: what was found.
        comparison: see `rivals.comparison`; None where the record was not asked.
        lang: language.
    """
    strong, weak = _extremes(outcome, lang)
    problems = [*weak, *_failed(outcome, lang), *_cut(outcome, lang), *_group(outcome, lang)]
    return Words(
        [*_whole(outcome, lang), *_answered(outcome, lang), *_dimensions(outcome, lang), *_seen(outcome, lang)],
        list(dict.fromkeys(_advice(outcome, lang))),
        strong,
        problems,
        list(_rivals(outcome, comparison, lang)) if comparison else [],
    )


def figure(score: Score, number: float | None = None) -> str:
    """A score's value with its largest one: `4.29 / 5`."""
    most = f" / {score.most:g}" if score.most is not None else ""
    return shown.value(score, number) + most


def between(score: Score, lang: Lang) -> str:
    """A score's interval in a sentence."""
    if not score.interval:
        return ""
    low, high = (shown.value(score, each) for each in score.interval)
    return lang(f"（95 % 区间 {low} 至 {high}）", f" (95 % interval {low} to {high})")


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
    if score.interval and score.count < FEW:
        half = shown.value(score, (score.interval[1] - score.interval[0]) / 2)
        yield lang(
            f"样本只有 {score.count} 个：小于约 {half} 的差距看不出来。",
            f"There are only {score.count} items: differences below about {half} cannot be seen.",
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


def dimensions(outcome: Outcome) -> list[Score]:
    """A judge's dimensions, the best first."""
    whole = shown.overall(outcome)
    found = [each for each in outcome.scores if whole and each.name.startswith(shown.JUDGE) and each is not whole]
    good = [each for each in found if each.higher_is_better and each.most == whole.most] if whole else []
    return sorted(good, key=lambda each: -each.value)


def _dimensions(outcome: Outcome, lang: Lang) -> Iterator[str]:
    found = dimensions(outcome)
    if len(found) < 2:
        return
    best, worst = found[0], found[-1]
    names = [lang.quoted(label(each.name, outcome)) for each in (best, worst)]
    if apart(best.interval, worst.interval):
        yield lang(
            f"各维度中最高的是 {names[0]}（{figure(best)}），最低的是 {names[1]}（{figure(worst)}）。",
            f"Of the dimensions {names[0]} is highest ({figure(best)}) and {names[1]} lowest ({figure(worst)}).",
        )
    else:
        yield lang(
            f"各维度从 {figure(worst)} 到 {figure(best)}，区间彼此重叠：分不出高下。",
            f"The dimensions lie between {figure(worst)} and {figure(best)}, their intervals overlap: none stands out.",
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


_CLASSES = {
    "timeout": (
        "超时",
        "加长 care.timeout，或减小 sampling.max_new_tokens",
        "raise care.timeout or lower sampling.max_new_tokens",
    ),
    "empty": ("空回答", "查看这些问题的对话模板和结束符", "look at the chat template and the end marks of these rows"),
    "too long": ("过长", "换窗口更大的模型，或去掉这些行", "take a model with a larger window, or leave these rows out"),
    "unparsable": ("无法解析", "换更强的评委，或打开 judge.json_schema", "take a stronger judge or set judge.json_schema=true"),
    "refused": ("被拒绝", "查看服务端拒绝的原因", "read why the server refuses them"),
    "server": ("服务错误", "修好服务后用 resume= 重问", "mend the server, then ask again with resume="),
}
"""Class of failure -> its Chinese name, and what to do in both languages."""


def label(name: str, outcome: Outcome) -> str:
    """A score's name for a person, if it is not too long for one."""
    return cut(shown.label(name, outcome), NAME)


def kind_of(name: str, lang: Lang) -> str:
    """A class of failure in a language."""
    return lang(_CLASSES[name][0], name) if name in _CLASSES else name


def _failed(outcome: Outcome, lang: Lang) -> Iterator[str]:
    if outcome.failures:
        kinds = lang.listed([f"{kind_of(name, lang)} {times}" for name, times in outcome.failures.most_common()])
        count = outcome.failures.total()
        yield lang(f"{count} 个样本失败：{kinds}。", f"{count} samples failed: {kinds}.")


def _cut(outcome: Outcome, lang: Lang) -> Iterator[str]:
    count = sum(each.cut for each in outcome.samples)
    if count and count >= CUT * len(outcome.samples):
        total = len(outcome.samples)
        yield lang(
            f"{total} 个回答中有 {count} 个因长度上限而中断。",
            f"{count} of {total} answers were cut: they reached their greatest length.",
        )


def _group(outcome: Outcome, lang: Lang) -> Iterator[str]:
    """Groups that lie apart by the decisive score: its interval, as wide as fewer items make it, tells how far they scatter."""
    score = decisive(outcome)
    if score is None or score.interval is None:
        return
    half, sign = (score.interval[1] - score.interval[0]) / 2, -1 if score.higher_is_better is False else 1
    for key in dict.fromkeys(each.key for each in outcome.groups):
        found = [each for each in outcome.groups if each.key == key and score.name in each.scores and each.count >= SMALL]
        ranked = sorted(found, key=lambda group: sign * group.scores[score.name])
        if len(ranked) < 2:
            continue
        worst, best = ranked[0], ranked[-1]
        low, high = worst.scores[score.name], best.scores[score.name]
        if abs(high - low) <= sum(half * math.sqrt(score.count / each.count) for each in (worst, best)):
            continue
        name, by = lang.quoted(label(score.name, outcome)), cut(key, NAME)
        of = [lang.quoted(cut(each.value, NAME)) for each in (worst, best)]
        low_said, high_said = figure(score, low), figure(score, high)
        yield lang(
            f"按 {by} 分组，{name} 最差的是{of[0]}（{low_said}，{worst.count} 条），最好的是{of[1]}（{high_said}）。",
            f"By {by}, {name} is worst on {of[0]} ({low_said}, {worst.count} items) and best on {of[1]} ({high_said}).",
        )


def _advice(outcome: Outcome, lang: Lang) -> Iterator[str]:
    for name, _ in outcome.failures.most_common():
        if name in _CLASSES:
            _, chinese, english = _CLASSES[name]
            yield lang(f"{kind_of(name, lang)}的样本：{chinese}。", f"Samples with the failure '{name}': {english}.")
    if any(_cut(outcome, lang)):
        yield lang(
            "加大 sampling.max_new_tokens，让回答写完。", "Raise sampling.max_new_tokens, so that answers end by themselves."
        )
    low = [each for each in dimensions(outcome) if each.most and each.interval and each.interval[1] <= POOR * each.most]
    if low:
        names = lang.listed([lang.quoted(label(each.name, outcome)) for each in low])
        yield lang(f"为 {names} 补充训练数据或偏好数据。", f"Add training rows or preferences for {names}.")
    if any(_group(outcome, lang)):
        yield lang(
            "先看得分最低的分组里的样本，再决定补哪类数据。",
            "Read the samples of the lowest groups before choosing what data to add.",
        )
    score = decisive(outcome)
    if score and score.seen and score.seen.share >= SEEN:
        yield lang(
            "以未见过的题目的得分为准，或换一个评测集。", "Go by the score on items that were not seen, or take another set."
        )
    if score and score.count < FEW:
        yield lang(
            f"评测至少 {FEW} 个样本，再与其他模型比较。", f"Evaluate at least {FEW} samples before comparing with other models."
        )
    if not any(each.name.startswith(shown.JUDGE) for each in outcome.scores) and outcome.samples:
        yield lang(
            "指标只看与参考答案的相似程度：再用评委（judge=rubric_zh）或人工评价。",
            "Metrics only see likeness to references: have a judge (judge=rubric_en) or people rate the answers too.",
        )


def apart(one: Any, other: Any) -> bool:
    """Whether two intervals do not touch."""
    return bool(one and other and (one[0] > other[1] or other[0] > one[1]))


def _rivals(outcome: Outcome, comparison: dict[str, Any], lang: Lang) -> Iterator[str]:
    """Where the model is certainly better or worse than others that answered the same rows."""
    own, *others = comparison["runs"]
    for other in others:
        better, worse, open_ = list[str](), list[str](), list[str]()
        for each in outcome.scores:
            key = named(each.name).removeprefix(PREFIX)
            mine, theirs = own["scores"].get(key), other["scores"].get(key)
            if each.higher_is_better is None or not mine or not theirs:
                continue
            name = label(each.name, outcome)
            if not apart(mine["interval"], theirs["interval"]):
                open_.append(name)
            elif (mine["value"] > theirs["value"]) == each.higher_is_better:
                better.append(name)
            else:
                worse.append(name)
        said = [
            text
            for names, text in (
                (better, lang(f"更好：{lang.listed(better)}", f"better by {lang.listed(better)}")),
                (worse, lang(f"更差：{lang.listed(worse)}", f"worse by {lang.listed(worse)}")),
                (
                    open_,
                    lang(
                        f"未分高下（区间重叠）：{lang.listed(open_)}", f"undecided (intervals overlap) by {lang.listed(open_)}"
                    ),
                ),
            )
            if names
        ]
        if said:
            yield lang(
                f"与 {cut(other['model'], NAME)} 相比，{'；'.join(said)}。",
                f"Against {cut(other['model'], NAME)}: {'; '.join(said)}.",
            )
