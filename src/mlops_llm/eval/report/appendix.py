"""The appendix: where every figure of a report comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlops_llm import console
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.report import chinese
from mlops_llm.eval.report.document import Chapter, Facts, Section, Text, cut

_TOOK = {
    "seconds": ("提问的秒数", "Seconds of asking"),
    "opening_seconds": ("加载模型的秒数", "Seconds of opening the model"),
    "seconds_a_sample": ("每个样本秒数", "Seconds a sample"),
    "tokens_per_second": ("每秒词元", "Tokens/s"),
    "peak_memory_bytes": ("内存峰值", "Peak memory"),
    "peak_gpu_memory_bytes": ("显存峰值", "Peak GPU memory"),
}
_MACHINE = {
    "commit": "代码版本",
    "uncommitted": "未提交的改动",
    "python": "Python",
    "system": "操作系统",
    "cpu": "处理器",
    "memory_gb": "内存（GB）",
    "gpu": "GPU",
    "prompt": "评委提示词版本",
}
_DIGESTS = {"raw": "文件摘要", "canonical": "内容摘要"}
_NAME = 60
"""Characters of a dataset's name."""


def appendix(found: Mapping[str, Any], lang: Lang) -> Chapter:
    """Run, digests, settings, machine."""
    record, model = found.get("record") or {}, found["model"]
    run = [
        (lang("运行名", "Run"), record.get("name") or found["run"]),
        (lang("运行 ID", "Run id"), record.get("run", "")),
        (lang("项目", "Project"), record.get("project", "")),
        (lang("链接", "Page"), record.get("link", "")),
        (lang("命令", "Command"), record.get("machine", {}).get("command", "")),
        (lang("结果文件", "Results"), f"evaluation.json ({found['form']}, {found['made']})"),
    ]
    digests = [
        (lang("模型权重", "Weights"), model.get("weights", "")),
        (lang("对话模板", "Chat template"), model.get("template", "")),
        (lang("检查点", "Checkpoint"), " ".join(filter(None, [model.get("checkpoint", ""), model.get("logged_model", "")]))),
    ]
    for each in [found["dataset"], *found["benchmarks"]]:
        if each:
            name = cut(each["name"], _NAME)
            digests += [(lang(f"{name} 版本", f"{name} version"), chinese.value(each["version"], lang))]
            digests += [(f"{name} {lang(_DIGESTS.get(kind, kind), kind)}", value) for kind, value in each["digests"].items()]
            digests += [(lang(f"{name} 文件", f"{name} file"), each["source"])] if each["source"] != each["version"] else []
    settings = [(name, str(value)) for name, value in (record.get("settings") or _flat(found["settings"])).items()]
    took = [
        (lang(*_TOOK.get(name, (name, name))), console.size(value) if name.endswith("bytes") else f"{value:.3f}")
        for name, value in found["performance"].items()
    ]
    machine = [
        (lang(_MACHINE.get(name, name), name), str(said))
        for name, said in record.get("machine", {}).items()
        if name != "command"
    ]
    packages = [(name, version) for name, version in record.get("packages", {}).items()]
    made = lang(
        "本报告由运行记录生成，其中的句子按固定规则从数字得出。失败原因和设置按记录原文列出。"
        "PDF 内嵌 Noto Sans CJK 字体的子集（SIL Open Font License 1.1，© Adobe）。",
        "This report was made from the record of the run; its sentences follow from the numbers by fixed rules. "
        "The PDF embeds a subset of Noto Sans CJK (SIL Open Font License 1.1, © Adobe).",
    )
    parts = [
        (lang("运行", "Run"), run),
        (lang("摘要", "Digests"), digests),
        (lang("用时与内存", "Time and memory"), took),
        (lang("设置", "Settings"), settings),
        (lang("环境", "Environment"), [*machine, *packages]),
    ]
    sections = [
        Section(title, [Facts([row for row in rows if row[1]])]) for title, rows in parts if any(row[1] for row in rows)
    ]
    return Chapter(lang("附录：数据来源", "Appendix: sources"), [*sections, Section("", [Text(made, soft=True)])])


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found = dict[str, Any]()
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{name}.")
        elif value not in (None, "", []):
            found[f"{before}{name}"] = value
    return found
