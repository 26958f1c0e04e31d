"""A flow as one page of HTML: what won and why, what was tried, and where the reports are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlops_llm.console import number, seconds
from mlops_llm.eval.layout import document, section, table
from mlops_llm.eval.markup import Html, tag
from mlops_llm.pipeline.ended import Ended, State
from mlops_llm.pipeline.verdict import Verdict

_CHINESE = {
    State.done: "完成",
    State.there: "已有",
    State.left_out: "略过",
    State.failed: "失败",
    State.no: "不通过",
    State.refused: "未获准",
    State.lost: "未开始",
    State.over: "不需要",
}
_REPORTS = {"score": "evaluation.html", "compare": "comparison.html", "report": "report.html, report.pdf", "explain": "explain"}
"""Operation of an evaluation -> its artifacts for a person."""


def page(name: str, project: str, ended: Sequence[Ended], found: Verdict, links: Mapping[str, str], took: str) -> str:
    """The page.

    Args:
        name: of the pipeline's run.
        project: its project.
        ended: its stages.
        found: what it came to.
        links: stage -> the page of its run in MLflow.
        took: time of the whole, for a person.
    """
    failed = [each for each in ended if each.state is State.failed]
    parts: list[Html | None] = [
        tag("h1", name),
        tag("p", f"{project} · {len(ended)} stages · {took}", class_="sub"),
        *(tag("div", f"⚠ {each.step.name}: {each.reason}", class_="warning") for each in failed),
        _won(found),
        _tried(ended, links),
        _scores(found),
        _reports(ended, links),
        _alone(failed),
    ]
    return document(name, [each for each in parts if each is not None])


def _won(found: Verdict) -> Html:
    head = tag("p", tag("b", found.best.model), class_="best") if found.best else tag("p", "nothing was evaluated 没有评测")
    decided = tag("div", *(tag("p", tag("b", each)) for each in found.decisions), class_="said") if found.decisions else None
    reasons = tag("div", *(tag("p", each) for each in found.why), class_="said") if found.why else None
    card = None
    if found.best:
        inside = tag("span", found.score), tag("b", number(found.best.values[found.score]))
        card = tag("div", tag("div", *inside, class_="card main"), class_="cards")
    return section("What won, and why", "结果与理由", head, card, decided, reasons)


def _tried(ended: Sequence[Ended], links: Mapping[str, str]) -> Html:
    rows = [
        [
            _link(each.step.name, links),
            each.step.operation,
            Html(tag("span", f"{each.state.value} {_CHINESE[each.state]}", class_=_shade(each.state))),
            seconds(each.seconds) if each.seconds else "",
            each.told,
            each.ref,
            each.reason,
        ]
        for each in ended
    ]
    heads = ["Stage 阶段", "What 做什么", "Ended 结果", "Time 用时", "Number 指标", "Made 产物", "Reason 原因"]
    return section("What was tried", "做了什么", table(heads, rows))


def _shade(state: State) -> str | None:
    return "chip bad" if state in (State.failed, State.no) else "chip"


def _scores(found: Verdict) -> Html | None:
    if not found.scored:
        return None
    rows = [
        [
            Html(tag("b", each.model, class_="best" if each is found.best else None)),
            each.stage,
            *(number(each.values[name]) if name in each.values else "" for name in found.names),
        ]
        for each in found.scored
    ]
    return section("Scores", "各模型得分", table(["Model 模型", "Stage 阶段", *found.names], rows))


def _reports(ended: Sequence[Ended], links: Mapping[str, str]) -> Html | None:
    rows = [
        [_link(each.step.name, links), _REPORTS.get(each.step.words.value("op") or "score", "")]
        for each in ended
        if each.step.words.room == "eval" and each.step.name in links
    ]
    if not rows:
        return None
    return section("Reports", "报告", table(["Run 运行", "Artifacts to open 打开这些文件"], rows))


def _alone(failed: Sequence[Ended]) -> Html | None:
    rows = [[each.step.name, each.command, str(each.log or "")] for each in failed]
    return section("To do again alone", "单独重做", table(["Stage 阶段", "Command 命令", "Log 日志"], rows)) if rows else None


def _link(name: str, links: Mapping[str, str]) -> Html:
    return tag("a", name, href=links[name]) if name in links else tag("span", name)
