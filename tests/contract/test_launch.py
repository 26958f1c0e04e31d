"""Every stage's command can be put into the queue, and says nothing of it where it is recorded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mlops_llm import component
from mlops_llm.entry import config, launch
from mlops_llm.entry.arguments import read
from mlops_llm.launch.jobs import AWAY
from mlops_llm.launch.place import JOB
from mlops_llm.launch.places.queue import OnQueue
from tests.contract.test_components import STAGES
from tests.contract.test_configs import REQUIRED, composed

QUEUED = [name for name in STAGES if name != "launch"]


@pytest.mark.parametrize("stage", QUEUED)
def test_every_stage_has_launch_queue_and_runs_here_if_nothing_is_said(stage: str) -> None:
    words = REQUIRED.get(stage, [])
    assert composed(stage, [*words, "launch=queue", "launch.tries=2"]).launch == OnQueue(tries=2)
    assert composed(stage, words).launch.here


@pytest.mark.parametrize("stage", QUEUED)
def test_the_record_of_a_command_does_not_depend_on_where_it_runs(stage: str) -> None:
    each = STAGES[stage]
    config.register(each.name, each.schema, each.packages)
    here, queued = (
        config.what(config.composed(stage, read([*REQUIRED.get(stage, []), f"launch={place}"]).overrides))
        for place in ("local", "queue")
    )
    assert here == queued and "launch" not in here and "launch" not in config.choices(here)


def test_every_place_says_whether_it_is_here() -> None:
    places = component.groups()["launch"]
    assert {name for name, cls in places.items() if cls.here} == {"local"}
    assert all(dataclasses.is_dataclass(cls) for cls in places.values())


def test_a_job_whose_record_does_not_answer_says_so_by_its_exit_code(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    words = ["op=validate", "dataset=sales_sft"]
    assert launch(STAGES["data"], words) == 2
    monkeypatch.setenv(JOB, "queue/1")
    assert launch(STAGES["data"], words) == AWAY
    said = capfd.readouterr().err.strip().splitlines()
    assert len(said) == 2 and all("does not answer" in each for each in said)
