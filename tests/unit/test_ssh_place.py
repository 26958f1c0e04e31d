"""The place launch=ssh without a machine: what it does of what it sees there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlops_llm.launch import sent
from mlops_llm.launch.elsewhere import DETACHED, Look, LostError, attend
from mlops_llm.launch.jobs import State
from mlops_llm.launch.place import Again, Command
from mlops_llm.launch.places.ssh import OverSsh
from mlops_llm.launch.sent import Sent
from mlops_llm.launch.ssh import begin, returned, route, start
from mlops_llm.tracking import queued
from mlops_llm.tracking.queued import Seen

RUNS = Look(State.running)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """A command that was sent to a machine with `launch.wait=false`."""
    monkeypatch.setenv("MLOPS_LLM_QUEUE", str(tmp_path / "state"))
    here = {"MLFLOW_TRACKING_URI": "sqlite:////x/mlflow.db"}
    made = Command("data", ("resume=one",), "one", "a1", "http://x", Again.resume, folder=str(tmp_path), environment=here)
    handle = {"job": "/far/jobs/a1/job", "work": "/far/jobs/a1/work", "route": "door", "port": "1", "artifacts": "file:///x"}
    sent.keep(Sent(made, "ssh", {"host": "gpu1", "wait": False}, handle, 1.0))
    return made


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """A function that says what is seen there and in the record, look by look; it returns what is done, in its order."""

    def tell(looks: list[Look | BaseException], records: list[Seen], told: bytes = b"") -> list[str]:
        done = list[str]()

        @contextmanager
        def standing(*_: Any) -> Iterator[None]:
            done.append("way")
            try:
                yield
            finally:
                done.append("no way")

        def look(*_: Any) -> Look:
            found = looks.pop(0) if len(looks) > 1 else looks[0]
            if isinstance(found, BaseException):
                raise found
            done.append(f"look {found.state.name}")
            return found

        monkeypatch.setattr("mlops_llm.launch.places.ssh._LOOK", 0.0)
        monkeypatch.setattr(start, "look", look)
        monkeypatch.setattr(start, "output", lambda _, __, begin: told[begin:])
        monkeypatch.setattr(route, "standing", standing)
        monkeypatch.setattr(queued, "look", lambda *_: records.pop(0) if len(records) > 1 else records[0])
        monkeypatch.setattr(queued, "close", lambda *given: done.append(f"close {given[2]}"))
        monkeypatch.setattr(begin, "is_left", lambda *_: looks[0].note != "its folder is gone there")
        monkeypatch.setattr(begin, "is_unsettled", lambda *_: False)
        monkeypatch.setattr(begin, "ground", lambda _: None)
        monkeypatch.setattr("mlops_llm.launch.places.ssh.connect_to", lambda _: None)
        monkeypatch.setattr(returned, "bring", lambda *_: ["brought one"])
        return done

    return tell


def test_a_run_that_is_to_go_on_has_begun_when_it_goes_on(
    command: Command, seen: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    done = seen([RUNS], [Seen("KILLED", begun=True)] * 3 + [Seen("RUNNING", begun=True)] + [Seen("RUNNING", True, None, True)])
    assert OverSsh(host="gpu1", wait=False).attend(command) == 0
    assert done == ["way", *["look running"] * 5, "no way"]
    assert capsys.readouterr().out == "one has begun on gpu1\n"


def test_a_process_that_has_ended_already_is_told_and_concluded(
    command: Command, seen: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    over = Look(State.failed, 2, "there is no dataset")
    done = seen([LostError("cannot be reached", "gpu1"), RUNS, over], [Seen("SCHEDULED")], b"error: there is no dataset\n")
    assert OverSsh(host="gpu1", wait=False).attend(command) == 2
    said, warned = capsys.readouterr()
    assert "error: there is no dataset" in said and "brought one" in said and "has begun" not in said
    assert "gpu1: cannot be reached; waiting for it" in warned and "close FAILED" in done
    assert sent.required("one").state is State.failed


def test_ctrl_c_before_it_has_begun_says_that_it_may_need_somebody(
    command: Command, seen: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    done = seen([RUNS, KeyboardInterrupt()], [Seen("SCHEDULED")])
    assert OverSsh(host="gpu1", wait=False).attend(command) == DETACHED
    assert "one has not begun yet" in capsys.readouterr().err and done[-1] == "no way"


def test_a_job_of_which_nothing_is_left_there_ends(
    command: Command, seen: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    done = seen([start.told("gone")], [Seen("KILLED")])
    assert attend(sent.required("one")) == 1
    assert "nothing of one is left on gpu1" in capsys.readouterr().out and "close FAILED" in done
    assert sent.required("one").reason == "its folder is gone there"
