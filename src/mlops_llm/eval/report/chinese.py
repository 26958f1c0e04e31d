"""What the record says in English, in a Chinese report: names of facts, their values, warnings and reasons.

What no pattern knows stays as it is, since it is what the record says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mlops_llm.eval.lang import Lang

_FACTS = {
    "sampling": "采样",
    "answers": "回答",
    "ability": "能力",
    "seconds a sample": "每个样本秒数",
    "tokens/s": "每秒词元",
    "opening the model": "加载模型",
    "peak memory": "内存峰值",
    "peak GPU memory": "显存峰值",
    "judge": "评委",
    "judge calls": "评委请求",
    "judge tokens": "评委词元",
    "judge cost": "评委费用",
    "judged by": "实际应答的评委模型",
    "judge does not know": "评委接口不支持的设置",
    "judgements known from before": "缓存中已有的评分",
    "judgements that could not be read": "未能读取的评分",
    "orders disagree": "换序后结论不一",
    "spread over repetitions": "重复评分的离散程度",
    "chat template": "对话模板",
    "seen in training": "训练中见过",
    "compared with": "比对的训练数据",
    "not compared": "没有比对",
    "training data": "训练数据",
    "training data not known": "未知的训练数据",
    "items": "题目",
    "few-shot": "示例数",
    "system prompt": "系统提示",
    "filters": "答案提取",
    "rows": "数据",
    "lm-eval": "lm-eval",
    "programs": "程序",
}
_HEADS = {
    "key": "分组项",
    "value": "取值",
    "items": "样本",
    "class": "类别",
    "rows": "行数",
    "precision": "精确率",
    "recall": "召回率",
    "cause": "原因",
    "(unknown)": "（无法归类）",
}
_TITLES = [
    (r"classes \(rows\) and what was answered \(columns\)", "类别（行）与回答（列）"),
    (r"each class", "各类别"),
    (r"(.+): why programs did not pass", r"\1：程序未通过的原因"),
]
_VALUES = [
    (r"\bgreedy\b", "贪心"),
    (r"\btemperature (\S+), top-p (\S+), seed (\d+)", r"温度 \1、top-p \2、种子 \3"),
    (r", at most (\d+) tokens", r"，最多 \1 个词元"),
    (r"(\d+) known from before", r"\1 个缓存中已有"),
    (r"(\d+) of this run before it stopped", r"\1 个是本次中断前的"),
    (r"(\d+) asked", r"\1 个新问"),
    (r" \(when they were asked\)", "（当初提问时）"),
    (r"^not needed$", "不需要"),
    (r"^(\S+) by (\S.*)$", r"\1（\2）"),
    (r"([\d,]+) before it stopped", r"中断前 \1"),
    (r"([\d,]+) attempts more", r"重试 \1 次"),
    (r"([\d,]+) in, ([\d,]+) out", r"输入 \1，输出 \2"),
    (r"(\S+) of pairs; the answer shown first wins (\S+)", r"\1 的配对；先出现的回答胜 \2"),
    (r"([\d,]+) of ([\d,]+) items", r"\2 题中 \1 题"),
    (r"(\d+) by question and answer", r"\1 题问答都同"),
    (r"(\d+) by the question", r"\1 题问题相同"),
    (r"(\d+) by its words", r"\1 题用词相同"),
    (r"; (\d+) more chose the checkpoint", r"；另有 \1 题用于挑选检查点"),
    (r"corpus of (\S+?)(?=,|$)", r"\1 的语料"),
    (r"^data of (.+)$", r"\1 的数据"),
    (r"what a server's model was trained on", "服务端模型的训练数据"),
    (r"(\S+) comes from elsewhere: what it was trained on is not recorded", r"\1 来自别处，没有训练记录"),
    (r"(\d+) in (\d+) tasks, (\d+) of each at most", r"\2 个任务共 \1 题，每个至多 \3 题"),
    (r"(\d+) in (\d+) tasks", r"\2 个任务共 \1 题"),
    (r"\btask files\b", "任务文件"),
    (r"^none$", "无"),
]
_WARNINGS = [
    (
        r"(\S+) took (\S+) s a sample while it was measured: something else may have run",
        r"\1 在测量期间每个样本用了 \2 秒：机器可能在做别的事",
    ),
    (
        r"([\d,]+) of ([\d,]+) answers have room for fewer than ([\d,]+) tokens: the model's window is ([\d,]+)",
        r"\2 个回答中有 \1 个的空间不足 \3 个词元：模型窗口为 \4",
    ),
    (
        r"it has no chat template of its own: questions are put as (\S+) writes them",
        r"模型没有自己的对话模板：问题按 \1 的写法提出",
    ),
    (
        r"its chat template \((\S+)\) is not the one that it was trained with \((\S+)\): "
        "answers may be worse than the model is",
        r"对话模板（\1）与训练时的（\2）不同：回答可能差于模型的实际水平",
    ),
    (
        r"latency: (\d+) of (\d+) answers were given before, maybe in other batches or elsewhere; cache=refresh measures anew",
        r"latency：\2 个回答中有 \1 个是以前给出的，批次或机器可能不同；cache=refresh 重新测量",
    ),
    (r"training data not known \((.*)\): the model may have seen these items", r"训练数据不明（\1）：模型可能见过这些题目"),
    (r"what a server's model was trained on", "服务端模型的训练数据"),
    (r"(\S+) comes from elsewhere: what it was trained on is not recorded", r"\1 来自别处，没有训练记录"),
    (
        r"the model's history is not known for its base (\S+): whether it met these rows cannot be told",
        r"模型的底座 \1 来历不明：是否见过这些行无法判断",
    ),
    (
        r"(\S+): ([\d,]+) prompts are longer than the model takes and lost their beginning",
        r"\1：\2 个提示长于模型窗口，开头被截去",
    ),
    (
        r"(\S+): ([\d,]+) rows in (\S+), the data set that the task names has ([\d,]+)",
        r"\1：\3 中有 \2 行，任务所指的数据集有 \4 行",
    ),
    (r"(\S+): (\d+) more tasks have other numbers of rows than their data sets", r"\1：另有 \2 个任务的行数与其数据集不同"),
    (
        r"benchmarks.few_shot=(\d+) does not count for (.+): the task fixes 0",
        r"benchmarks.few_shot=\1 对 \2 无效：任务固定为 0",
    ),
    (
        r"(\S+): answers have at most (\d+) tokens, not (\d+): the model's window is (\d+)",
        r"\1：回答最多 \2 个词元，而非 \3：模型窗口为 \4",
    ),
    (r"(\S+) is no number: the model finds every choice of an item impossible", r"\1 不是数：模型认为某题的所有选项都不可能"),
    (r"(\S+) and (\S+) were asked with other settings: ", r"\1 与 \2 的提问设置不同："),
    (
        r"the evaluations are of different rows \((.*); (\d+) in common\); the others are left out",
        r"各评测的行不同（\1；共有 \2 行）；其余的未计入",
    ),
    (r"(\d+ .+) and (\d+ .+) are the same model", r"\1 与 \2 是同一个模型"),
]
_CONDITIONS = {
    "rows": "样本",
    "engine": "引擎",
    "settings of the engine": "引擎设置",
    "batch size": "批大小",
    "answer length": "回答长度",
    "sampling": "采样",
    "number format": "数值格式",
    "processor": "处理器",
    "GPU": "GPU",
    "torch": "torch 版本",
    "transformers": "transformers 版本",
}
_REASONS = [
    (r"the record has no evaluation of (.+) in which all was asked anew", r"记录里没有 \1 的、全部回答都重新生成的评测"),
    (r"answers of (.+) were given before; cache=refresh asks all anew", r"\1 的回答是以前给出的；cache=refresh 全部重新提问"),
    (r"; op.measure=true measures each model by itself", "；op.measure=true 单独测量每个模型"),
    (
        r"models were asked in one process, which had one memory; op.measure=true measures each by itself",
        "各模型在同一进程中提问，内存无法分开；op.measure=true 单独测量",
    ),
    (r"no end of it is the good one", "它没有好坏方向"),
    (r"not every model has it", "不是每个模型都有"),
    (r"a value is not finite", "有的值不是有限数"),
    (r"it was not counted alike", "计算方式不同"),
    (r"it is no matter of single samples", "它不是单个样本的事"),
    (r"two models have it of different samples", "两个模型的样本不同"),
    (r"the models have different tokenizers; bits_per_byte compares", "各模型的分词器不同；可比的是 bits_per_byte"),
    (r"speed is measured, not drawn", "速度是测量值，不是抽样"),
    (r"McNemar, exact", "McNemar 精确检验"),
    (r"exchanged values \(all\)", "置换（全部）"),
    (r"exchanged values", "置换"),
    (r"exchanged answers \(all\)", "置换回答（全部）"),
    (r"exchanged answers", "置换回答"),
    (r"there are more than (\d+) models", r"超过 \1 个模型"),
    (
        r"it kept no texts \(save_outputs=false\), by which its answers would be paired",
        "没有保留文本（save_outputs=false），回答无法配对",
    ),
    (r"holds no results \((\w+); it has no readable evaluation.json\)", r"没有结果（\1；没有可读的 evaluation.json）"),
    (r"are of different rows \((.*); (\d+) in common\)", r"行不同（\1；共有 \2 行）"),
    *_WARNINGS,
]
_DIFFER = "the evaluations of the record differ in "


def fact(name: str, said: str, labels: Mapping[str, str], lang: Lang) -> tuple[str, str]:
    """A fact's name and value, of a benchmark's also the ones within it: `gsm8k[6]: seen in training`."""
    if lang is Lang.en:
        return name, said
    before, mark, last = name.rpartition(": ")
    named = f"{before}：{_FACTS[last]}" if mark and last in _FACTS else _FACTS.get(name, name)
    inner = [each.partition(": ") for each in said.split("; ")]
    if name not in _FACTS and not mark and all(each[1] and each[0] in _FACTS for each in inner):
        return named, "；".join(f"{_FACTS[key]}：{_mended(each, _VALUES)}" for key, _, each in inner)
    if last == "spread over repetitions":
        for each, label in labels.items():
            said = re.sub(rf"\b{re.escape(each)}\b", label, said)
    return named, said if last == "ability" else _mended(said, _VALUES)


def head(column: str, lang: Lang) -> str:
    """The name of a table's column."""
    return lang(_HEADS.get(column, column), column)


def table(title: str, lang: Lang) -> str:
    """The title of a table."""
    return lang(_mended(title, _TITLES), title)


def value(said: str, lang: Lang) -> str:
    """A value that is a name or a version."""
    return lang(_mended(said, _VALUES), said)


def warning(said: str, lang: Lang) -> str:
    """A warning."""
    return lang(_mended(said, _WARNINGS), said)


def reason(said: str, lang: Lang) -> str:
    """Why something is not compared, how it was tested, and what is to be known of a comparison."""
    if lang is Lang.en:
        return said
    begin, mark, rest = said.partition(_DIFFER)
    if mark:
        names, more, behind = rest.partition("; ")
        listed = [_CONDITIONS.get(each, each) for each in names.split(", ")]
        return f"{begin}各评测的条件不同：{'、'.join(listed)}{_mended(more + behind, _REASONS)}"
    return _mended(said, _REASONS)


def _mended(said: str, patterns: Sequence[tuple[str, str]]) -> str:
    for pattern, chinese in patterns:
        said = re.sub(pattern, chinese, said)
    return said
