"""Processes on another machine, started by ssh (a real sshd on loopback), with a short script in torchrun's place."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlops_llm.errors import UserError
from mlops_llm.ports import LOOPBACK
from mlops_llm.record import MemoryRun, Result
from mlops_llm.train import nodes
from mlops_llm.train.group import Group
from mlops_llm.train.sharing.ddp import Replicated
from tests.far import HOST, Machine
from tests.processes import ends

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from mlops_llm.record import Result
from mlops_llm.train import door, versions
from mlops_llm.train.relay import Launcher
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as mlops_llm.train.elastic does: nohup lets it be ignored
rank, kind = int("FAR" in os.environ), sys.argv[1]
os.environ |= {"GROUP_WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
if kind == "old" and rank:
    door.versions.here = lambda here=versions.here: {**here(), "mlops_llm": "other", "torch": "1.0"}
one = Launcher(Path("launcher.json"), rank)
Path(f"own-{rank}").write_text(str(os.getpid()))
Path(f"own-{rank}").rename(f"pid-{rank}")  # it may be ended between any two words
if kind != "good":
    time.sleep(120)
one.tell(done=Result("t", {"loss": 0.5}, {}) if rank == 0 else None)
"""


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The other machine."""
    machine = Machine(tmp_path_factory.mktemp("far"))
    machine.start()
    with machine.having("export FAR=1\n"):
        yield machine
    machine.end()


@pytest.fixture
def trained(tmp_path: Path, far: Machine, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A function that lets the script run here and there; `meanwhile` is done when both are in."""
    monkeypatch.setenv("PATH", far.known()["PATH"])
    (tmp_path / "settings.json").touch()

    def both(kind: str, needs: str = "settings.json", meanwhile: Callable[[], None] | None = None) -> Result:
        how = Replicated(1, nodes=2, hosts=[HOST], address=LOOPBACK)
        words = [sys.executable, "-c", SCRIPT, kind, str(tmp_path / needs)]
        group = Group(nodes.starts(how, words, tmp_path, os.environ), os.environ, tmp_path, tmp_path, LOOPBACK)

        def wait() -> None:
            while len(list(tmp_path.glob("pid-*"))) < 2:
                time.sleep(0.02)
            assert meanwhile
            meanwhile()

        if meanwhile:
            threading.Thread(target=wait, daemon=True).start()
        try:
            return group.serve(MemoryRun("mine"), 2)
        finally:
            group.close()

    return both


def left(folder: Path) -> list[int]:
    """Processes of the script that still run."""
    return [pid for pid in map(int, (each.read_text() for each in folder.glob("pid-*"))) if not ends(pid, 20)]


def test_both_are_in_and_the_first_has_the_word(trained: Callable[..., Result]) -> None:
    assert trained("good").table == {"loss": 0.5}


def test_a_connection_that_is_lost_ends_all_on_both_sides(tmp_path: Path, trained: Callable[..., Result], far: Machine) -> None:
    with pytest.raises(UserError, match=rf"the connection was lost \({HOST}: .*go on with: resume=mine"):
        trained("waits", meanwhile=far.cut)
    assert len(list(tmp_path.glob("pid-*"))) == 2
    assert left(tmp_path) == []
    far.start()


def test_another_version_of_the_code_ends_all_and_is_named(tmp_path: Path, trained: Callable[..., Result]) -> None:
    with pytest.raises(UserError) as caught:
        trained("old")
    assert "mlops_llm is other there and " in caught.value.what
    assert "torch is 1.0 there and " in caught.value.what
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == []


def test_a_machine_that_does_not_see_the_folder_says_so(trained: Callable[..., Result]) -> None:
    with pytest.raises(UserError, match=rf"did not start \({HOST}: error: .* does not see .*elsewhere.json: all machines must"):
        trained("good", "elsewhere.json")


@pytest.mark.parametrize(
    ("line", "said"),
    [({"IdentityFile": "{folder}/stranger"}, "Permission denied"), ({"Port": "1"}, "Connection refused")],
    ids=["key", "port"],
)
def test_a_machine_that_does_not_answer_is_one_line(
    trained: Callable[..., Result], far: Machine, line: dict[str, str], said: str
) -> None:
    far.write_config(**{name: value.format(folder=far.folder) for name, value in line.items()})
    try:
        with pytest.raises(UserError, match=rf"does not answer \({HOST}: .*{said}.*ssh {HOST} true"):
            trained("waits")
    finally:
        far.write_config()
