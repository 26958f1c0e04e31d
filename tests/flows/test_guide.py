"""The first ten minutes of the Chinese guide, as it types them, in an empty folder."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.commands import start
from tests.contract.test_guide import ROOT, lines
from tests.record import client, run_of

BEGIN, END = "## 最初十分钟", "## 再十分钟"


def test_the_first_ten_minutes_do_what_the_guide_says(here: Path, tmp_path: Path):
    text = (ROOT / "docs/zh/README.md").read_text("utf-8")
    part = tmp_path / "part.md"
    part.write_text(text[text.index(BEGIN) : text.index(END)], "utf-8")
    typed = [line for line, marks in lines(part) if line.startswith("python -m mlops_llm.") and not marks]
    part.unlink()
    shown = {}
    for line in typed:
        _, _, module, *words = shlex.split(line)
        process = start(here, *words, module=module)
        out, err = process.communicate(timeout=400)
        assert process.returncode == 0, f"{line}\n{out}{err}"
        shown[module.rpartition(".")[2], next((word for word in words if word.startswith("op=")), "")] = out
    assert "sales_sft_val" in shown["data", "op=list"]
    assert "⟦" in shown["data", "op=preview"]
    assert "best checkpoint" in shown["train", ""]
    assert "没有" in shown["eval", "op=compare"] or "优于" in shown["eval", "op=compare"]
    assert "challenger" in shown["registry", "op=list"]
    metrics = run_of(client(here), "first").data.metrics
    assert metrics["eval/loss"] < 4.5 and len(typed) == 5
