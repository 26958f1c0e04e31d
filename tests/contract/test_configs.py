"""Every preset composes with its stage's schema, and says how it is used."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from mlops_llm import component
from mlops_llm.entry import config
from mlops_llm.entry.arguments import first_choices, read
from tests.contract.test_components import STAGES

CONF = config.config_folder()
FILES = sorted(CONF.rglob("*.yaml"))
PRIMARY = [path for path in FILES if path.parent == CONF]
EXPERIMENTS = [path for path in FILES if path.parent.name == "experiment"]
VARIANTS = [path for path in FILES if path not in PRIMARY + EXPERIMENTS]
REQUIRED = {
    "train": ["dataset=sales_sft"],
    "data": ["op=list"],
    "launch": ["op=list"],
    "surgery": ["op=merge_linear"],
    "registry": ["op=list"],
}
"""What a stage cannot do without."""


def by_stem(path: Path) -> str:
    return path.stem


def command(path: Path) -> list[str]:
    first = path.read_text("utf-8").partition("\n")[0]
    assert first.startswith("# python -m mlops_llm.")
    return shlex.split(first.removeprefix("# "))


def composed(stage: str, overrides: list[str]):
    each = STAGES[stage]
    config.register(each.name, each.schema, each.packages)
    return config.typed(config.composed(stage, read(overrides).overrides))


def test_conf_is_flat_and_holds_presets_only():
    assert {path.parent.parent for path in FILES if path.parent != CONF} <= {CONF}
    assert [path for path in CONF.rglob("*") if path.is_file() and path.suffix != ".yaml"] == []
    assert EXPERIMENTS


def test_every_stage_has_its_preset():
    assert {path.stem for path in PRIMARY} == set(STAGES)


@pytest.mark.parametrize("path", PRIMARY, ids=by_stem)
def test_the_preset_of_a_stage_composes(path):
    assert isinstance(composed(path.stem, REQUIRED.get(path.stem, [])), STAGES[path.stem].schema)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=by_stem)
def test_the_first_line_of_an_experiment_is_its_command_and_composes(path):
    python, flag, module, *overrides = command(path)
    assert (python, flag) == ("python", "-m")
    assert f"+experiment={path.stem}" in overrides
    stage = module.removeprefix("mlops_llm.")
    settings = composed(stage, overrides)
    assert isinstance(settings, STAGES[stage].schema)
    assert component.rebuilt(STAGES[stage].schema, json.loads(json.dumps(component.plain(settings)))) == settings

    own = OmegaConf.to_container(OmegaConf.create(yaml.safe_load(path.read_text("utf-8"))), resolve=True)

    def compare(wanted: dict, there) -> None:
        for key, value in wanted.items():
            if isinstance(value, dict):
                compare(value, there[key] if isinstance(there, dict) else getattr(there, key))
            else:
                found = there[key] if isinstance(there, dict) else getattr(there, key)
                assert getattr(found, "name", found) == (float(value) if isinstance(found, float) else value)

    compare({key: value for key, value in own.items() if key != "defaults"}, settings)


def test_the_variants_of_groups_compose():
    for path in VARIANTS:
        group = path.parent.name
        assert group in component.groups(), path
        stages = [name for name, each in STAGES.items() if group in each.schema.__dataclass_fields__]
        assert stages, path
        composed(stages[0], [f"{group}={path.stem}", *REQUIRED.get(stages[0], [])])


@pytest.mark.parametrize(("stage", "example"), [(name, line) for name, each in STAGES.items() for line in each.examples])
def test_the_examples_of_help_compose(stage, example):
    python, flag, module, *rest = shlex.split(example)
    assert (python, flag, module) == ("python", "-m", f"mlops_llm.{stage}")
    lines = first_choices(read(STAGES[stage].arrange(rest)).overrides)
    for line in lines:
        composed(stage, line)
    assert len(lines) == (3 if "1e-4,1e-3" in example else 2 if "models=" in example and "op=" not in example else 1)
