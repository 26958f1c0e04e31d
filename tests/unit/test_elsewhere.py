"""Jobs in a place that is scripted: how they are attended, taken back and gone on with, whatever the place says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlops_llm.entry import resume
from mlops_llm.entry.arguments import Arguments
from mlops_llm.errors import UserError
from mlops_llm.launch import elsewhere, sent
from mlops_llm.launch.elsewhere import DETACHED, TERMINATED, Elsewhere, Look, LostError, attend
from mlops_llm.launch.jobs import State
from mlops_llm.launch.ops import cancel
from mlops_llm.launch.ops.cancel import Cancel
from mlops_llm.launch.place import Again, Command
from mlops_llm.launch.sent import Sent
from mlops_llm.launch.stopping import Terminated
from mlops_llm.tracking import queued
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.queued import Seen
from mlops_llm.tracking.refusals import AwayError
from mlops_llm.train.__main__ import STAGE as TRAIN

RUNS, DONE = Look(State.running), Look(State.done, 0)


@dataclass
class Scripted(Elsewhere):
    """Answers one after the other; an error is raised, and the last answer stays."""

    def __post_init__(self) -> None:
        self.looks, self.did = list[Look | BaseException](), list[str]()

    def begin(self, command: Command) -> dict[str, str]:
        return {"job": "1"}

    def look(self, job: Sent) -> Look:
        told = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(told, BaseException):
            raise told
        return told

    def output(self, job: Sent, start: int) -> bytes:
        return b"said\n"[start:]

    def stop(self, job: Sent, patience: float) -> None:
        self.did.append("stopped")

    def bring(self, job: Sent) -> list[str]:
        self.did.append("brought")
        return []

    def strike(self, job: Sent) -> None:
        self.did.append("struck")

    def where(self, handle: Mapping[str, str]) -> str:
        return "there"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """The place of every job; nothing waits for long, and the record says what `closed` notes."""
    made = Scripted()
    monkeypatch.setenv("MLOPS_LLM_QUEUE", str(tmp_path / "state"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for module in (elsewhere, cancel):
        monkeypatch.setattr(module, "place_of", lambda job: made)
    monkeypatch.setattr(elsewhere.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(queued, "close", lambda address, run, status, reason: made.did.append(status))
    return made


def job(handle: Mapping[str, str] | None = None) -> Sent:
    command = Command("train", ("a=1",), "one", "a1", "link", Again.resume)
    return sent.keep(Sent(command, "ssh", {}, {"job": "1"} if handle is None else handle, 1.0))


def test_an_ended_job_that_nobody_looked_at_is_not_cancelled(place: Scripted, capfd: pytest.CaptureFixture[str]) -> None:
    place.looks = [DONE]
    job()
    Cancel("one").carry_out()
    assert sent.required("one").state is State.done and place.did == ["brought"]
    assert "had ended before: done" in capfd.readouterr().out


def test_a_job_whose_sending_was_cut_off_is_no_job_and_can_be_taken_back(place: Scripted) -> None:
    with pytest.raises(UserError, match=r"one: is still being sent, or the command .* was cut off; take it back: .* op=cancel"):
        attend(job({}))
    Cancel("one").carry_out()
    assert sent.required("one").state is State.cancelled and place.did == ["KILLED"]


@pytest.mark.parametrize(
    "error", [LostError("cannot be reached", "gpu1", "see that it runs"), UserError("refuses the key", "gpu1")]
)
def test_a_job_whose_place_is_gone_for_good_is_struck_where_that_is_asked_for(place: Scripted, error: UserError) -> None:
    place.looks = [error]
    job()
    with pytest.raises(UserError, match=r"gpu1: .*, or strike it without stopping it: op.force=true"):
        Cancel("one").carry_out()
    assert sent.required("one").state is State.waiting and not place.did
    Cancel("one", force=True).carry_out()
    assert sent.required("one").reason == "struck, its place could not be used" and place.did == ["struck", "KILLED"]


def test_a_record_that_is_away_when_a_job_ends_is_waited_for(place: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [AwayError("does not answer"), Seen("RUNNING")]

    def look(address: str, run: str) -> Seen:
        told = answers.pop(0)
        if isinstance(told, Exception):
            raise told
        return told

    monkeypatch.setattr(queued, "look", look)
    place.looks = [RUNS, LostError("cannot be reached"), Look(State.failed)]
    assert attend(job()) == 1 and not answers
    assert sent.required("one").reason == "its process ended without a word" and place.did == ["brought", "FAILED"]


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), DETACHED), (Terminated(), TERMINATED)])
def test_who_stops_watching_leaves_the_job_alone(place: Scripted, stop: BaseException, code: int) -> None:
    place.looks = [stop]
    assert attend(job()) == code and sent.required("one").state is State.waiting and not place.did


def test_a_command_that_was_sent_is_not_taken_back_when_the_record_goes_away(
    place: Scripted, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    noted = list[str]()

    def note(address: str, run: str, told: str) -> None:
        noted.append(told)
        if told == "there":
            raise AwayError("the record cannot be reached")

    monkeypatch.setattr(queued, "note", note)
    monkeypatch.setattr(elsewhere.component, "name_of", lambda place: "scripted")
    monkeypatch.setattr(elsewhere.component, "plain", lambda place: {"settings": {}})
    place.send(job().command)
    assert sent.required("one").handle == {"job": "1"} and noted == ["on its way by scripted", "there"]
    assert "the record cannot be reached" in capfd.readouterr().err


def test_a_run_that_a_job_may_still_go_on_with_is_not_resumed_beside_it(
    place: Scripted, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = RunRow("a1", "one", "1", "default", "KILLED", {"stage": "train", "output": str(here)}, {}, {})
    monkeypatch.setattr(resume.ledger, "find_run", lambda store, ref: row)
    monkeypatch.setattr(resume, "_check", lambda stage, run: None)
    waits = job()
    with pytest.raises(UserError, match=r"the job of run 'one' \(ssh\) may still go on with it; see to it first: .*op=attend"):
        resume.checked(TRAIN, "one", Arguments([], []))
    monkeypatch.setenv(resume.JOB, "slurm/1")  # the job itself
    assert resume.checked(TRAIN, "one", Arguments([], [])) == row
    monkeypatch.delenv(resume.JOB)
    sent.ended(waits, State.cancelled)
    assert resume.checked(TRAIN, "one", Arguments([], [])) == row
