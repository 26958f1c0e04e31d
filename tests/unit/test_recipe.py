"""A recipe alone makes the same weights again, whatever operation it is of, and says when it no longer can."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mlops_llm import component
from mlops_llm.errors import UserError
from mlops_llm.models import digested
from mlops_llm.models.load import Dtype, ModelLoad
from mlops_llm.models.ref import resolve
from mlops_llm.record import MemoryRun, NullRun
from mlops_llm.surgery import elsewhere, publishing, recipe
from mlops_llm.surgery.certificate import weights_of
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.planning import Planned, checked
from tests import miniatures
from tests.surgeries import command

NO_MODEL = {"batch", "distill", "select", "sweep"}
"""Operations that make no checkpoint of their own: others make it for them."""
ROWS = {"calibration": "rows.jsonl", "samples": 8, "max_tokens": 40}
CASES: dict[str, tuple[str, dict[str, Any], tuple[str, ...], dict[str, Any]]] = {
    "linear": ("merge_linear", {"weights": [0.6, 0.4], "notes": ["SFT, 通用", "it's"]}, ("a", "b"), {}),
    "linear of adapters": ("merge_linear", {"keep_adapter": True}, ("x", "y"), {}),
    "slerp": ("merge_slerp", {"t": 0.3}, ("a", "b"), {}),
    "task arithmetic of one": ("merge_task_arithmetic", {"weights": [-0.5]}, ("a",), {"base": "base"}),
    "ties": ("merge_ties", {"density": 0.5, "form": "authors"}, ("a", "x"), {"base": "base"}),
    "ties of adapters": ("merge_ties", {}, ("x", "y"), {}),
    "dare": ("merge_dare", {"drop_rate": 0.3, "ties": True, "normalize": True}, ("a", "b"), {"base": "base", "seed": 7}),
    "dare of one": ("merge_dare", {"rescale": "l1"}, ("a",), {"base": "base", "dtype": Dtype.bfloat16}),
    "mergekit": (
        "merge_mergekit",
        {"method": "dare_linear", "parameters": {"density": 0.5}, "weights": [0.5, 0.5]},
        ("a", "b"),
        {"base": "base"},
    ),
    "mergekit's slerp": ("merge_mergekit", {"method": "slerp", "parameters": {"t": 0.3}}, ("a", "b"), {"base": "b"}),
    "average": ("average", {"last": 2}, ("base", "a", "b"), {}),
    "average of one": ("average", {}, ("a",), {}),
    "ema": ("ema", {"decay": 0.5}, ("a", "b"), {}),
    "lora": ("merge_lora", {"note": "an adapter"}, ("x",), {}),
    "lora on a base": ("merge_lora", {"format": "safetensors"}, ("x",), {"base": "base"}),
    "lora as gguf": ("merge_lora", {"format": "gguf"}, ("x",), {}),
    "gguf": ("export_gguf", {"type": "q8_0"}, ("a",), {}),
    "gguf of an adapter": ("export_gguf", {}, ("x",), {}),
    "bf16": ("quantize_bf16", {"measure": []}, ("a",), {}),
    "fp16": ("quantize_fp16", {"measure": []}, ("a",), {}),
    "int8": ("quantize_int8", {"measure": []}, ("a",), {}),
    "int4": ("quantize_int4", {"group_size": 16}, ("x",), {}),
    "w4a16": ("quantize_w4a16", ROWS, ("a",), {"seed": 5}),
    "w8a16": ("quantize_w8a16", ROWS, ("a",), {}),
    "gptq": ("quantize_gptq", {**ROWS, "bits": 8, "group_size": 16}, ("a",), {}),
    "neurons": ("prune_ffn", {**ROWS, "ratio": 0.2, "of": "unit"}, ("a",), {"seed": 3}),
    "neurons by built-in texts": ("prune_ffn", {"ratio": 0.2, "of": "unit", "samples": 3}, ("x",), {}),
    "heads": ("prune_heads", {**ROWS, "ratio": 0.5, "of": "unit"}, ("a",), {"model_load": ModelLoad(Dtype.bfloat16)}),
    "layers": ("prune_depth", {**ROWS, "ratio": 0.5, "of": "unit"}, ("a",), {}),
    "named layers": ("prune_depth", {"layers": [1], "samples": 3}, ("a",), {}),
}
NEEDS = {"merge_mergekit": "mergekit", "export_gguf": "xllamacpp", "quantize_int8": "torchao"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, a, b of one architecture; adapters x and y on base."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", "a", "b")):
        miniatures.model(folder / name, seed=seed)
    miniatures.adapter(folder / "x", folder / "base", seed=1)
    miniatures.adapter(folder / "y", folder / "base", seed=2, rank=3)
    return folder


@pytest.fixture
def asking(home: Path, here: Path, jsonl: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with rows, and a Python that claims to have the packages of GPTQ."""
    component.load("mlops_llm.surgery.ops")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    jsonl(rows(30))
    file = here / "python"
    file.write_text('#!/bin/sh\necho "[]"\n')
    file.chmod(0o755)
    monkeypatch.setattr(elsewhere, "quantize", _as_rows_say)
    digested._folder_digest.cache_clear()
    yield here
    digested._folder_digest.cache_clear()


def rows(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"question {place}", "response": "yes " * (place % 9 + 1)} for place in range(count)]


def _as_rows_say(python: str, asked: dict[str, Any], layers: int, log: Path | None) -> None:
    """Stands in for GPTQ: weights that depend on the rows."""
    state = load_file(Path(asked["source"]) / "model.safetensors")
    total = float(sum(place * token for row in asked["rows"] for place, token in enumerate(row)))
    save_file({**state, "scale": torch.tensor([total])}, Path(asked["output"]) / "model.safetensors", {"format": "pt"})
    shutil.copyfile(Path(asked["source"]) / "config.json", Path(asked["output"]) / "config.json")


def planned(name: str, home: Path, output: Path) -> Planned:
    operation, settings, names, others = CASES[name]
    needs = "xllamacpp" if settings.get("format") == "gguf" else NEEDS.get(operation)
    if needs:
        pytest.importorskip(needs)
    own = {"python": "python"} if operation in ("quantize_w4a16", "quantize_w8a16", "quantize_gptq") else {}
    op = component.build("op", operation, {**settings, **own})
    refs = [str(home / each) for each in names]
    several = (operation.startswith("merge_") and operation != "merge_lora") or operation in ("average", "ema")
    about = {"models": refs} if several else {"model": refs[0]}
    more = {**others, "base": str(home / others["base"])} if "base" in others else others
    request = Surgery(op=op, output=str(output), folder=str(output.parent / "run"), run_name="test", **about, **more)
    return checked(op.plan(request))


def made(plan: Planned) -> dict[str, Any]:
    """Write a checkpoint, and read its recipe as it lies in a folder."""
    plan.output.mkdir()
    weights = plan.write(plan.output) or weights_of(plan.output)
    told: dict[str, Any] = json.loads(recipe.text(recipe.recipe(plan, weights)))
    return told


def rebuilt(told: dict[str, Any], output: Path) -> Planned:
    """What a recipe's command asks for, read as a shell and the stage read it."""
    from mlops_llm.entry import config
    from mlops_llm.entry.arguments import read
    from mlops_llm.surgery.__main__ import STAGE

    words = shlex.split(recipe.command(told, str(output)))
    assert words[:3] == ["python", "-m", "mlops_llm.surgery"]
    config.register(STAGE.name, STAGE.schema, STAGE.packages)
    settings = config.typed(config.composed("surgery", read(words[3:]).overrides))
    return checked(settings.op.plan(settings))


def test_every_operation_that_makes_a_model_is_rebuilt_here() -> None:
    component.load("mlops_llm.surgery.ops")
    own = {name for name, each in component.groups()["op"].items() if each.__module__.startswith("mlops_llm.surgery.ops")}
    assert {each[0] for each in CASES.values()} == own - NO_MODEL


@pytest.mark.parametrize("name", CASES)
def test_a_recipe_alone_makes_the_same_weights(name: str, home: Path, asking: Path) -> None:
    told = made(planned(name, home, asking / "out"))
    again = made(rebuilt(told, asking / "again"))
    assert again["digest.weights"] == told["digest.weights"] == weights_of(asking / "out")
    assert again["settings"].get("notes") == told["settings"].get("notes")
    names = ("operation", "method", "seed", "dtype", "model_load", "rows", "pins", "rebuild")
    assert {each: again.get(each) for each in names} == {each: told.get(each) for each in names}
    assert [each["digest"] for each in again["sources"]] == [each["digest"] for each in told["sources"]]


def test_rows_are_those_of_their_version_after_a_newer_one(
    home: Path, asking: Path, jsonl: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("neurons", "w4a16")
    for name in names:
        operation, settings, *rest = CASES[name]
        monkeypatch.setitem(CASES, name, (operation, {**settings, "calibration": "shown"}, *rest))
    (asking / "datasets").mkdir()
    command(asking, "op=add", "dataset=rows.jsonl", "name=shown", stage="data")
    component.load("mlops_llm.surgery.ops")
    before = {name: made(planned(name, home, asking / name)) for name in names}
    jsonl(rows(60)[20:], "datasets/shown.jsonl")
    command(asking, "op=version", "dataset=shown", "op.label=v1.1", "op.description=more", stage="data")
    component.load("mlops_llm.surgery.ops")
    for name, told in before.items():
        assert told["rows"][0]["version"] == "v1.0" and told["pins"]["calibration"].startswith("shown@")
        newer = made(planned(name, home, asking / f"{name} newer"))
        assert newer["digest.weights"] != told["digest.weights"], "other rows, other weights"
        again = made(rebuilt(told, asking / f"{name} again"))
        assert again["digest.weights"] == told["digest.weights"]
        (was,), (now,) = told["rows"], again["rows"]
        assert (now["version"], now["digests"]) == (was["version"], was["digests"])


@pytest.mark.parametrize("name", ["neurons", "heads", "layers", "w4a16", "w8a16", "gptq"])
def test_the_run_has_the_rows_as_an_input(name: str, home: Path, asking: Path) -> None:
    run = MemoryRun()
    publishing.inputs(planned(name, home, asking / "out"), run)
    held = 6 if name in ("neurons", "heads", "layers") else 0
    assert [(each.name, each.context, each.rows) for each in run.inputs] == [("rows", "calibration", 8 + held)]


def test_a_model_that_is_another_by_now_is_refused_before_anything_is_made(home: Path, asking: Path) -> None:
    shutil.copytree(home / "a", asking / "mine")
    op = component.build("op", "merge_linear")
    names = [str(asking / "mine"), str(home / "b")]
    told = made(checked(op.plan(Surgery(op=op, models=names, output=str(asking / "out"), folder="run", run_name="test"))))
    file = asking / "mine/model.safetensors"
    state = load_file(file)
    save_file({**state, "model.norm.weight": state["model.norm.weight"] * 2}, file, {"format": "pt"})
    digested._folder_digest.cache_clear()
    with pytest.raises(
        UserError, match=r"mine: the weights changed since they were recorded \(digest \w{12}… then, \w{12}… now"
    ):
        rebuilt(told, asking / "again")


def test_rows_that_are_others_by_now_are_refused(home: Path, asking: Path, jsonl: Callable[..., Path]) -> None:
    told = made(planned("neurons", home, asking / "out"))
    jsonl(rows(31))
    with pytest.raises(UserError, match=r"rows\.jsonl: its rows are others now"):
        rebuilt(told, asking / "again")


def test_settings_of_reading_and_kind_are_in_the_recipe(home: Path, asking: Path, jsonl: Callable[..., Path]) -> None:
    from mlops_llm.data.kinds import Kind
    from mlops_llm.data.read import Read

    jsonl([{"frage, kurz": f"question {place}", "antwort": "ja " * (place % 7 + 1)} for place in range(30)], "deutsch.jsonl")
    op = component.build("op", "prune_ffn", {**ROWS, "calibration": "deutsch.jsonl", "ratio": 0.2, "of": "unit"})
    how = Read(columns={"prompt": "frage, kurz", "response": "antwort"})
    request = Surgery(op=op, model=str(home / "a"), output=str(asking / "out"), folder="run", run_name="test")
    request.read, request.kind = how, Kind.sft
    told = made(checked(op.plan(request)))
    assert told["kind"] == "sft" and told["read"] == {"columns": how.columns}
    assert made(rebuilt(told, asking / "again"))["digest.weights"] == told["digest.weights"]


def test_a_ref_with_a_digest_is_the_model_without_it(home: Path, here: Path) -> None:
    weights = digested.digest_now(home / "a")
    place = resolve(f"{home / 'a'}@{weights}")
    assert (place.ref, place.folder, place.tags["digest.weights"]) == (str(home / "a"), home / "a", weights)
    with pytest.raises(UserError, match="tiny: the weights changed since they were recorded"):
        digested.weights_digest(resolve(f"tiny@{weights}"))


def test_jobs_of_a_batch_are_rebuilt_one_by_one(home: Path, asking: Path) -> None:
    from mlops_llm.surgery.batch.running import Batch, carried_out, prepared

    (asking / "jobs.yaml").write_text(
        f"""
defaults: {{seed: 9}}
jobs:
  merged: {{op: merge_dare, models: [{home / "a"}, {home / "b"}], base: {home / "base"}, output: merged}}
  narrow: {{op: prune_ffn, model: "jobs:/merged", op.of: unit, op.calibration: rows.jsonl, op.samples: 8, output: narrow}}
"""
    )
    batch = prepared("jobs.yaml", Surgery(op=None, folder="b", run_name="b"))
    assert isinstance(batch, Batch)
    assert carried_out(batch, NullRun()).values["succeeded"] == 2
    for name in ("merged", "narrow"):
        told = json.loads((asking / name / "recipe.json").read_text("utf-8"))
        assert made(rebuilt(told, asking / f"{name} again"))["digest.weights"] == told["digest.weights"]
    again = prepared("jobs.yaml", Surgery(op=None, folder="c", run_name="c"))
    assert isinstance(again, Batch) and {each.state.name for each in again.ended.values()} == {"there"}
