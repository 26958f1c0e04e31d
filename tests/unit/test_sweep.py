"""A sweep's points, what they weigh in memory, and what they come to."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mlops_llm import component, digest
from mlops_llm.errors import UserError
from mlops_llm.eval.outcome import Outcome, Sample, Score
from mlops_llm.inference.engine import Sampling
from mlops_llm.models import load
from mlops_llm.models.load import Dtype, ModelLoad
from mlops_llm.surgery.config import PACKAGES, Surgery
from mlops_llm.surgery.merging import base as base_of
from mlops_llm.surgery.merging import parents
from mlops_llm.surgery.ops.sweep import Sweep
from mlops_llm.surgery.sweep.asking import Point
from mlops_llm.surgery.sweep.memory import Merged
from mlops_llm.surgery.sweep.points import Space, built, varies
from mlops_llm.surgery.sweep.search import Search
from mlops_llm.surgery.sweep.showing import table
from mlops_llm.surgery.sweep.verdict import verdict
from tests import miniatures
from tests.surgeries import written

for package in PACKAGES:
    component.load(package)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    found = [miniatures.model(place / name, seed=seed, dtype="bfloat16") for seed, name in enumerate("abc")]
    return [str(each) for each in found]


@pytest.mark.parametrize(
    ("method", "settings", "at", "has_base"),
    [
        ("merge_slerp", {}, (0.3,), False),
        ("merge_linear", {}, (0.6, 0.3), False),
        ("merge_ties", {"density": 0.5}, (0.7,), True),
        ("merge_dare", {"drop_rate": 0.4}, (0.5,), True),
    ],
)
@pytest.mark.parametrize("dtype", [Dtype.auto, Dtype.float32])
def test_what_is_asked_in_memory_weighs_what_is_written(tmp_path, models, method, settings, at, has_base, dtype):
    from safetensors.torch import save_file

    shares = at if len(at) == 1 else (*at, round(1 - sum(at), 6))
    named = models[: max(2, len(shares))] if not has_base else models[:2]
    space = Space(method, settings, "ratio", len(named))
    merging = space.merging(shares)
    request = Surgery(op=merging, models=named, base=models[2] if has_base else None, dtype=dtype, seed=3)
    tokenizer = load.tokenizer_of(parents(merging, request)[0].files)
    merged = Merged(merging, request, parents(merging, request), base_of(merging, request), tokenizer)
    other = space.merging((0.11,) if len(shares) == 1 else (0.2, 0.2, 0.6))
    merged.session(other)  # a point before leaves nothing behind
    model = merged.session(merging).model
    stored = merged.stream.dtype.name
    import torch

    weights = {
        name: each.detach().to(getattr(torch, stored)).clone()
        for name, each in model.named_parameters(remove_duplicate=False)
        if name in merged.stream.shapes
    }
    for name, each in model.named_parameters(remove_duplicate=False):
        if name in weights:
            assert torch.equal(each, weights[name].to(each.dtype)), "asked with more digits than are written"
    (tmp_path / "memory").mkdir()
    save_file(weights, tmp_path / "memory" / "model.safetensors")
    more = {"base": models[2]} if has_base else {}
    folder = written(merging, tmp_path / "out", models=named, dtype=dtype, seed=3, **more)
    assert digest.weights(tmp_path / "memory") == digest.weights(folder)


def test_adapters_are_merged_in_memory_as_they_are_written(tmp_path, models):
    import torch
    from safetensors.torch import load_file

    base = miniatures.model(tmp_path / "base", seed=5)
    named = [str(miniatures.adapter(tmp_path / "adapter", base, seed=1)), str(miniatures.model(tmp_path / "whole", seed=6))]
    merging = Space("merge_slerp", {"notes": ["x", "y"]}, "ratio", 2).merging((0.4,))
    request = Surgery(op=merging, models=named)
    sources = parents(merging, request)
    merged = Merged(merging, request, sources, None, load.tokenizer_of(sources[0].files))
    weights = dict(merged.session(merging).model.named_parameters())
    folder = written(merging, tmp_path / "out", models=named)
    assert all(torch.equal(each, weights[name]) for name, each in load_file(folder / "model.safetensors").items())


def test_the_ratio_is_the_first_models_share():
    space = Space("merge_slerp", {}, "ratio", 2)
    assert space.merging((0.7,)).shares(2) == [0.7, 0.3] and space.merging((0.7,)).said(2) == "SLERP (t = 0.3)"
    assert space.weights((0.7,)) == [0.7, 0.3] and space.said((0.7,)) == "ratio 0.7"
    assert space.end((1.0,)) == 0 and space.end((0.0,)) == 1 and space.end((0.5,)) is None
    assert space.at_end(0) == (1.0,) and space.at_end(1) == (0.0,)
    trimmed = Space("merge_ties", {"density": 0.5}, "ratio", 2)
    assert trimmed.end((1.0,)) is None, "what is trimmed is not the model"
    density = Space("merge_ties", {}, "density", 2)
    assert density.merging((0.4,)).density == 0.4 and density.at_end(0) is None and density.said((0.4,)) == "density 0.4"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ({"points": 1}, "op.points: is 1; give a whole number from 2"),
        ({"start": 0.8, "stop": 0.2}, "op.start: is 0.8, and op.stop is 0.2"),
        ({"stop": 1.5}, "op.stop: is 1.5; give a share from 0 to 1"),
        ({"settings": 3}, "op.settings: is 3"),
    ],
)
def test_ranges_are_checked_at_once(words, error):
    with pytest.raises(UserError) as found:
        Sweep(**words)
    assert str(found.value).startswith(error)


@pytest.mark.parametrize(
    ("method", "over", "settings", "error"),
    [
        ("merge_slrp", "ratio", {}, "op.method: 'merge_slrp' is no merge that can be swept (did you mean merge_slerp?)"),
        ("average", "ratio", {}, "op.method: 'average' is no merge that can be swept"),
        ("merge_ties", "densty", {}, "op.over: 'densty' is no number of merge_ties (did you mean density?)"),
        ("merge_slerp", "ratio", {"t": 0.3}, "op.settings.t: is what the sweep varies; leave it out"),
        ("merge_ties", "density", {"density": 0.3}, "op.settings.density: is what the sweep varies"),
        ("merge_ties", "ratio", {"densty": 0.3}, "op.settings.densty: is no setting of merge_ties (did you mean density?)"),
        ("merge_ties", "ratio", {"density": "high"}, "op.settings.density: is high; give a number"),
        ("merge_ties", "ratio", {"density": 2}, "op.settings.density: is 2.0; give a number above 0"),
        ("merge_dare", "ratio", {"ties": 1}, "op.settings.ties: is 1; give true or false"),
        ("merge_ties", "ratio", {"save_log": True}, "op.settings.save_log: is not for the points of a sweep"),
    ],
)
def test_settings_are_checked_against_the_methods_fields(method, over, settings, error):
    with pytest.raises(UserError) as found:
        varies(method, over, settings, ["a", "b"]).merging((0.5,))
    assert str(found.value).startswith(error)


def test_settings_become_what_the_method_takes():
    assert built("merge_ties", {"density": 1, "form": "authors"}).density == 1.0


@pytest.mark.parametrize(
    ("op", "more", "error"),
    [
        ({}, {}, "names 1, and merge_slerp takes 2"),
        ({"method": "merge_ties", "over": "density", "start": 0.0}, {"two": True, "base": True}, "op.settings.density: is 0.0"),
        ({"method": "merge_ties"}, {"two": True}, "base: merge_ties needs what the models were trained from"),
        ({"method": "merge_linear", "search": Search.golden}, {"three": True}, "op.search: follows one number"),
        ({"method": "merge_linear", "points": 101}, {"three": True}, "op.points: gives 5,151 points"),
        ({"method": "merge_linear", "start": 0.2}, {"three": True}, "op.start: is for two models"),
        ({}, {"two": True}, "dataset: names no rows"),
        ({}, {"two": True, "engine": "vllm"}, "engine: asks what lies on disk"),
        (
            {"score": "blue"},
            {"two": True, "dataset": "sales_eval"},
            "op.score: 'blue' will be none of the scores (did you mean bleu?)",
        ),
    ],
)
def test_a_request_that_cannot_be_swept_is_one_line(here, models, op, more, error):
    named = models[: 3 if more.get("three") else 2 if more.get("two") else 1]
    request = Surgery(
        op=Sweep(**op),
        models=named,
        base=models[2] if more.get("base") else None,
        dataset=more.get("dataset"),
        metric={"bleu": component.build("metric", "bleu")},
        engine=component.build("engine", more.get("engine", "hf")),
        sampling=Sampling(max_new_tokens=4),
        model_load=ModelLoad(),
        folder=str(here / "run"),
        run_name="s",
    )
    with pytest.raises(UserError) as found:
        request.op.prepare(request)
    assert error in str(found.value)
    assert not (here / "run").exists()


def point(number: int, values: list[float], parent: int | None = None, higher: bool = True) -> Point:
    samples = [Sample(place, "p", "a", scores={"accuracy": value}) for place, value in enumerate(values)]
    score = Score("accuracy", math.fsum(values) / len(values), len(values), higher, most=1.0)
    return Point(number, f"point {number}", (number / 10,), parent, Outcome("", "", "", "", [score], samples, {}), score)


def test_a_merge_that_is_better_beyond_chance_is_a_gain():
    low, high = [0.0] * 30, [1.0] * 15 + [0.0] * 15
    found = verdict([point(1, low, 0), point(2, low, 1), point(3, high), point(4, low)])
    assert (
        found.best.number == 3 and found.is_gain and found.p < 0.001 and "better than point 1, the better parent" in found.said
    )
    assert found.mark == "recommended"


def test_a_merge_within_chance_is_no_gain_and_it_is_said():
    near = [1.0] + [0.0] * 29
    found = verdict([point(1, [0.0] * 30, 0), point(2, [0.0] * 30, 1), point(3, near)])
    assert found.best.number == 3 and not found.is_gain
    assert found.said.startswith("no gain over the parents") and "within chance" in found.said
    assert found.mark == "best, within chance"


def test_of_equals_the_parent_is_taken_and_nothing_is_gained():
    same = [1.0, 0.0] * 10
    found = verdict([point(1, [0.0] * 20, 0), point(2, same, 1), point(3, same)])
    assert found.best.number == 2 and not found.is_gain
    assert found.said == "no gain over the parents: none of the merges is better than point 2"
    assert found.mark == "recommended"


def test_a_gain_beyond_chance_is_taken_before_a_higher_score_within_it():
    low, even = [0.0] * 40, [0.2] * 40
    wild = [2.0, -1.0] * 20
    found = verdict([point(1, low, 0), point(2, low, 1), point(3, wild), point(4, even)])
    assert found.best.number == 4 and found.is_gain and found.mark == "recommended"
    assert found.said.endswith("; point 3 (0.5) is within chance")
    assert verdict([point(1, low, 0), point(2, low, 1), point(3, wild)]).best.number == 3
    even_below = [-0.2] * 40
    assert verdict([point(1, low, 0), point(2, low, 1), point(3, even_below)]).best.number == 1


def test_what_cannot_be_tested_is_not_recommended():
    found = verdict([untold(1, 0.1, 0), untold(2, 0.2, 1), untold(3, 0.3)])
    assert found.best.number == 3 and not found.is_gain and found.mark == "best, not tested"
    assert "not tested" in found.said


def untold(number: int, value: float, parent: int | None = None) -> Point:
    """A point with a score of which no sample's value is known."""
    found = point(number, [0.0] * 8, parent)
    score = Score("total", value, 8, True)
    return replace(found, score=score, outcome=replace(found.outcome, scores=[score]))


def test_many_points_need_a_smaller_p():
    """A p of 0.03 is chance where the best of ten is taken."""
    up, low = [1.0] * 6 + [0.0] * 24, [0.0] * 30
    one = verdict([point(1, low, 0), point(2, low, 1), point(3, up)])
    many = verdict(
        [point(1, low, 0), point(2, low, 1), point(3, up), *(point(n, [1.0] * 5 + [0.0] * 25) for n in range(4, 13))]
    )
    assert one.is_gain and one.p == pytest.approx(2**-5) and not many.is_gain and many.p > 0.05


def test_lower_scores_win_where_lower_is_better():
    found = verdict([point(1, [1.0] * 30, 0, False), point(2, [0.9] * 30, 1, False), point(3, [0.1] * 30, None, False)])
    assert found.best.number == 3 and found.is_gain


def test_where_names_of_models_are_too_wide_they_are_letters():
    points = [point(1, [0.0] * 9, 0), point(2, [0.5] * 9, 1), point(3, [1.0] * 9)]
    refs = ["runs:/sft-sales-long/checkpoint-1000", "runs:/dpo-sales-long/checkpoint-2000"]
    space, found = Space("merge_slerp", {}, "ratio", 2), verdict(points)
    wide, narrow = (table(points, space, refs, found, width) for width in (160, 80))
    assert list(wide.columns[:3]) == ["ratio", f"{refs[0]} %", f"{refs[1]} %"] and "=" not in wide.title
    assert list(narrow.columns[:3]) == ["ratio", "A %", "B %"] and narrow.rows == wide.rows
    assert narrow.title.endswith(f"; A = {refs[0]}; B = {refs[1]}")
    assert [row[-1] for row in narrow.rows] == ["", "", "recommended"]
