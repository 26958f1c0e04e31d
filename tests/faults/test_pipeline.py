"""Pipelines that are killed at every boundary and in the middle of each kind of stage, and two that are started at once."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlops_llm.entry import launch
from mlops_llm.launch import process as launch_process
from mlops_llm.pipeline.__main__ import STAGE
from mlops_llm.tracking import champions, datasets
from mlops_llm.tracking.store import connect_to
from tests.commands import Stages, start
from tests.flows.test_pipeline import empty, place, rows, run, states  # noqa: F401 (fixtures)
from tests.record import client, run_of

FLOW = """# python -m mlops_llm.pipeline +experiment=whole
project: sales
stages:
  dedup: {command: data op=dedup_exact dataset=own}
  sft:
    command: >-
      train dataset=stage:dedup/dataset holdout=0.2 samples.count=0 trainer.max_steps=4 trainer.eval_steps=2
      trainer.save_steps=2 trainer.logging_steps=2 trainer.batch_size=2
    needs: [dedup]
  eval:
    command: eval model=stage:sft/last dataset=sales_eval metric=[bleu] limit=2 sampling.max_new_tokens=4 publish.rows=0
    needs: [sft]
  average: {command: "surgery op=average run=stage:sft/run", needs: [eval]}
  promote:
    command: registry op=promote name=bot model=stage:average op.policy=gate
    needs: [average]
    always: true
    decides: true
  card: {command: registry op=card model=stage:promote, needs: [promote]}
"""
POINTS = {
    "dedup": "mlops_llm.tracking.datasets:add+",  # the version is there, and nobody was told
    "sft": "mlops_llm.train.checkpoints:Shelf._rotate",  # a checkpoint is there, and a step after it to do
    "eval": "mlops_llm.eval.recording:result",  # the answers are there, and no score
    "average": "mlops_llm.surgery.streaming:Stream.write+",
    "promote": "mlops_llm.tracking.champions:_carry_out",  # the journal is written, and no alias moved
}
"""Stage of each kind -> the middle of its work."""


@pytest.fixture
def whole(place: Path) -> Path:  # noqa: F811
    """A folder with the flow."""
    (place / "conf/experiment/whole.yaml").write_text(FLOW, "utf-8")
    return place


@pytest.fixture
def unbroken(whole: Path, empty: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """Another folder, in which the same flow went from its beginning to its end."""
    folder = whole.with_name("unbroken")
    shutil.copytree(whole, folder)
    shutil.copy(empty, folder / "mlflow.db")
    monkeypatch.setattr(launch_process, "subprocess", Stages)
    with monkeypatch.context() as there:
        there.chdir(folder)
        assert launch(STAGE, ["+experiment=whole", "run_name=p"]) == 0
    return folder


def digests(folder: Path) -> dict[str, Any]:
    """What is in a record: weights of checkpoints, rows of dataset versions, scores."""
    store = connect_to(f"sqlite:///{folder / 'mlflow.db'}")
    everywhere = [each.experiment_id for each in store.client.search_experiments()]
    models = store.client.search_logged_models(everywhere)
    scored = store.client.search_runs(everywhere, "tags.stage = 'eval' and attributes.status = 'FINISHED'")
    return {
        **{each.name: each.tags["digest.weights"] for each in models},
        **{f"{each.name}@{one.label}": one.digests for each in datasets.all_registered(store) for one in each.versions},
        "scores": [each.data.metrics["score/bleu"] for each in scored],
    }


def ended(folder: Path, stage: str) -> list[str]:
    """Statuses of a stage's runs, the oldest first."""
    store = client(folder)
    everywhere = [each.experiment_id for each in store.search_experiments()]
    found = store.search_runs(everywhere, f"tags.`pipeline.stage` = '{stage}'", order_by=["attributes.start_time ASC"])
    return [each.info.status for each in found]


def killed(folder: Path, where: str, experiment: str, name: str) -> None:
    """Run a pipeline until it is killed."""
    process = start(folder, "pipeline", where, f"+experiment={experiment}", f"run_name={name}", module="tests.dying")
    out, err = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, out + err


@pytest.mark.slow
def test_killed_at_every_boundary_and_in_every_stage(
    whole: Path,
    unbroken: Path,
    empty: Path,  # noqa: F811
    run: Callable[..., Any],  # noqa: F811
) -> None:
    shutil.copy(empty, whole / "mlflow.db")
    for number, (stage, point) in enumerate(POINTS.items()):
        for kind, where in (("in", f"in {stage} {point}"), ("after", f"after {stage}")):
            killed(whole, where, "whole", f"{kind}{number}")
            assert ended(whole, stage)[-1] == ("RUNNING" if kind == "in" else "FINISHED")
    last = run("+experiment=whole", name="last")
    done = ("dedup", "sft", "eval", "average")
    assert states(last) == {**dict.fromkeys(done, "there"), "promote": "done", "card": "done"}
    assert last["decisions"][0].startswith("models:/bot/1 (runs:/in3-average/averaged) is the champion: version 1 is the")
    assert run_of(client(whole), "last-card").data.params["model"] == "models:/bot/1"
    assert [ended(whole, stage).count("FINISHED") for stage in done] == [1] * 4
    assert len(champions.history(client(whole).get_registered_model("bot").tags)) == 1, "it became the champion once"
    assert digests(whole) == digests(unbroken)
    assert not list(whole.glob("outputs/*/average/.averaged.*"))
    store = client(whole)
    trained = run_of(store, "in1-sft")
    assert trained.data.tags["resumed"] == "true"
    assert trained.data.tags["mlflow.parentRunId"] == run_of(store, "after1").info.run_id, "it moved to who went on with it"
    unsigned = ("+experiment=whole", "stages.promote.name=other", "stages.promote.policy.sign_off=1")
    refused = run(*unsigned, name="refused")
    assert states(refused) == {**dict.fromkeys(done, "there"), "promote": "refused", "card": "over"}
    assert "models:/other/1" in refused["decisions"][0] and "is not promoted: sign-off: 0 of 1" in refused["decisions"][0]
    assert "needs promote, which said no" in refused["stages"]["card"]["reason"] and refused["err"] == ""
    failed = run(*unsigned, "stages.promote.decides=false", code=1, name="failed")
    assert states(failed) == {**dict.fromkeys(done, "there"), "promote": "no", "card": "lost"}

    (whole / "datasets/own.jsonl").write_text(rows(12), "utf-8")
    plan = run("+experiment=whole", "op=plan")
    assert "done again: dataset changed" in plan and "to do after dedup" in plan


def test_a_search_that_is_killed_in_a_try_goes_on_with_that_try(
    whole: Path,
    empty: Path,  # noqa: F811
    run: Callable[..., Any],  # noqa: F811
) -> None:
    pytest.importorskip("optuna")
    shutil.copy(empty, whole / "mlflow.db")
    (whole / "conf/experiment/search.yaml").write_text(
        """# python -m mlops_llm.pipeline +experiment=search
stages:
  tried:
    command: data op=validate dataset=own
    search: {method: optuna, over: {op.max_tokens: [1, 60]}, tries: 3, by: data/warnings}
""",
        "utf-8",
    )
    killed(whole, "in tried-2 mlops_llm.tracking.run:MlflowRun.metrics", "search", "one")
    killed(whole, "after tried-2", "search", "two")
    found = run("+experiment=search", name="three")
    assert states(found) == {"tried": "done"} and "best of 3 tries" in found["stages"]["tried"]["reason"]
    assert [ended(whole, f"tried-{number}").count("FINISHED") for number in (1, 2, 3)] == [1, 1, 1]
    assert ended(whole, "tried-2") == ["KILLED", "FINISHED"]


def test_two_pipelines_that_are_started_at_once_do_a_stage_once(whole: Path, empty: Path) -> None:  # noqa: F811
    shutil.copy(empty, whole / "mlflow.db")
    both = [
        start(whole, "pipeline", "slow first", "+experiment=cheap", f"run_name={name}", module="tests.dying") for name in "ab"
    ]
    said = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert ended(whole, "first") == ended(whole, "second") == ["FINISHED"]
    assert sum(out.count("there already, with equal inputs") for out, _ in said) == 2
