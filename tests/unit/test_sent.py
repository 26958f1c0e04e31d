"""Jobs that were sent elsewhere, as the state folder holds them."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.entry import launch
from mlops_llm.errors import UserError
from mlops_llm.launch import elsewhere, sent
from mlops_llm.launch.__main__ import STAGE
from mlops_llm.launch.elsewhere import Elsewhere, Look
from mlops_llm.launch.jobs import State
from mlops_llm.launch.place import Again, Command
from mlops_llm.launch.sent import Sent


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of its own."""
    monkeypatch.setenv("MLOPS_LLM_QUEUE", str(tmp_path / "state"))
    return tmp_path / "state" / "sent"


def job(name: str, run: str, when: float = 1.0, **more: object) -> Sent:
    command = Command("train", ("model=tiny", "op.note=加了 100 行"), name, run, "http://x/#/runs/1", Again.resume, ("A_KEY",))
    return Sent(command, "ssh", {"host": "gpu1"}, {"folder": "jobs/1"}, when, **more)  # type: ignore[arg-type]


def test_a_job_is_read_as_it_was_written(folder: Path) -> None:
    written = sent.keep(job("one", "a1"))
    assert sent.required("one") == written == sent.required("a1")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / ".a2.json.abcdefgh.json").write_text("")  # another command writes it at this moment, or was killed there
    assert sent.jobs() == [written]


def test_of_two_of_one_name_the_last_is_meant_and_a_wrong_name_tells_the_nearest() -> None:
    for run, when in (("a1", 2.0), ("a2", 3.0), ("a3", 1.0)):
        sent.keep(job("sft_sales", run, when))
    assert sent.required("sft_sales").command.run == "a2"
    assert [each.command.run for each in sent.jobs()] == ["a3", "a1", "a2"]
    with pytest.raises(UserError, match=r"no job elsewhere is called 'sft_sale' \(did you mean sft_sales\?\)"):
        sent.required("sft_sale")


def test_the_first_word_on_how_a_job_ended_stands() -> None:
    away = sent.keep(job("one", "a1"))
    assert sent.ended(away, State.cancelled, reason="cancelled").state is State.cancelled
    again = sent.ended(away, State.done, 0)
    assert (again.state, again.code, again.reason) == (State.cancelled, None, "cancelled")


def test_the_oldest_that_ended_are_forgotten_and_none_that_runs(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(sent, "KEPT", 2)
    for number in range(5):
        state = State.running if number == 0 else State.done
        sent.keep(job(f"run-{number}", f"a{number}", float(number), state=state))
    assert [each.command.name for each in sent.jobs()] == ["run-0", "run-3", "run-4"]
    assert len(list(folder.glob("*.json"))) == 3


@given(st.text(max_size=40), st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3))
def test_any_text_comes_back(reason: str, handle: dict[str, str]) -> None:
    away = Sent(job("one", "a1").command, "ray", {}, handle, 1.5, State.failed, 1, 2.5, reason)
    assert sent.keep(away) == sent.required("a1")


@dataclass
class Told(Elsewhere):
    """A place that knows how a job ended."""

    code: int | None = None

    def begin(self, command: Command) -> dict[str, str]:
        return {}

    def look(self, job: Sent) -> Look:
        return Look(State.done if self.code == 0 else State.failed, self.code)

    def output(self, job: Sent, start: int) -> bytes:
        return b""

    def stop(self, job: Sent, patience: float) -> None: ...


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (1, 1), (2, 2), (143, 143), (None, 1)])
def test_coming_back_to_a_job_ends_as_the_job_did(
    code: int | None, ends: int, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent.keep(job("one", "a1"))
    monkeypatch.setattr(elsewhere, "place_of", lambda job: Told(code=code))
    assert launch(STAGE, ["op=attend", "op.job=one"]) == ends
    assert sent.required("one").code == code
