"""How a report calls scores, failures and models, and which score stands for the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlops_llm.eval import shown
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.outcome import Outcome, Score
from mlops_llm.eval.people.words import WORDS
from mlops_llm.eval.report.document import cut

NAME = 60
"""Characters of a score's name."""
PEOPLE = "human/"
_KINDS = {
    "timeout": "超时",
    "empty": "空回答",
    "too long": "过长",
    "unparsable": "无法解析",
    "refused": "被拒绝",
    "server": "服务错误",
}


@dataclass(frozen=True)
class Told(Outcome):
    """What was found, in the words of a language."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """A judge's dimension -> what it is called."""


def labels(judge: Mapping[str, Any] | None, lang: Lang) -> dict[str, str]:
    """What dimensions are called in a language; in Chinese also by what the judge was told."""
    if lang is not Lang.zh:
        return {}
    settings = judge["settings"].get("settings", judge["settings"]) if judge else {}
    return {**WORDS[lang].labels, "overall": "总分", **{key: str(each) for key, each in (settings.get("labels") or {}).items()}}


def label(name: str, outcome: Outcome) -> str:
    """A score's name for a person, if it is not too long for one."""
    short, known = name.removeprefix(shown.JUDGE).removeprefix(PEOPLE), outcome.labels if isinstance(outcome, Told) else {}
    if name != short and short in known:
        return cut(known[short], NAME)
    return cut(shown.label(name, outcome).removeprefix(PEOPLE), NAME)


def kind_of(name: str, lang: Lang) -> str:
    """A class of failure in a language."""
    return lang(_KINDS.get(name, name), name)


def decisive(outcome: Outcome) -> Score | None:
    """The score that stands for the whole: a judge's rating, else the first that has a good end."""
    return shown.overall(outcome) or next((each for each in outcome.scores if each.higher_is_better is not None), None)


def dimensions(outcome: Outcome) -> list[Score]:
    """A judge's dimensions, the best first."""
    whole = shown.overall(outcome)
    found = [each for each in outcome.scores if whole and each.name.startswith(shown.JUDGE) and each is not whole]
    good = [each for each in found if each.higher_is_better and each.most == whole.most] if whole else []
    return sorted(good, key=lambda each: -each.value)


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
