"""What is wrong in a preset is one line, exit code 2, that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.surgeries import command

SFT = "command: train +experiment=sft_sales"


@pytest.mark.parametrize(
    ("group", "text", "said"),
    [
        ("experiment", "stages: {a: [\n", "mine.yaml:2: is no YAML (expected the node content, but found '<stream end>')"),
        ("policy", "defaults: [gate\n", "mine.yaml:2: is no YAML"),
        ("experiment", "stages: [a, b]\n", "a list stands where names with values are wanted, or these where a list is; it"),
        ("experiment", f"stages: {{a: {{com{SFT}}}}}\n", "stages.a: Key 'comcommand' not in 'Stage' (did you mean command?)"),
        ("experiment", f"stages: {{a: {{{SFT}, otherwise: stop}}}}\n", "expected one of [skip, end]; it stands in"),
        ("policy", "defaults: [gate, _self_]\nmarign: 1\n", "Key 'marign' not in 'Policy' (did you mean margin?)"),
    ],
)
def test_what_is_wrong_in_a_preset_is_said_with_its_file(tmp_path: Path, group: str, text: str, said: str) -> None:
    file = tmp_path / "conf" / group / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text, "utf-8")
    words = ["+experiment=mine"] if group == "experiment" else ["op=promote", "name=x", "policy=mine"]
    error = command(tmp_path, *words, code=2, stage="pipeline" if group == "experiment" else "registry")
    assert said in error and str(file) in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("text", ["dataset: sales_eval\n", "", "- a\n"])
def test_a_policy_of_one_s_own_that_chooses_none_says_how_to_begin_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "conf/policy").mkdir(parents=True)
    (tmp_path / "conf/policy/mine.yaml").write_text(text, "utf-8")
    error = command(tmp_path, "op=promote", "name=x", "policy=mine", code=2, stage="registry")
    assert "policy: the file in conf/policy does not say what it is a variant of; begin it with a choice: defaults:" in error
    assert "unknown policy 'min' (did you mean mine?)" in command(tmp_path, "op=list", "policy=min", code=2, stage="registry")


def test_a_setting_of_a_hook_that_is_not_chosen_says_how_to_choose_it(tmp_path: Path) -> None:
    words = ["op=promote", "name=x", "hook.command.run=./deploy.sh"]
    assert "hook.command: is not chosen; choose it: hook=[command]" in command(tmp_path, *words, code=2, stage="registry")
    chosen = command(tmp_path, *words, "hook=[webhook]", code=2, stage="registry")
    assert "hook.command: is not chosen; choose it: hook=[webhook,command]" in chosen
