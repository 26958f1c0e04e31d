"""A sweep by a standard benchmark: its points score what lm-eval itself finds.

With MLOPS_LLM_REAL_DATA the rows are the authors', else a few of the same form.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlops_llm.component import build
from mlops_llm.eval.subject import subject
from mlops_llm.models.load import ModelLoad
from tests import miniatures
from tests.real.test_benchmarks import LIMITS, directly
from tests.real.test_benchmarks import rows as rows  # the folder of the benchmarks' files
from tests.surgeries import command

pytest.importorskip("lm_eval")


def test_points_score_what_lm_eval_finds(rows: Path, tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        miniatures.model(tmp_path / name, seed=seed)
    words = ["op=sweep", "models=[a,b]", "op.points=3", "benchmark=[truthfulqa]", f"benchmarks.data={rows}", "output=best"]
    decisive = f"truthfulqa[{LIMITS['truthfulqa']}]/mc2/acc"
    said = command(tmp_path, *words, f"limit={LIMITS['truthfulqa']}", f"op.score='{decisive}'", "run_name=s")
    found = json.loads((tmp_path / "outputs/s/result.json").read_text("utf-8"))
    scores = {each["point"]: each["score"] for each in found["points"]}
    assert set(scores) == {"a", "b", "ratio 0.5"} and decisive in said
    command(tmp_path, "op=merge_slerp", "models=[a,b]", "op.t=0.5", "output=half", "run_name=half")
    for folder, point in (("a", "a"), ("half", "ratio 0.5")):
        of = subject(str(tmp_path / folder), ModelLoad())
        with build("engine", "hf").open(of.files, ModelLoad(), of.tokenizer, of.window) as session:
            theirs = directly("truthfulqa", rows, session, num_fewshot=None, apply_chat_template=False)
        assert scores[point] == pytest.approx(theirs["results"]["truthfulqa_mc2"]["acc,none"], abs=1e-12)
