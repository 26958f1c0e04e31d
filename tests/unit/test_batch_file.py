"""Files of jobs: what is wrong in them is told by line and name, before anything begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mlops_llm import component
from mlops_llm.errors import UserError
from mlops_llm.eval.config import Cache
from mlops_llm.models.load import Dtype
from mlops_llm.surgery.batch.file import Job, ordered, read
from mlops_llm.surgery.batch.settings import request
from mlops_llm.surgery.config import PACKAGES, Surgery
from mlops_llm.surgery.ops.batch import RunBatch


@pytest.fixture(scope="module", autouse=True)
def _components() -> None:
    for package in PACKAGES:
        component.load(package)


def jobs(folder: Path, text: str) -> list[Job]:
    (folder / "jobs.yaml").write_text(text, "utf-8")
    return read(folder / "jobs.yaml")


GOOD = """
defaults:
  dtype: bfloat16
jobs:
  second:
    op: prune_ffn
    model: jobs:/first
    op.ratio: 0.1
  first: &first
    op: merge_linear
    models: [tiny, smollm2]
    op.weights: [0.5, 0.5]
  third:
    <<: *first
    after: second
    dtype: float32
"""


def test_jobs_come_after_those_that_they_need(tmp_path: Path) -> None:
    found = {job.name: job for job in jobs(tmp_path, GOOD)}
    assert list(found) == ["first", "second", "third"]
    assert found["second"].settings["dtype"] == "bfloat16" and found["third"].settings["dtype"] == "float32"
    assert found["third"].settings["models"] == ["tiny", "smollm2"] and found["third"].needs == ["second"]
    assert found["second"].settled({"first": "runs:/a/merged"})["model"] == "runs:/a/merged"
    assert found["second"].where("op.ratio") == f"{tmp_path}/jobs.yaml:8: job second, op.ratio"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("jobs:\n  a: {op: x}\n  a: {op: y}\n", 3, "the key 'a' of jobs stands twice (line 2 too)"),
        ("jobs:\n  a:\n    op: x\n    op: y\n", 4, "the key 'op' of job a stands twice"),
        ("job:\n  a: {op: x}\n", 1, "unknown key 'job' (did you mean jobs?)"),
        ("jobs:\n  a: [1\n", 3, "is no YAML"),
        ("jobs:\n  a/b: {op: x}\n", 2, "'a/b' is no name for a job"),
        ("jobs:\n  a: prune\n", 2, "job a has no settings"),
        ("jobs:\n  first: {op: x}\n  b:\n    op: x\n    model: jobs:/frist\n", 5, "no job 'frist' (did you mean first?)"),
        ("jobs:\n  a: {op: x, after: [b]}\n", 2, "there is no job 'b'"),
        ("jobs:\n  a: {op: x, after: 3}\n", 2, "is no list of jobs"),
        ("defaults:\n  op.ratio: 0.1\njobs:\n  a: {op: x}\n", 2, "is of one job, not of all"),
        ("jobs:\n  a: {op: x, model: 'jobs:/a'}\n", 2, "waits for itself: a -> a"),
    ],
)
def test_what_is_wrong_is_told_by_its_line(text: str, line: int, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        jobs(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/jobs.yaml:{line}: ") and said in str(caught.value)


def test_models_from_elsewhere_are_those_that_no_job_makes(tmp_path: Path) -> None:
    (tmp_path / "jobs.yaml").write_text(
        "jobs:\n  a: {op: merge_slerp, models: [tiny, gone]}\n  b: {op: prune_ffn, model: 'jobs:/a'}\n"
    )
    assert [each.models for each in read(tmp_path / "jobs.yaml")] == [["tiny", "gone"], []]
    assert RunBatch(str(tmp_path / "jobs.yaml")).models() == ["tiny"], "of one that is not there the check tells the line"


def test_keys_that_jobs_name_are_known_where_the_file_is(tmp_path: Path) -> None:
    text = "defaults: {judge: rubric_zh, judge.api_key_env: K1, judge.model: other_env}\njobs:\n"
    text += "  a: {op: sweep, engine: openai, engine.api_key_env: K2}\n  b: {op: select, judge.api_key_env: ''}\n"
    text += "  c: {op: sweep, 'op.settings': {scored_by: {api_key_env: K3}}}\n"
    (tmp_path / "jobs.yaml").write_text(text)
    assert RunBatch(str(tmp_path / "jobs.yaml")).variables() == {"K1", "K2", "K3"}
    assert RunBatch("/on/another/machine.yaml").variables() == set()
    (tmp_path / "jobs.yaml").write_text("jobs: {a: 1}")
    with pytest.raises(UserError, match=r"jobs.yaml:1: job a has no settings"):
        RunBatch(str(tmp_path / "jobs.yaml")).variables()


def test_circles_are_named_in_their_order(tmp_path: Path) -> None:
    text = "jobs:\n  a: {op: x, model: 'jobs:/c'}\n  b: {op: x, base: 'jobs:/a'}\n  c: {op: x, models: ['jobs:/b', tiny]}\n"
    with pytest.raises(UserError, match="waits for itself: a -> c -> b -> a"):
        jobs(tmp_path, text)


@pytest.mark.parametrize("text", ["", "[]", "jobs: {}", "jobs: []", "defaults: {dtype: float32}"])
def test_files_without_jobs_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no jobs"):
        jobs(tmp_path, text)
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "none.yaml")


@given(
    some.integers(1, 12).flatmap(
        lambda count: some.tuples(some.just(count), some.sets(some.tuples(*[some.integers(0, count - 1)] * 2)))
    )
)
def test_every_order_without_circles_keeps_what_is_needed_before(drawn: tuple[int, set[tuple[int, int]]]) -> None:
    count, pairs = drawn
    needs = {place: sorted({low for low, high in pairs if high == place and low < high}) for place in range(count)}
    given = [Job(str(place), {}, tuple(map(str, needs[place])), {"": 1}, "f") for place in reversed(range(count))]
    names = [job.name for job in ordered(given)]
    assert sorted(names) == sorted(map(str, range(count)))
    assert all(names.index(str(low)) < names.index(str(high)) for high, lows in needs.items() for low in lows)


def test_settings_are_those_of_the_command_line() -> None:
    usual = Surgery(op=None, dataset="rows", seed=3)
    found = request(
        usual,
        {
            "op": "prune_ffn",
            "op.ratio": 1,
            "op.of": "unit",
            "model": "tiny",
            "dtype": "bfloat16",
            "metric": ["bleu", "rouge"],
            "metric.bleu.n": 2,
            "engine": "hf",
            "sampling.max_new_tokens": 7,
            "then": {"evaluate": True},
            "cache": False,
        }
        | {"op.ratio": "2e-1"},
    )
    assert (found.op.ratio, found.op.of.name, found.dtype, found.cache) == (0.2, "unit", Dtype.bfloat16, Cache.off)
    assert list(found.metric) == ["bleu", "rouge"] and found.metric["bleu"].n == 2
    assert found.sampling.max_new_tokens == 7 and found.then.evaluate and found.seed == 3 and found.dataset == "rows"
    assert usual.sampling.max_new_tokens != 7 and not usual.then.evaluate


@pytest.mark.parametrize(
    ("given", "where", "said"),
    [
        ({"op": "prune_fnn"}, "op", "there is no op 'prune_fnn' (did you mean prune_ffn?)"),
        ({}, "op", "names no operation"),
        ({"op": "prune_ffn", "op.ration": 0.1}, "op.ration", "no such setting (did you mean ratio?)"),
        ({"op": "prune_ffn", "op.ratio": "much"}, "op.ratio", "is 'much', and a number is wanted"),
        ({"op": "prune_ffn", "op.ratio": 3}, "op.ratio", "is 3; give a share"),
        ({"op": "prune_ffn", "op.samples": True}, "op.samples", "a whole number is wanted"),
        ({"op": "prune_ffn", "op.of": "units"}, "op.of", "'units' is no choice (did you mean unit?)"),
        ({"op": "prune_depth", "op.layers": 3}, "op.layers", "is one value, and a list is wanted"),
        ({"op": "prune_ffn", "modle": "tiny"}, "modle", "no such setting (did you mean model?)"),
        ({"op": "prune_ffn", "run_name": "x"}, "run_name", "is a setting of the whole batch"),
        ({"op": "prune_ffn", "sampling.temprature": 1}, "sampling.temprature", "(did you mean temperature?)"),
        ({"op": "prune_ffn", "metric": "bleu"}, "metric", "is no list of names"),
        ({"op": "prune_ffn", "metric": ["bleu"], "metric.rouge.x": 1}, "metric.rouge", "is not chosen"),
        ({"op": "prune_ffn", "model.x": 1}, "model.x", "has no settings of its own"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(given: dict[str, Any], where: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        request(Surgery(op=None), given)
    assert caught.value.where == where and said in str(caught.value)
