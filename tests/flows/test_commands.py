"""The commands that people are told to type do work, shortened to a few steps."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.commands import ok, start, train

ROOT = Path(__file__).parents[2]
SHORT = ["trainer.max_steps=2", "trainer.save_steps=2", "trainer.eval_steps=2", "samples.count=0"]
FEW = ["limit=2", "sampling.max_new_tokens=4"]
COMMAND = re.compile(r"^(?:# )?python -m mlops_llm\.train (.+)$", re.MULTILINE)
EXPERIMENTS = sorted((ROOT / "conf/experiment").glob("*.yaml"))
PRESETS = {
    stage: [each for each in EXPERIMENTS if f"mlops_llm.{stage} " in each.read_text("utf-8").splitlines()[0]]
    for stage in ("train", "surgery")
}

FLOWS = [each for each in EXPERIMENTS if "mlops_llm.pipeline " in each.read_text("utf-8").splitlines()[0]]


@pytest.mark.parametrize("preset", PRESETS["train"], ids=lambda path: path.stem)
def test_first_line_of_an_experiment(tmp_path: Path, preset: Path) -> None:
    found = COMMAND.match(preset.read_text("utf-8"))
    assert found, f"{preset.name} does not begin with its command"
    ok(train(tmp_path, *shlex.split(found[1]), *SHORT))


@pytest.mark.parametrize("preset", PRESETS["surgery"], ids=lambda path: path.stem)
def test_first_line_of_an_experiment_of_surgery(beside: Path, preset: Path) -> None:
    line = preset.read_text("utf-8").splitlines()[0]
    assert line.startswith("# python -m mlops_llm.surgery "), f"{preset.name} does not begin with its command"
    process = start(beside, *shlex.split(line)[4:], *FEW, stage="surgery")
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, out + err


def test_every_experiment_is_one_of_a_stage() -> None:
    known = [each for presets in PRESETS.values() for each in presets]
    assert sorted([*known, *FLOWS]) == EXPERIMENTS and FLOWS  # tests/flows/test_pipeline.py runs and checks these


@pytest.mark.slow
def test_commands_of_the_readme_in_their_order(tmp_path: Path) -> None:
    ok(train(tmp_path, "+experiment=sft_sales", *SHORT, fresh=True))  # what `make train` does
    commands = [shlex.split(found) for found in COMMAND.findall((ROOT / "README.md").read_text("utf-8"))]
    assert len(commands) >= 4
    for words in commands:
        kept = [word for word in words if not word.startswith("trainer.max_steps")]
        ok(train(tmp_path, *kept, *([] if "--help" in kept else SHORT)))
