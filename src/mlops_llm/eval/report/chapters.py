"""The chapters of a report: summary, method, results, comparison, conclusion, and the appendix that every figure leads to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mlops_llm import console
from mlops_llm.eval import shown
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.outcome import Outcome
from mlops_llm.eval.report import chinese
from mlops_llm.eval.report.appendix import appendix
from mlops_llm.eval.report.compared import comparison
from mlops_llm.eval.report.document import Card, Cards, Chapter, Document, Facts, Part, Points, Section, Table, Text, cut
from mlops_llm.eval.report.facts import outcome_of
from mlops_llm.eval.report.findings import Words, words
from mlops_llm.eval.report.naming import Told, between, decisive, figure, kind_of, label, labels
from mlops_llm.eval.report.results import results

_CELL = 150
_USED = {
    "calls": "请求数",
    "known": "缓存中已有",
    "tokens_in": "输入词元",
    "tokens_out": "输出词元",
    "unread": "未能读取",
    "attempts_more": "重试次数",
    "cost": "费用",
}


@dataclass(frozen=True)
class Report:
    """An evaluation with what is said of it."""

    found: Mapping[str, Any]
    """Its facts, as schema.json says."""
    outcome: Told
    words: Words
    lang: Lang


def report(found: Mapping[str, Any], lang: Lang) -> Report:
    """Say what an evaluation's facts mean."""
    plain = outcome_of(found)
    made = {each.name: getattr(plain, each.name) for each in fields(plain)}
    outcome = Told(**made | {"title": _title(plain, lang)}, labels=labels(found["judge"], lang))
    said = words(outcome, found.get("comparison"), lang, found.get("people") or ())
    return Report(found, outcome, said, lang)


def _title(outcome: Outcome, lang: Lang) -> str:
    """`MODEL on DATASET` in a language."""
    rest = outcome.title.removeprefix(f"{outcome.model} on ")
    return lang(f"{outcome.model} 在 {rest} 上的评测", outcome.title) if rest != outcome.title else outcome.title


def document(about: Report, samples: int) -> Document:
    """A report's chapters.

    Args:
        about: what is reported.
        samples: how many samples stand in it, at most.
    """
    lang, found = about.lang, about.found
    chapters = [
        _summary(about),
        _method(about),
        results(about.outcome, found.get("people") or (), lang, samples if found["texts"] else 0),
        comparison(about.outcome, found.get("comparison"), about.words.comparison, lang),
        _conclusion(about),
    ]
    lines = [
        (lang("模型", "Model"), about.outcome.model),
        (lang("评测集", "Dataset"), about.outcome.dataset),
        (lang("运行", "Run"), found.get("record", {}).get("name") or found["run"]),
        (lang("评测时间", "Evaluated"), found["made"]),
    ]
    return Document(
        lang.value,
        lang("模型评测报告", "Evaluation report"),
        cut(about.outcome.title, _CELL),
        [(name, cut(said, _CELL)) for name, said in lines if said],
        lang("目录", "Contents"),
        chapters,
        appendix(found, lang),
    )


def _summary(about: Report) -> Chapter:
    lang, outcome = about.lang, about.outcome
    parts: list[Part] = [_cards(outcome, lang)]
    sections = [Section("", parts), Section(lang("主要发现", "Findings"), [Points(about.words.findings)])]
    if about.words.advice:
        sections.append(Section(lang("建议", "Advice"), [Points(about.words.advice)]))
    if outcome.warnings:
        sections.append(
            Section(
                lang("读数前须知", "To know before reading the scores"),
                [Points([chinese.warning(each, lang) for each in outcome.warnings], warns=True)],
            )
        )
    return Chapter(lang("评测概述", "Summary"), sections)


def _cards(outcome: Outcome, lang: Lang) -> Cards:
    cards, score, count = [], decisive(outcome), len(outcome.samples)
    if score:
        name = lang("总分", "Overall score") if score is shown.overall(outcome) else label(score.name, outcome)
        cards.append(Card(name, figure(score), between(score, lang).strip("（） ()")))
    if count:
        cards.append(Card(lang("样本", "Samples"), str(count)))
        cards.append(Card(lang("成功", "Succeeded"), str(outcome.succeeded), f"{outcome.succeeded / count:.1%}"))
        kinds = lang.listed([f"{kind_of(name, lang)} {times}" for name, times in outcome.failures.most_common()])
        cards.append(Card(lang("失败", "Failed"), str(outcome.failures.total()), kinds))
    return Cards(cards)


def _method(about: Report) -> Chapter:
    lang, outcome, found = about.lang, about.outcome, about.found
    sections = [Section(lang("数据", "Data"), [_data(found, lang)]), Section(lang("指标", "Metrics"), _metrics(outcome, lang))]
    judge = found["judge"]
    if judge:
        sections.append(Section(lang("评委", "Judge"), [_judge(judge, found, lang)]))
    elif not any(each.name.startswith(shown.JUDGE) for each in outcome.scores):
        said = lang("没有评委：得分只来自指标和标准评测集。", "No judge: the scores come from metrics and benchmarks alone.")
        sections.append(Section(lang("评委", "Judge"), [Text(said)]))
    told = (chinese.fact(name, said, outcome.labels, lang) for name, said in outcome.facts.items())
    rows = [(cut(name, _CELL), said) for name, said in told]
    conditions = [
        (lang("模型", "Model"), cut(outcome.model, _CELL)),
        (lang("引擎", "Engine"), cut(outcome.engine, _CELL)),
        *rows,
    ]
    return Chapter(lang("评测方法", "Method"), [*sections, Section(lang("条件", "Conditions"), [Facts(conditions)])])


def _data(found: Mapping[str, Any], lang: Lang) -> Table:
    sets = [each for each in [found["dataset"], *found["benchmarks"]] if each]
    rows = [[each["name"], chinese.value(each["version"], lang), str(each["rows"]), each.get("ability", "")] for each in sets]
    columns = [lang("名称", "Name"), lang("版本", "Version"), lang("行数", "Rows"), lang("能力", "Ability")]
    return Table(columns, rows or [[found["dataset_name"] or found["title"], "", "", ""]], right=(2,), wide=(1,))


def _metrics(outcome: Outcome, lang: Lang) -> list[Part]:
    ends = {True: lang("越高越好", "higher"), False: lang("越低越好", "lower"), None: "-"}
    rows = [
        [
            label(each.name, outcome),
            f"{each.most:g}" if each.most is not None else "-",
            ends[each.higher_is_better],
            cut(each.signature, _CELL),
        ]
        for each in outcome.scores
    ]
    columns = [
        lang("得分", "Score"),
        lang("满分", "Largest"),
        lang("好的方向", "Better"),
        lang("计算方式", "How it is counted"),
    ]
    rules = lang(
        "失败的样本在指标里按空回答计，评委没能评出的没有评分。区间为 95 %：比例用 Wilson，均值用自助法"
        "（不足 20 个值时用 Student t），语料分数用对回答的自助法。",
        "In a metric a failed sample counts as an empty answer; one that the judge could not rate has no rating. Intervals are "
        "95 %: Wilson's of shares, the bootstrap of means (Student's t of fewer than 20 values) and of corpus scores.",
    )
    return [Table(columns, rows, wide=(3,)), Text(rules, soft=True)]


def _judge(judge: Mapping[str, Any], found: Mapping[str, Any], lang: Lang) -> Facts:
    settings = judge["settings"].get("settings", judge["settings"])
    rows = [(lang("评分标准", "Rubric"), judge["name"]), (lang("评委模型", "Model"), str(settings.get("model") or ""))]
    dimensions = settings.get("dimensions") or []
    labels = settings.get("labels") or {}
    named = [f"{each} ({labels[each]})" if labels.get(each) else each for each in dimensions]
    rows.append((lang("维度", "Dimensions"), lang.listed(named)))
    rows.append((lang("提示词版本", "Prompt"), found.get("record", {}).get("machine", {}).get("prompt", "")))
    rows.append((lang("温度", "Temperature"), str(settings.get("temperature", ""))))
    rows += [(lang(_USED.get(name, name), name), console.number(float(value))) for name, value in judge["numbers"].items()]
    return Facts([(name, said) for name, said in rows if said])


def _conclusion(about: Report) -> Chapter:
    lang = about.lang
    none = lang("从数字看不出来。", "The numbers show none.")
    parts = [
        (lang("优点", "Strengths"), about.words.strengths),
        (lang("问题", "Problems"), about.words.problems),
        (lang("改进方向", "Directions"), about.words.advice),
    ]
    rule = lang(
        "只有整个 95 % 区间都在满分的 80 % 以上（60 % 以下）的评分和正确率，才称为高（低）；"
        "BLEU、ROUGE 之类的相似度没有这样的界线。",
        "A rating or a share of right answers is called high (low) only where its whole 95 % interval is above 80 % (below "
        "60 %) of the largest value; likeness to references (BLEU, ROUGE) has no such line.",
    )
    sections = [Section(title, [Points(said) if said else Text(none)]) for title, said in parts]
    return Chapter(lang("结论", "Conclusion"), [*sections, Section("", [Text(rule, soft=True)])])
