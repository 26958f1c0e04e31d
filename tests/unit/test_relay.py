"""The record and the last word of the processes of a training, over real sockets and processes; without torch."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mlops_llm.errors import UserError
from mlops_llm.record import Answer, DatasetInput, Grid, MemoryRun, Registration, Result
from mlops_llm.train import door, launcher
from mlops_llm.train.door import Door
from mlops_llm.train.group import Group
from mlops_llm.train.nodes import Start
from mlops_llm.train.sharing.ddp import Replicated
from tests.processes import ends

BEGIN = """
import os, sys, time
from pathlib import Path
from mlops_llm.record import *
from mlops_llm.train.relay import Launcher, RelayedRun
def join(rank, start=0):
    os.environ["TORCHELASTIC_RESTART_COUNT"] = str(start)
    return Launcher(Path("launcher.json"), rank)
"""


GOES_ON = "\ntime.sleep(10); Path('went-on').touch()"
"""As torchrun would, that may start the processes again."""


def start(folder: Path, script: str, address: str = "") -> Group:
    """A script instead of torchrun."""
    return Group([Start([sys.executable, "-c", BEGIN + script])], os.environ, folder, folder, address)


def served(folder: Path, script: str, run: MemoryRun | None = None, count: int = 2, address: str = "") -> Result:
    group = start(folder, script, address)
    try:
        return group.serve(run or MemoryRun("mine"), count)
    finally:
        group.close()


def test_what_the_first_process_records_arrives_as_it_was(tmp_path):
    run = MemoryRun("mine")
    script = """
first, second = join(0), join(1)
run = RelayedRun(first, "mine", Path("out"))
run.params({"a": 1}); run.tags({"b": "中"})
checkpoint = Checkpoint("checkpoint-2", 2, Path("out/checkpoint-2"), {"digest.weights": "x"})
run.metrics({"loss": 0.1, "bad": float("nan")}, 2, checkpoint, "validation")
run.input(DatasetInput("sales", "v1", "s.jsonl", "training", 3, {"raw": "r"}))
run.artifact("a.json", {"column": ["x", None, 1.5]}); run.artifact("b.txt", Path("b.txt")); run.artifact("c.txt", "text")
run.checkpoint(checkpoint, {"step": 2})
run.answers([Answer(3, "q", "a", ("r",), {"s": 0.5})], checkpoint)
assert run.forget(checkpoint) is True
first.tell(done=Result("t", {"loss": 0.5}, {"n": 1}, shown=[Grid("g", ["a"], [[1]])], best=Registration("c", "m", "a", "d")))
second.tell(done=None)
"""
    result = served(tmp_path, script, run)
    assert (run.kept_params, run.kept_tags) == ({"a": 1}, {"b": "中"})
    assert run.kept_metrics[0] == ("loss", 0.1, 2, "checkpoint-2", "validation") and run.kept_metrics[1][1] != 0
    assert run.inputs == [DatasetInput("sales", "v1", "s.jsonl", "training", 3, {"raw": "r"})]
    assert run.artifacts == {"a.json": {"column": ["x", None, 1.5]}, "b.txt": Path("b.txt"), "c.txt": "text"}
    assert run.kept_answers == {"checkpoint-2": [Answer(3, "q", "a", ["r"], {"s": 0.5}, [])]}
    assert run.checkpoints == [] and result.table == {"loss": 0.5}
    assert result.best == Registration("c", "m", "a", "d") and result.shown == [Grid("g", ["a"], [[1]])]


def test_nothing_but_the_record_is_called(tmp_path):
    with pytest.raises(ValueError, match="nothing in a record is called register"):
        served(tmp_path, "join(0).ask(record='register', arguments=[])")


def test_what_it_would_print_is_printed_here(tmp_path, capfd):
    served(tmp_path, "one = join(0); one.tell(told='say', values=['training 3/3']); one.tell(done=Result('', {}, {}))")
    assert capfd.readouterr().out == "training 3/3\n"


def test_the_first_failure_is_told_and_not_what_came_of_it(tmp_path):
    """Process 1 is killed; that 0 missed it is heard first."""
    script = """
if os.fork():
    one = join(0)
    one.tell(failed=["RuntimeError: Connection closed by peer"], missed=True, traceback=""); os.wait(); sys.exit(1)
join(1); time.sleep(0.3); os.kill(os.getpid(), 9)
"""
    with pytest.raises(UserError, match=r"rank-1.log: process 1 of 2 ended without a word .*go on with: resume=mine"):
        served(tmp_path, script)


def test_an_error_of_one_process_is_one_line_with_its_traceback_behind(tmp_path):
    script = "join(0).tell(failed=['ValueError: boom'], missed=False, traceback='Traceback: here')"
    with pytest.raises(UserError, match="process 0 of 2 failed: ValueError: boom; go on with: resume=mine") as caught:
        served(tmp_path, script)
    assert "\n" not in str(caught.value) and "Traceback: here" in str(caught.value.__cause__)


def test_a_users_mistake_stays_one(tmp_path):
    with pytest.raises(UserError) as caught:
        served(tmp_path, "one = join(1); one.tell(failed=['is 0', 'algo.beta', 'give more'], user=True)" + GOES_ON)
    assert not (tmp_path / "went-on").exists()
    assert (caught.value.what, caught.value.where, caught.value.remedy) == ("is 0", "algo.beta", "give more")


def test_processes_that_never_start_are_told(tmp_path):
    with pytest.raises(UserError, match=r"the processes did not start .*no such module"):
        served(tmp_path, "sys.exit('no such module')")


@pytest.mark.parametrize("how", ["this one gives up", "what started them dies"])
def test_none_is_left_behind(tmp_path, how):
    group = start(tmp_path, "if not os.fork(): join(0); Path('pid.txt').write_text(str(os.getpid()))\ntime.sleep(600)")
    pid = tmp_path / "pid.txt"
    while not (pid.is_file() and pid.read_text()):
        time.sleep(0.01)
    child = int(pid.read_text())
    if how == "this one gives up":
        group.close()
    else:
        os.kill(group._torchruns[0].pid, signal.SIGKILL)
        with pytest.raises(UserError, match="ended without a word"):
            group.serve(MemoryRun(), 1)
        group.close()
    assert ends(child)


def test_a_process_whose_launcher_is_gone_ends(tmp_path):
    door = Door(tmp_path / "launcher.json")
    child = subprocess.Popen([sys.executable, "-c", BEGIN + "join(0); time.sleep(60)"], cwd=tmp_path)
    connection = next(door.visitors())
    assert door.entered(connection)["pid"] == child.pid
    connection.close()
    door.close()
    assert child.wait(30) == 1 and not list(tmp_path.iterdir())


def test_a_door_for_several_machines_lets_in_only_who_knows_the_token(tmp_path):
    door = Door(tmp_path / "launcher.json", "127.0.0.1")
    file = tmp_path / "launcher.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    told = json.loads(file.read_text())
    right = json.dumps({"token": told["token"], "rank": 0, "pid": 1, "host": "h", "round": "a"}).encode() + b"\n"
    wrong = json.dumps({"token": "0" * 64, "rank": 0}).encode() + b"\n"
    for said, wanted in ((wrong, False), (b"x" * 5000, False), (b"[1]\n", False), (b"\xff\n", False), (right, True)):
        with socket.create_connection(tuple(told["port"])) as mine:
            mine.sendall(said)
            mine.shutdown(socket.SHUT_WR)
            with next(door.visitors()) as theirs:
                assert (door.entered(theirs) is not None) is wanted, said
    door.close()
    with pytest.raises(OSError):
        socket.create_connection(tuple(told["port"])).close()
    with pytest.raises(UserError, match=r"192.0.2.1: this machine has no such address .*give distributed.address"):
        Door(file, "192.0.2.1")


def test_who_says_its_name_byte_by_byte_is_not_heard_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(door, "_FIRST", 0.2)
    opened, sent, over = Door(tmp_path / "launcher.json"), 0, threading.Event()
    here, there = socket.socketpair()

    def say() -> None:
        nonlocal sent
        while not over.wait(0.02):
            there.sendall(b" ")
            sent += 1

    slow = threading.Thread(target=say)
    slow.start()
    try:
        assert opened.entered(here) is None
        assert sent < door._LONGEST_FIRST / 2  # else each byte had its own patience
    finally:
        over.set()
        slow.join()
        opened.close()


def test_only_so_many_stand_in_the_door_who_have_not_said_who_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(door, "_ROOM", 3)
    opened, came = Door(tmp_path / "launcher.json", "127.0.0.1"), queue.Queue()
    waiting = threading.Thread(target=lambda: [came.put(each) for each in opened.visitors()], daemon=True)
    waiting.start()
    place = tuple(json.loads((tmp_path / "launcher.json").read_text())["port"])
    silent = [socket.create_connection(place) for _ in range(5)]
    inside = [came.get(timeout=20) for _ in range(3)]
    with pytest.raises(queue.Empty):
        came.get(timeout=0.3)
    silent[0].close()
    assert opened.entered(inside[0]) is None
    inside.append(came.get(timeout=20))
    opened.close()
    for each in (*silent, *inside):
        each.close()


@pytest.mark.parametrize("address", ["", "127.0.0.1"])
def test_after_a_restart_the_record_goes_on_without_saying_a_number_twice(tmp_path, address, capfd):
    run = MemoryRun("mine")
    script = """
if os.fork():
    one = join(0); record = RelayedRun(one, "mine", Path("out"))
    record.metrics({"loss": 2.0}, 1); record.metrics({"loss": 1.5}, 2)
    one.tell(failed=["RuntimeError: Connection closed by peer"], missed=True, traceback="")
    os.wait(); one._line.close(); time.sleep(0.3)
    two = join(0, 1); record = RelayedRun(two, "mine", Path("out"))
    record.metrics({"loss": 1.5}, 2); record.metrics({"loss": 1.2, "rate": 3.0}, 3); record.metrics({"loss": 1.2}, 3)
    two.tell(done=Result("t", {"loss": 1.2}, {})); sys.exit(0)
join(1); os.kill(os.getpid(), 9)
"""
    script = script.replace("one._line.close()", "one._line._socket.shutdown(1)")
    result = served(tmp_path, script, run, address=address)
    assert result.table == {"loss": 1.2} and run.kept_tags == {"restarts": "1"}
    kept = [(key, value, step) for key, value, step, *_ in run.kept_metrics]
    assert kept == [("loss", 2.0, 1), ("loss", 1.5, 2), ("loss", 1.2, 3), ("rate", 3.0, 3), ("loss", 1.2, 3)]
    assert "process 1 of 2 ended without a word" in capfd.readouterr().err


def test_a_failure_that_would_come_again_ends_all_at_once(tmp_path):
    """torchrun would start the processes once more."""
    script = "one = join(0); one.tell(failed=['ValueError: boom'], missed=False, traceback=''); time.sleep(60)"
    with pytest.raises(UserError, match="process 0 of 1 failed: ValueError: boom"):
        served(tmp_path, script, count=1)


def test_the_environment_lets_them_find_each_other_on_this_machine(monkeypatch):
    monkeypatch.setattr("mlops_llm.train.distributed.gpus", lambda: 0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    made = launcher.environment(Replicated(2))
    assert made["ACCELERATE_TORCH_DEVICE"] == "cpu" and made["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1"
    assert int(made["OMP_NUM_THREADS"]) == max(1, (os.cpu_count() or 1) // 2)
    assert "GLOO_SOCKET_IFNAME" in made and "GLOO_SOCKET_IFNAME" not in launcher.environment(Replicated(2, nodes=2))
