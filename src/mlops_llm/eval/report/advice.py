"""What to do next, as far as the numbers of an evaluation tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mlops_llm.eval import shown
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.outcome import Outcome
from mlops_llm.eval.report.grouped import Apart
from mlops_llm.eval.report.naming import decisive, dimensions, kind_of, label

POOR = 0.6
"""Of the largest value: up to where a rating or a share is low."""
FEW = 100
"""Samples, below which more are wanted."""
_CUT, SEEN = 0.05, 0.01
"""Shares of answers, from which on they are named."""
_WINDOW = "the model's window is"
"""Of the warning that answers have less room than `sampling.max_new_tokens`."""
_REMEDIES = {
    "timeout": ("加长 care.timeout，或减小 sampling.max_new_tokens", "raise care.timeout or lower sampling.max_new_tokens"),
    "empty": ("查看这些问题的对话模板和结束符", "look at the chat template and the end marks of these rows"),
    "too long": ("换窗口更大的模型，或去掉这些行", "take a model with a larger window, or leave these rows out"),
    "unparsable": ("换更强的评委，或打开 judge.json_schema", "take a stronger judge or set judge.json_schema=true"),
    "refused": ("查看服务端拒绝的原因", "read why the server refuses them"),
    "server": ("修好服务后用 resume= 重问", "mend the server, then ask again with resume="),
}


def count_of_cut(outcome: Outcome) -> int:
    """Answers that ended because they were as long as one may be; 0 where they are few."""
    count = sum(each.cut for each in outcome.samples)
    return count if count >= _CUT * len(outcome.samples) else 0


def advice(outcome: Outcome, groups: Sequence[Apart], is_rated: bool, lang: Lang) -> Iterator[str]:
    """What to do next.

    Args:
        outcome: what was found.
        groups: those that lie apart.
        is_rated: people rated it.
        lang: language.
    """
    for name, _ in outcome.failures.most_common():
        if name in _REMEDIES:
            chinese, english = _REMEDIES[name]
            yield lang(f"{kind_of(name, lang)}的样本：{chinese}。", f"Samples with the failure '{name}': {english}.")
    if count_of_cut(outcome) and any(_WINDOW in each for each in outcome.warnings):
        yield lang(
            "回答在模型窗口处中断：缩短提示，或换窗口更大的模型。",
            "Answers end at the model's window: shorten the prompts, or take a model with a larger one.",
        )
    elif count_of_cut(outcome):
        yield lang(
            "加大 sampling.max_new_tokens，让回答写完。", "Raise sampling.max_new_tokens, so that answers end by themselves."
        )
    low = [each for each in dimensions(outcome) if each.most and each.interval and each.interval[1] <= POOR * each.most]
    if low:
        names = lang.listed([lang.quoted(label(each.name, outcome)) for each in low])
        yield lang(f"为 {names} 补充训练数据或偏好数据。", f"Add training rows or preferences for {names}.")
    if groups:
        yield lang(
            "先看得分显著更差的分组里的样本，再决定补哪类数据。",
            "Read the samples of the groups that are significantly worse before choosing what data to add.",
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
    if not is_rated and not any(each.name.startswith(shown.JUDGE) for each in outcome.scores) and outcome.samples:
        yield lang(
            "指标只看与参考答案的相似程度：再用评委（judge=rubric_zh）或人工评价。",
            "Metrics only see likeness to references: have a judge (judge=rubric_en) or people rate the answers too.",
        )
