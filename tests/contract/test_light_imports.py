"""`--help`, `--cfg job` and a typo answer without importing what takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "mlflow", "transformers", "datasets", "peft", "trl", "accelerate", "pandas", "matplotlib", "sqlalchemy"}
RUN = """
import json, runpy, sys
try:
    runpy.run_module("mlops_llm.train", run_name="__main__", alter_sys=True)
    code = None
except SystemExit as stop:
    code = stop.code
sys.stderr.write("\\n" + json.dumps({"code": code, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def train(folder, *arguments: str) -> tuple[int, set[str], str, str]:
    """Run the stage in a fresh process; return exit code, imported packages, output and errors."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    errors, _, last = done.stderr.rpartition("\n")
    facts = json.loads(last)
    return facts["code"], set(facts["modules"]), done.stdout, errors


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "usage: python -m mlops_llm.train"),
        (["--cfg", "job"], 0, "max_steps: -1"),
        (["trainer.max_stepz=5"], 2, "error: Key 'max_stepz' not in 'Trainer' (did you mean max_steps?)\n"),
        (["+experiment=sft_sale"], 2, "did you mean sft_sales?"),
        (["modle=tiny"], 2, "did you mean model?"),
        (["peft=lorra"], 2, "did you mean lora?"),
        (["trainer.max_steps=many"], 2, "trainer.max_steps"),
        (["seed=1", "trainer.max_steps=0", "dataset=sales_sft"], 2, "error: trainer.max_steps: is 0; give a number from 1"),
    ],
    ids=["help", "cfg", "key", "experiment", "setting", "choice", "type", "range"],
)
def test_answers_without_heavy_imports(tmp_path, arguments, code, said):
    got, modules, out, errors = train(tmp_path, *arguments)
    assert got == code
    assert said in (errors if code else out)
    assert "Traceback" not in errors
    assert not errors.strip() or len(errors.strip().splitlines()) == 1
    assert modules & HEAVY == set()
    assert sorted(path.name for path in tmp_path.iterdir()) == []


def test_help_names_groups_choices_and_three_commands(tmp_path):
    _, _, out, _ = train(tmp_path, "--help")
    assert "peft=lora|none" in out
    assert "algo=sft" in out
    examples = out.partition("examples:\n")[2].partition("\n\n")[0].splitlines()
    assert len(examples) == 3
    assert all(line.strip().startswith("python -m mlops_llm.train ") for line in examples)
