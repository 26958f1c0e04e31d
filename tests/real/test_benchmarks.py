"""Benchmarks against lm-eval called directly: the same numbers to the last digit, and none asked twice after a stop.

With MLOPS_LLM_REAL_DATA the rows are the authors', else a few of the same form; MLOPS_LLM_SLOW=1 also asks smollm2.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlops_llm.component import build, load
from mlops_llm.eval.benchmarks import definitions, running, seen, tasks
from mlops_llm.eval.config import Benchmarks, Eval
from mlops_llm.eval.subject import subject
from mlops_llm.inference.cache import Answers
from mlops_llm.inference.engine import Sampling
from mlops_llm.models.load import ModelLoad

pytest.importorskip("lm_eval")
load("mlops_llm.inference.engines")
ABOUT = {"weights": "w", "template": "t"}
MMLU = "mmlu" if os.environ.get("MLOPS_LLM_REAL_DATA") else "mmlu_other"
LIMITS = {"gsm8k": 6, MMLU: 1, "mmlu_anatomy": 8, "truthfulqa": 8, "humaneval": 4}
FEWER = {"gsm8k": 2, "mmlu_anatomy": 2, "truthfulqa": 2, "humaneval": 1}
"""For smollm2, of which each item takes seconds; a program has up to 1,024 tokens."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the benchmarks' files."""
    if real := os.environ.get("MLOPS_LLM_REAL_DATA"):
        return Path(real)
    folder = tmp_path_factory.mktemp("rows")
    sums = [{"question": f"What is {n} plus {n}?", "answer": f"It is {n} and {n}.\n#### {2 * n}"} for n in range(20)]
    for split in ("train", "test"):
        _write(folder / f"gsm8k/{split}.jsonl", "".join(json.dumps(row) + "\n" for row in sums))
    names = [*(name.removeprefix("mmlu_") for name in _mmlu()), "anatomy"]
    for split in ("dev", "test"):
        for name in names:
            lines = [f"Which is the {name} of {n}?,red {n},blue,green,{name},{n % 4}" for n in range(3)]
            _write(
                folder / f"mmlu/{split}/{name}_{split}.csv",
                "\n".join(["question,choice0,choice1,choice2,choice3,answer", *lines]),
            )
    choices = [{"yes it is": 1, f"no, {n} is not": 0, "perhaps": 0} for n in range(10)]
    questions = [
        {"question": f"Is {n} so?", "mc1_targets": each, "mc2_targets": {**each, "surely": 1}} for n, each in enumerate(choices)
    ]
    _write(folder / "truthfulqa/mc_task.json", json.dumps(questions))
    test = "def check(f):\n    assert f(1) == 2\n"
    programs = [{"task_id": f"T/{n}", "prompt": f"def f{n}(x):\n", "test": test, "entry_point": f"f{n}"} for n in range(5)]
    _write(folder / "humaneval/HumanEval.jsonl", "".join(json.dumps(row) + "\n" for row in programs))
    return folder


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def _mmlu() -> list[str]:
    return sorted(task.name for task in definitions.index(definitions.shipped() / "mmlu/default").tasks(MMLU))


@pytest.fixture(scope="module", params=["tiny", *(["smollm2"] if os.environ.get("MLOPS_LLM_SLOW") else [])])
def session(request: pytest.FixtureRequest) -> Iterator[Any]:
    found, patch = subject(request.param, ModelLoad()), pytest.MonkeyPatch()
    for name, limit in FEWER.items() if request.param == "smollm2" else ():
        patch.setitem(LIMITS, name, limit)
    with build("engine", "hf").open(found.files, ModelLoad(), found.tokenizer, found.window) as opened:
        yield opened
    patch.undo()


def asked(name: str, rows: Path, limit: int, **how: Any) -> Eval:
    return Eval(
        benchmark=[name],
        engine=build("engine", "hf"),
        limit=limit,
        sampling=Sampling(batch_size=4),
        benchmarks=Benchmarks(data=str(rows), allow_code=True, **how),
    )


def ours(name: str, rows: Path, session: Any, folder: Path, answers: Answers | None = None, **how: Any) -> running.Found:
    settings = asked(name, rows, how.pop("limit", LIMITS[name]), **how)
    return running.run(tasks.check(settings)[0], settings, lambda: session, folder, ABOUT, answers)


def directly(name: str, rows: Path, session: Any, **how: Any) -> dict[str, Any]:
    """What lm-eval gives when it is called as its documentation says, on rows that are read here anew."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    from datasets import Dataset, DatasetDict

    def made(file: str, splits: dict[str, list[dict[str, Any]]], **over: Any) -> dict[str, Any]:
        config = load_yaml(definitions.shipped() / file, resolve_func="humaneval" not in file)
        for key in ("tag", "task_alias", "dataset_name"):
            config.pop(key, None)
        built = DatasetDict({split: Dataset.from_list(each) for split, each in splits.items()})
        return config | {"dataset_path": "local", "custom_dataset": lambda **_: built} | over

    if name == "gsm8k":
        configs = [made("gsm8k/gsm8k.yaml", {split: _lines(rows / f"gsm8k/{split}.jsonl") for split in ("train", "test")})]
    elif name == "truthfulqa":
        found = json.loads((rows / "truthfulqa/mc_task.json").read_text("utf-8"))
        split = [
            {"question": one["question"], **{key: _pairs(one[key]) for key in ("mc1_targets", "mc2_targets")}} for one in found
        ]
        configs = [made(f"truthfulqa/truthfulqa_{kind}.yaml", {"validation": split}) for kind in ("mc1", "mc2")]
    elif name == "humaneval":
        file = next((rows / "humaneval").glob("HumanEval.jsonl*"))
        filters = [{"name": "create_test", "filter": [{"function": "custom", "filter_fn": _built}]}]
        metrics = [{"metric": _pass_at_k, "aggregation": "mean", "higher_is_better": True}]
        configs = [made("humaneval/humaneval.yaml", {"test": _lines(file)}, metric_list=metrics, filter_list=filters)]
    else:
        configs = [
            made(
                f"mmlu/default/{each}.yaml",
                {split: _table(rows / f"mmlu/{split}/{each[5:]}_{split}.csv") for split in ("dev", "test")},
            )
            for each in _mmlu()
        ]
    dtype = str(session.model.dtype).removeprefix("torch.")
    model = HFLM(pretrained=session.model.name_or_path, device=str(session.model.device), dtype=dtype, batch_size=4)
    small = name == "humaneval" and session.window < 1024
    return simple_evaluate(
        model,
        tasks=configs,
        task_manager=TaskManager(include_defaults=False),
        limit=LIMITS[name],
        confirm_run_unsafe_code=True,
        gen_kwargs={"max_gen_toks": session.window // 2} if small else None,
        **how,
    )


def _lines(file: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _pairs(targets: dict[str, int]) -> dict[str, list[Any]]:
    return {"choices": list(targets), "labels": list(targets.values())}


def _table(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return [
            {"question": one["question"], "choices": [one[f"choice{n}"] for n in range(4)], "answer": int(one["answer"])}
            for one in csv.DictReader(lines)
        ]


def _built(resps: list[list[str]], docs: list[dict[str, Any]]) -> list[list[str]]:
    return [[doc["prompt"] + each for each in answers] for answers, doc in zip(resps, docs, strict=True)]


def _pass_at_k(references: list[str], predictions: list[list[str]]) -> dict[str, float]:
    try:
        exec(f"{predictions[0][0]}\n{references[0]}", {})
    except BaseException:
        return {"pass@1": 0.0}
    return {"pass@1": 1.0}


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("gsm8k", {}),
        ("gsm8k", {"few_shot": 2, "chat_template": True, "system": "Be brief."}),
        (MMLU, {"few_shot": 3}),
        ("truthfulqa", {}),
        ("humaneval", {}),
    ],
    ids=["gsm8k", "gsm8k chat", "mmlu", "truthfulqa", "humaneval"],
)
def test_numbers_are_those_of_lm_eval(tmp_path: Path, rows: Path, session: Any, name: str, how: dict[str, Any]) -> None:
    found = ours(name, rows, session, tmp_path, **how)
    theirs = {"num_fewshot": how.get("few_shot"), "apply_chat_template": how.get("chat_template", False)}
    wanted = directly(name, rows, session, system_instruction=how.get("system"), **theirs)
    for task, table in wanted["results"].items():
        assert _said(table) == _said(found.results["results"][task])
        prompts = [row["arguments"][0][0] for row in wanted["samples"][task]]
        mine = [each for each in found.samples if each.metadata["benchmark"] == task]
        assert prompts[: len(mine)] == [each.prompt for each in mine]
    scores = {score.name: score for score in found.scores}
    if name == MMLU:
        sizes = [(table["acc,none"], table["sample_len"]) for table in wanted["results"].values()]
        mean = sum(value * count for value, count in sizes) / sum(count for _, count in sizes)
        assert found.scores[0].name == f"{MMLU}[1]/acc" and found.scores[0].count == len(found.groups) == len(_mmlu())
        assert found.scores[0].value == pytest.approx(mean, abs=1e-12)
        within = ("stem", "other", "social_sciences", "humanities") if MMLU == "mmlu" else ()
        assert set(scores) == {f"{MMLU}[1]/acc", *(f"mmlu[1]/{each}/acc" for each in within)}
        assert_groups_are_stamped(found)
    else:
        assert found.name == f"{name}[{LIMITS[name]}]"
        for task, table in wanted["results"].items():
            values = {value for key, value in _said(table).items() if "_stderr" not in key}
            part = f"/{task.removeprefix(f'{name}_')}" if name == "truthfulqa" else ""
            assert values == {repr(one.value) for label, one in scores.items() if label.startswith(f"{found.name}{part}/")}
    if name == "humaneval":
        passed = [each.scores[f"{found.name}/pass@1"] == 1 for each in found.samples]
        assert [not each.comment for each in found.samples] == passed
    for one in found.scores:
        assert found.parts[one.name].tasks
        assert one.interval[0] <= one.value <= one.interval[1] if one.interval else math.isnan(one.value)


def assert_groups_are_stamped(found: running.Found) -> None:
    """What a group is on the items that were not seen, by the function with which lm-eval adds tasks up."""
    from lm_eval.api.metrics import aggregate_subtask_metrics

    flags = [place % 3 == 0 for place in range(len(found.samples))]
    for one in seen.stamped(found, flags).scores:
        tasks = dict[str, list[float]]()
        for sample, was in zip(found.samples, flags, strict=True):
            if not was and sample.metadata["benchmark"] in found.parts[one.name].tasks:
                tasks.setdefault(sample.metadata["benchmark"], []).append(sample.scores[f"{found.name}/acc"])
        rest = aggregate_subtask_metrics([sum(each) / len(each) for each in tasks.values()], [*map(len, tasks.values())])
        assert one.seen and one.seen.rest == pytest.approx(rest) and 0 < one.seen.share < 1


def test_groups_whose_tasks_count_alike_are_known() -> None:
    from lm_eval.api.group import Group
    from lm_eval.config.group import AggMetricConfig

    inner = Group("inner", aggregate_metric_list=[AggMetricConfig("acc", weight_by_size=False), AggMetricConfig("f1")])
    outer = Group("outer", aggregate_metric_list=[AggMetricConfig("acc")])
    outer.add(inner)
    outer.add(Group("bare"))
    assert running._alike({"outer": outer}) == {"outer": set(), "inner": {"acc"}, "bare": set()}


def _said(table: dict[str, Any]) -> dict[str, str]:
    """Values to the last digit, `nan` too, which is what a small model may make of TruthfulQA."""
    return {key: value if isinstance(value, str) else repr(float(value)) for key, value in table.items() if "," in key}


def test_a_stopped_benchmark_goes_on_and_a_finished_one_is_known(
    tmp_path: Path, rows: Path, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlops_llm.eval.benchmarks import lm

    whole = ours("gsm8k", rows, session, tmp_path / "whole", few_shot=1, limit=12)
    calls, before = [], lm.Direct._model_generate

    def dies(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = before(self, *args, **kwargs)
        calls.append(len(found))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(lm.Direct, "_model_generate", dies)
    with pytest.raises(KeyboardInterrupt):
        ours("gsm8k", rows, session, tmp_path / "run", few_shot=1, limit=12)
    answers = Answers(tmp_path / "answers.db")
    again = ours("gsm8k", rows, session, tmp_path / "run", answers, few_shot=1, limit=12)
    assert (again.counts.asked, again.counts.resumed) == (8, 4) and sum(calls) == 4 + 4 + 8
    assert again.results == whole.results and again.scores == whole.scores

    def refuses() -> Any:
        raise AssertionError("the model was opened")

    settings = asked("gsm8k", rows, 12, few_shot=1)
    for folder, asks in ((tmp_path / "run", 0), (tmp_path / "other", 0)):
        known = running.run(tasks.check(settings)[0], settings, refuses, folder, ABOUT, answers)
        assert known.counts.asked == asks and known.scores == whole.scores
        assert [each.answer for each in known.samples] == [each.answer for each in whole.samples]
    answers.close()


def test_another_engine_is_asked_the_same(tmp_path: Path, rows: Path, session: Any) -> None:
    """Through the protocol of all engines: near to lm-eval's own numbers, though batches are others."""
    plain = SimpleNamespace(
        tokenizer=session.tokenizer, window=session.window, generate=session.generate, logprobs=session.logprobs
    )
    for name, how in {"gsm8k": {"few_shot": 1}, "mmlu_anatomy": {}}.items():
        direct = ours(name, rows, session, tmp_path / f"{name} direct", **how)
        through = ours(name, rows, plain, tmp_path / f"{name} through", **how)
        assert [each.prompt for each in through.samples] == [each.prompt for each in direct.samples]
        assert [each.answer for each in through.samples] == [each.answer for each in direct.samples]
        assert [each.value for each in through.scores] == pytest.approx([each.value for each in direct.scores], abs=1e-4)
