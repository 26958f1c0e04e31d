"""Laws over every component of every group."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import json
import math
import typing
from pathlib import Path
from typing import Any

import pytest
from omegaconf import MISSING, OmegaConf

import mlops_llm
from mlops_llm import component
from mlops_llm.errors import UserError
from mlops_llm.launch.place import PLACES

ROOT = Path(mlops_llm.__file__).parent
STAGES = {
    each.parent.name: importlib.import_module(f"mlops_llm.{each.parent.name}.__main__").STAGE
    for each in sorted(ROOT.glob("*/__main__.py"))
    if "launch(" in each.read_text("utf-8")
}
for stage in STAGES.values():
    for package in stage.packages:
        component.load(package)
component.load("mlops_llm.eval.metrics")
component.load(PLACES)
COMPONENTS = [
    (group, name, cls)
    for group, names in component.groups().items()
    if not group.startswith("test_")
    for name, cls in names.items()
]
each_component = pytest.mark.parametrize(
    ("group", "name", "cls"), COMPONENTS, ids=[f"{group}={name}" for group, name, _ in COMPONENTS]
)


@pytest.fixture(autouse=True)
def own_stage(request: pytest.FixtureRequest) -> None:
    """A name of the group `op` belongs to the stage that was loaded last, which another test may have changed."""
    cls = getattr(request.node, "callspec", None) and request.node.callspec.params.get("cls")
    if cls is not None:
        component.load(cls.__module__.rpartition(".")[0])


@dataclasses.dataclass
class Holder:
    """Settings with components."""

    one: Any = None
    named: dict[str, Any] = dataclasses.field(default_factory=dict)
    several: list[Any] = dataclasses.field(default_factory=list)


def settings_classes() -> list[type]:
    """The settings of every stage, and the settings within them."""
    found = [stage.schema for stage in STAGES.values()]
    for cls in found:
        factories = [field.default_factory for field in dataclasses.fields(cls)]
        found += [each for each in factories if dataclasses.is_dataclass(each) and each not in found]
    return found


def test_there_are_stages_and_components():
    assert "train" in STAGES
    assert {("algo", "sft"), ("peft", "none"), ("peft", "lora")} <= {(group, name) for group, name, _ in COMPONENTS}


@each_component
def test_builds_from_defaults(group, name, cls):
    assert component.build(group, name) == cls()
    assert type(component.build(group, name)) is cls


@each_component
def test_has_a_docstring_and_a_sentence_beneath_each_field(group, name, cls):
    assert inspect.cleandoc(cls.__doc__ or "").splitlines()[0].endswith(".")
    sentences = component.documentation(cls)
    for field in dataclasses.fields(cls):
        assert sentences.get(field.name, "").strip().endswith("."), f"{cls.__name__}.{field.name}"


@each_component
def test_round_trips_through_the_command_lines_config(group, name, cls):
    given = {field.name: "given" for field in dataclasses.fields(cls) if field.default == MISSING}
    made = cls(**given)
    again = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), given))
    assert type(again) is cls
    assert again == made
    text = OmegaConf.to_yaml(OmegaConf.structured(made))
    assert OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), OmegaConf.create(text))) == made


@each_component
def test_round_trips_through_its_name_and_settings(group, name, cls):
    made = cls()
    again = component.build(group, name, dataclasses.asdict(made))
    assert again == made
    assert type(again) is cls


def has_choices(cls: type) -> bool:
    return any(isinstance(field.default, enum.Enum) for field in dataclasses.fields(cls))


@each_component
def test_round_trips_through_json(group, name, cls):
    """Ranks and notebooks rebuild components from JSON, in which a choice is its name."""
    made = cls()
    text = json.dumps(dataclasses.asdict(made), default=lambda choice: choice.name)
    assert component.build(group, name, json.loads(text)) == made


@each_component
def test_settings_that_hold_it_are_rebuilt_from_json(group, name, cls):
    """As the processes of a training are given them."""
    held = Holder(cls(), {name: cls()}, [cls()])
    again = component.rebuilt(Holder, json.loads(json.dumps(component.plain(held))))
    assert again == held and type(again.one) is cls


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "cls", [*dict.fromkeys(cls for *_, cls in COMPONENTS), *settings_classes()], ids=lambda cls: cls.__name__
)
def test_numbers_are_finite(cls, value):
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if float in (hints[field.name], *typing.get_args(hints[field.name])):
            with pytest.raises(UserError, match=rf"{field.name}: is (nan|inf|-inf)"):
                cls(**{field.name: value})


@each_component
def test_two_of_them_share_no_list(group, name, cls):
    one, other = cls(), cls()
    for field in dataclasses.fields(cls):
        value = getattr(one, field.name)
        assert not isinstance(value, list | dict) or value is not getattr(other, field.name)


@pytest.mark.parametrize("cls", settings_classes(), ids=lambda cls: cls.__name__)
def test_settings_are_documented(cls):
    sentences = component.documentation(cls)
    for field in dataclasses.fields(cls):
        if not dataclasses.is_dataclass(field.default_factory):
            assert sentences.get(field.name, "").strip().endswith("."), f"{cls.__name__}.{field.name}"
