from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from mlops_llm.component import build, component, documentation, groups, load, near
from mlops_llm.errors import UserError


@dataclass
class Base:
    """A base."""

    seed: int = 0
    """Where random numbers
    begin."""
    plain: int = 1


@component("test_metric", "bleu")
@dataclass
class Bleu(Base):
    """N-gram precision."""

    n: int = 4
    """Longest n-gram."""
    # A comment is no sentence.
    weights: list[float] = field(default_factory=list)
    seed: int = 7
    """Another sentence."""

    def __post_init__(self) -> None:
        """Check the range."""
        if self.n < 1:
            raise UserError(f"is {self.n}", "metric.n")


@component("test_metric", "accuracy")
@dataclass
class Accuracy:
    """Share of equal answers."""


def test_fields_are_documented_by_the_sentence_beneath():
    assert documentation(Base) == {"seed": "Where random numbers\nbegin."}
    assert documentation(Bleu) == {"seed": "Another sentence.", "n": "Longest n-gram."}
    assert documentation(Accuracy) == {}


def test_a_component_is_built_from_its_name_and_settings():
    assert build("test_metric", "bleu") == Bleu()
    assert build("test_metric", "bleu", {"n": 2, "seed": 3}) == Bleu(n=2, seed=3)
    assert build("test_metric", "accuracy", {}) == Accuracy()
    assert build("test_metric", "bleu").weights is not build("test_metric", "bleu").weights


def test_the_rules_of_a_component_hold_when_it_is_built():
    with pytest.raises(UserError, match="is 0"):
        build("test_metric", "bleu", {"n": 0})


def test_the_near_match_is_named():
    with pytest.raises(UserError) as caught:
        build("test_metric", "blue")
    assert str(caught.value) == "unknown test_metric 'blue' (did you mean bleu?); one of: accuracy, bleu"
    with pytest.raises(UserError) as caught:
        build("test_metric", "bleu", {"weight": 2})
    assert str(caught.value) == "Key 'weight' not in 'Bleu' (did you mean weights?)"
    with pytest.raises(UserError, match=r"Key 'zzz' not in 'Accuracy'$"):
        build("test_metric", "accuracy", {"zzz": 1})
    with pytest.raises(UserError, match="unknown nothing 'x'"):
        build("nothing", "x")


def test_near_names_nothing_far():
    assert near("max_stepz", ["epochs", "max_steps"]) == " (did you mean max_steps?)"
    assert near("qqq", ["epochs", "max_steps"]) == ""
    assert near("x", []) == ""


def test_groups_are_sorted_and_copies():
    table = groups()
    assert list(table["test_metric"]) == ["accuracy", "bleu"]
    table["test_metric"].clear()
    assert list(groups()["test_metric"]) == ["accuracy", "bleu"]


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(ValueError, match="test_metric=bleu is both Bleu and Accuracy"):
        component("test_metric", "bleu")(Accuracy)
    assert groups()["test_metric"]["bleu"] is Bleu


def test_loading_a_module_again_is_allowed():
    again = dataclass(type("Bleu", (Base,), {"__qualname__": "Bleu", "__module__": __name__}))
    try:
        assert component("test_metric", "bleu")(again) is again
    finally:
        component("test_metric", "bleu")(Bleu)


def test_two_files_with_classes_of_one_name_are_told():
    elsewhere = dataclass(type("Bleu", (), {"__qualname__": "Bleu", "__module__": "elsewhere"}))
    try:
        with pytest.raises(ValueError, match="is both"):
            component("test_metric", "bleu")(elsewhere)
    finally:
        component("test_metric", "bleu")(Bleu)


def test_each_stage_has_operations_of_its_own_and_loading_it_brings_them(monkeypatch):
    monkeypatch.setattr("mlops_llm.component._table", {})
    monkeypatch.setattr("mlops_llm.component._made", [])
    monkeypatch.setattr("importlib.import_module", lambda name: type("Module", (), {"__path__": []}))
    made = {}
    for stage in ("one", "two"):
        made[stage] = dataclass(type("List", (), {"__qualname__": "List", "__module__": f"mlops_llm.{stage}.ops.list"}))
        component("op", "list")(made[stage])
    for stage in ("one", "two", "one"):
        load(f"mlops_llm.{stage}.ops")
        assert groups()["op"]["list"] is made[stage]
    with pytest.raises(ValueError, match="is both"):
        component("op", "list")(dataclass(type("Other", (), {"__module__": "mlops_llm.one.ops.other"})))


def test_load_finds_every_module_of_a_package_but_not_main(tmp_path, monkeypatch):
    package = tmp_path / "some_metrics"
    package.mkdir()
    (package / "__init__.py").write_text("")
    source = "from dataclasses import dataclass\nfrom mlops_llm.component import component\n"
    (package / "one.py").write_text(source + "@component('test_load', 'one')\n@dataclass\nclass One:\n    'x'\n")
    (package / "two.py").write_text(source + "@component('test_load', 'two')\n@dataclass\nclass Two:\n    'x'\n")
    (package / "__main__.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    load("some_metrics")
    assert list(groups()["test_load"]) == ["one", "two"]
    load("some_metrics.one")
