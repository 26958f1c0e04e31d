"""The scripts of launch=ssh, run by this machine's own shell: what they look for, leave and take away."""

from __future__ import annotations

import http.server
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import mlops_llm
from mlops_llm.errors import UserError
from mlops_llm.launch.elsewhere import LostError
from mlops_llm.launch.place import Again, Command
from mlops_llm.launch.sent import Sent
from mlops_llm.launch.ssh import begin, far, parcel, route, start, storage
from mlops_llm.launch.ssh.connection import Connection
from mlops_llm.launch.ssh.route import Route, Tracking
from mlops_llm.tracking import door, moved
from tests.processes import ends


@dataclass(frozen=True)
class Near(Connection):
    """This machine, as if it were the other one."""

    host: str = "gpu1"
    asked: list[tuple[str, ...]] = field(default_factory=list)
    """Words of the scripts so far."""
    rsync: Callable[[Near, str, str], int] | None = None
    """What stands for it."""

    def argv(self, *more: str, shared: bool = True) -> list[str]:
        """A shell in place of ssh and its host."""
        return ["sh", "-c"]

    def ask(self, script: str, *words: str, patience: float = 120.0) -> bytes:
        """Run a script, and remember its words."""
        self.asked.append(words)
        return super().ask(script, *words, patience=patience)

    def send(self, source: Path | str, target: str, *options: str) -> int:
        """Copy by what stands for rsync."""
        assert self.rsync is not None
        return self.rsync(self, str(source), target)


@pytest.fixture
def to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Near:
    """A machine with an empty home folder."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(route, "_STAYS", "cat >/dev/null")  # the parent is no sshd here, but the test
    return Near()


@pytest.fixture
def record() -> Iterator[str]:
    """Address, with a password, of a server that wants one."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://me:pw-of-mine@127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_record_with_a_password_is_tried_without_it(to: Near, record: str) -> None:
    assert far.look(to, "f", sys.executable, record).answers
    assert not [word for words in to.asked for word in words if "pw-of-mine" in word]


@pytest.mark.parametrize("folder", [".", "team", "new"])
def test_a_folder_that_is_there_keeps_its_rights_and_what_is_made_is_for_this_user_alone(
    to: Near, folder: str, tmp_path: Path
) -> None:
    (tmp_path / "home").chmod(0o755)
    (tmp_path / "home/team").mkdir(mode=0o755)
    before = {each: stat.S_IMODE((tmp_path / "home" / each).stat().st_mode) for each in (".", "team")}
    root = tmp_path / "home" / folder
    found = far.look(to, folder, sys.executable)
    assert Path(found.root) == root
    assert {each: stat.S_IMODE((tmp_path / "home" / each).stat().st_mode) for each in before} == before
    made = [root / each for each in ("code", "files", "cache", "jobs")] + ([root] if folder == "new" else [])
    assert not [each for each in made if each.stat().st_mode & 0o077]


@pytest.mark.parametrize("meanwhile", ["nothing", "sent", "sent and its draft taken"])
def test_the_same_content_may_be_sent_twice_at_once(to: Near, tmp_path: Path, meanwhile: str) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    content = storage.of_path(tmp_path / "rows.jsonl", str(tmp_path / "root"))
    place, draft = Path(content.place), Path(f"{content.place}.part")

    def send(near: Near, source: str, target: str) -> int:
        if meanwhile != "nothing":  # another command is the first
            shutil.copytree(source, place)
        if "taken" in meanwhile:
            shutil.rmtree(draft)
            raise UserError("rsync: mkstemp failed: No such file or directory", near.host)
        shutil.copytree(source, target, dirs_exist_ok=True)
        return 2

    storage.bring_there(Near(rsync=send), [content], 1 << 40)
    assert [each.relative_to(place.parent) for each in place.parent.rglob("*.jsonl")] == [Path(place.name, "rows.jsonl")]
    assert not draft.exists()


def test_content_that_cannot_be_sent_is_an_error(to: Near, tmp_path: Path) -> None:
    def refused(near: Near, source: str, target: str) -> int:
        raise UserError("rsync: write failed", near.host)

    (tmp_path / "rows.jsonl").write_text("{}")
    with pytest.raises(UserError, match="write failed"):
        storage.bring_there(Near(rsync=refused), [storage.of_path(tmp_path / "rows.jsonl", str(tmp_path))], 1 << 40)


def job_of(tmp_path: Path) -> tuple[str, str]:
    """Folders of a job and of its work."""
    places = tmp_path / "jobs/a1/job", tmp_path / "jobs/a1/work"
    for each in places:
        each.mkdir(parents=True)
    return str(places[0]), str(places[1])


def test_a_process_that_is_taken_back_ends(to: Near, tmp_path: Path) -> None:
    job, work = job_of(tmp_path)
    pid = int(start.start(to, job, work, ["sleep", "987"], {}))
    start.take_back(to, job)
    assert ends(pid) and not Path(job).exists() and not Path(f"{job}.over").exists()


def test_one_that_has_not_left_its_number_when_it_is_taken_back_does_not_begin(
    to: Near, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, work = job_of(tmp_path)
    slow = tmp_path / "bin/setsid"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\ntouch {tmp_path}/asked\nwhile [ ! -e {tmp_path}/go ]; do sleep 0.02; done\nexec "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    asking = subprocess.Popen(["sh", "-c", "exec sh -s"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert asking.stdin
    own = start.exported({"JOB_FOLDER": job, "WORK_FOLDER": work})
    script = f"set -- touch {tmp_path}/began\n{own}{start._LAUNCHED.replace('left=100', 'left=1')}"
    asking.stdin.write(script.encode())
    asking.stdin.close()
    while not (tmp_path / "asked").exists():
        time.sleep(0.02)
    start.take_back(to, job)
    (tmp_path / "go").touch()
    asking.wait()
    time.sleep(0.2)
    assert not (tmp_path / "began").exists()


@pytest.mark.parametrize("words", [("op=stats",), ("resume=one",)])
def test_a_command_that_is_interrupted_as_it_has_begun_there_leaves_no_process(
    to: Near, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    pids = list[int]()

    def interrupted(*given: Any) -> str:
        pids.append(int(began(*given)))
        raise KeyboardInterrupt

    began = start.start
    here = {"MLFLOW_TRACKING_URI": "sqlite:////x/mlflow.db"}
    command = Command("data", words, "one", "a1", "http://x", Again.repeat, folder=str(tmp_path), environment=here)
    kept = tmp_path / "home/f/jobs/a1/work/kept"
    monkeypatch.setattr(start, "start", interrupted)
    monkeypatch.setattr(begin, "connect_to", lambda _: None)
    monkeypatch.setattr(begin, "_way", lambda *_: Route("direct"))
    monkeypatch.setattr(begin, "_argv", lambda *_: ["sleep", "987"])
    monkeypatch.setattr(begin, "_send_notes", lambda *_: kept.touch())
    monkeypatch.setattr(begin, "_send_output", lambda *_: None)
    monkeypatch.setattr(parcel, "packed", lambda *_: parcel.Parcel(storage.Content("code", "/c", {}), tmp_path))
    monkeypatch.setattr(parcel.Parcel, "send", lambda *_: None)
    monkeypatch.setattr(moved, "output_of", lambda *_: (str(tmp_path / "outputs/one"), str(tmp_path), ""))
    for name in ("point", "rename_in_settings"):
        monkeypatch.setattr(moved, name, lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        begin.begin(to, command, "f", sys.executable, Tracking.auto)
    assert ends(pids[0]) and kept.exists() is (words[0] != "op=stats")


_STORE = """
def check_address():
    pass
def connect():
    print("waiting for the record")
def is_away(error):
    seen = [error, error.__cause__]
    return any(isinstance(each, ConnectionError) for each in seen) or "403" in str(error)
"""
"""Stands for the record, which takes seconds to load."""


def job_whose_code(tmp_path: Path, settles: str, python: str = sys.executable) -> Sent:
    """A job that has ended, with code there that does this to bring the record up to date."""
    code = tmp_path / "code/src/mlops_llm"
    ours = Path(mlops_llm.__file__).parent
    for name in ("__init__", "errors", "tracking/__init__", "tracking/refusals", "tracking/secrets"):
        (code / f"{name}.py").parent.mkdir(parents=True, exist_ok=True)
        (code / f"{name}.py").write_text((ours / f"{name}.py").read_text("utf-8"))
    (code / "tracking/store.py").write_text(_STORE)
    (code / "tracking/opening.py").write_text(f"from mlops_llm.errors import UserError\ndef settle(_):\n    {settles}\n")
    here = {"MLFLOW_TRACKING_URI": "sqlite:////x/mlflow.db"}
    command = Command("data", ("op=stats",), "one", "a1", "http://x", Again.repeat, folder=str(tmp_path), environment=here)
    places = {"root": str(tmp_path), "job": str(tmp_path), "work": str(tmp_path), "code": str(tmp_path / "code")}
    others = {"python": python, "route": "direct", "port": "0", "artifacts": "", "clock": "0"}
    return Sent(command, "ssh", {}, {**places, **others}, 1.0)


@pytest.mark.parametrize(
    "settles",
    [
        "raise ConnectionError('reset by peer')",
        "raise UserError('the tracking server does not answer') from ConnectionError('refused')",
    ],
)
def test_what_a_record_that_is_away_has_not_heard_is_waited_for(to: Near, tmp_path: Path, settles: str) -> None:
    with pytest.raises(LostError, match=r"cannot be delivered \((reset by peer|the tracking server does not answer)"):
        begin.settle(to, job_whose_code(tmp_path, settles))


@pytest.mark.parametrize(
    ("settles", "python", "said"),
    [
        ("raise ValueError('403 Client Error: Forbidden')", sys.executable, "403 Client Error"),
        ("raise KeyError('refused, timed out')", sys.executable, "refused, timed out"),
        ("return None", "/gone/python", "not found"),
    ],
)
def test_what_can_never_be_delivered_is_told_and_the_job_ends(
    to: Near, tmp_path: Path, capsys: pytest.CaptureFixture[str], settles: str, python: str, said: str
) -> None:
    begin.settle(to, job_whose_code(tmp_path, settles, python))
    warned = capsys.readouterr().err
    assert said in warned and f"it stays in gpu1:{tmp_path}/outputs/.spool" in warned


def test_of_what_is_delivered_nothing_is_said(to: Near, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin.settle(to, job_whose_code(tmp_path, "return None"))
    assert capsys.readouterr() == ("", "")


def test_a_server_on_the_record_that_dies_is_begun_anew_and_ends_with_the_block(
    to: Near, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLOPS_LLM_QUEUE", str(tmp_path))
    (tmp_path / "ssh").mkdir()
    began = tmp_path / "began"
    dies = f"echo $$ >>{began}; echo no memory; [ $(wc -l <{began}) -gt 1 ] || exit 1; exec sleep 987"
    monkeypatch.setattr(door, "server", lambda *_: (["sh", "-c", dies], dict(os.environ)))
    monkeypatch.setattr(route, "_PAUSES", (0.0, 0.05))
    with route.standing(to, Route("door", 21000, "file:///x"), "sqlite:////x/mlflow.db", "a1"):
        until = time.monotonic() + 20
        while not (began.exists() and len(began.read_text().split()) == 2) and time.monotonic() < until:
            time.sleep(0.02)
    assert len(began.read_text().split()) == 2 and ends(int(began.read_text().split()[1]))
    assert capsys.readouterr().err.count("the server on the record has ended (no memory)") == 1
    assert not list((tmp_path / "ssh").iterdir())


def test_whether_anything_of_a_job_is_left_is_seen(to: Near, tmp_path: Path) -> None:
    job = job_whose_code(tmp_path, "return None")
    assert begin.is_left(to, job)
    assert not begin.is_left(to, replace(job, handle={**job.handle, "work": str(tmp_path / "gone")}))
