"""The champion moves as one step: twenty processes at once, processes that are killed, servers."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from mlflow import MlflowClient

from mlops_llm.registry import recording
from mlops_llm.registry.config import Registry
from mlops_llm.registry.policy import Policy
from mlops_llm.registry.preparing import promotion
from mlops_llm.tracking import champions
from mlops_llm.tracking.opening import open_run
from mlops_llm.tracking.run import Opening
from mlops_llm.tracking.store import Store, connect_to
from mlops_llm.tracking.turns import turn
from tests.commands import ok, start
from tests.faults.test_server import Server, port, server  # noqa: F401 (fixtures)

GATE = ["policy=gate", "project=race"]
"""A policy that asks for no score."""
DYING = """
import os, signal, sys
from mlflow import MlflowClient
from mlops_llm.entry import launch
from mlops_llm.registry.__main__ import STAGE

moves = MlflowClient.set_registered_model_alias

def dies(self, name, alias, version):
    if alias == "champion":
        os.kill(os.getpid(), signal.SIGKILL)
    moves(self, name, alias, version)

MlflowClient.set_registered_model_alias = dies
sys.exit(launch(STAGE, sys.argv[1:]))
"""


RACING = """
import os, sys, traceback
from pathlib import Path
from mlops_llm.registry.config import Registry
from mlops_llm.registry.policy import Policy
from mlops_llm.registry.preparing import promotion
from mlops_llm.tracking import environment, opening
from mlops_llm.tracking.run import Opening

environment.describe = lambda argv: environment.Environment({}, "", {})

def promote(version):
    name, output = f"race-{version}", f"outputs/race-{version}"
    asked = Registry(op=None, name="bot", version=version, policy=Policy(), output=output)
    found = promotion(asked, evaluate=False, force=False, reason="")
    with opening.open_run(Opening("registry", "race", name, Path(output))) as run:
        assert not found.work(run).failed

def process(version):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        promote(version)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)

began = [process(str(each)) for each in range(1, 1 + int(sys.argv[1]))]
sys.exit(sum(os.waitpid(each, 0)[1] != 0 for each in began))
"""
"""Processes that do at once what `op=promote` does, without what each would take seconds for: to import it all, and to find
out about the machine."""


def register(store: Store, folder: Path, count: int, name: str = "bot") -> None:
    """A registered model with versions whose weights nobody looks at."""
    experiment = store.experiment("race")
    store.client.create_registered_model(name)
    for number in range(1, count + 1):
        place = folder / f"weights-{number}"
        place.mkdir(exist_ok=True)
        tags = {"digest.weights": f"{number:064d}", "checkpoint.storage": "reference", "checkpoint.uri": place.as_uri()}
        model = store.client.create_logged_model(experiment, f"checkpoint-{number}", tags=tags, model_type="checkpoint")
        store.client.finalize_logged_model(model.model_id, "READY")
        with mock.patch.dict(os.environ, MLFLOW_TRACKING_URI=store.address):  # where MLflow looks for the source
            store.client.create_model_version(name, f"models:/{model.model_id}", model_id=model.model_id)


def race(folder: Path, store: Store, count: int, env: dict[str, str] | None = None) -> None:
    """Promote all versions at once, and see that nothing is lost."""
    register(store, folder, count)
    (folder / "racing.py").write_text(RACING, "utf-8")
    racing = start(folder, str(count), module="racing", env=env)
    said = racing.communicate(timeout=500)
    assert racing.returncode == 0, said
    model = store.client.get_registered_model("bot")
    moves = champions.history(model.tags)
    assert [each.number for each in moves] == list(range(1, count + 1)), "one change after the other"
    assert sorted(each.version for each in moves) == list(range(1, count + 1)), "none is lost"
    assert [each.before for each in moves] == [None, *(each.version for each in moves[:-1])], "each saw the one before"
    assert int(model.aliases["champion"]) == moves[-1].version and int(model.aliases["previous"]) == moves[-2].version
    assert champions.JOURNAL not in model.tags
    for each in moves:
        tags = store.client.get_model_version("bot", str(each.version)).tags
        assert tags["decision"] == "promoted" and tags["decision.against"] == str(each.before or "")
        run = store.client.get_run(each.run_id)
        assert run.info.status == "FINISHED" and not {"turn.of", "turn.number"} & set(run.data.tags)


def test_twenty_promotions_at_once_on_a_database(tmp_path: Path) -> None:
    race(tmp_path, connect_to(f"sqlite:///{tmp_path / 'mlflow.db'}"), 20)


def test_twenty_promotions_at_once_on_a_server(tmp_path: Path, server: Server, port: int) -> None:  # noqa: F811
    server()
    address = f"http://127.0.0.1:{port}"
    race(tmp_path, connect_to(address), 20, {"MLFLOW_TRACKING_URI": address})


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Store]:
    """A folder with two versions, of which the first is the champion."""
    store = connect_to(f"sqlite:///{tmp_path / 'mlflow.db'}")
    register(store, tmp_path, 3)
    (tmp_path / "dying.py").write_text(DYING, "utf-8")
    ok(run(tmp_path, "op=promote", "name=bot", "version=1", *GATE))
    return tmp_path, store


def run(folder: Path, *words: str, module: str = "") -> Any:
    import subprocess

    process = start(folder, *words, stage="registry", module=module)
    out, err = process.communicate(timeout=200)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def aliases(store: Store) -> dict[str, int]:
    return {alias: int(number) for alias, number in store.client.get_registered_model("bot").aliases.items()}


def test_a_rollback_after_a_crash_between_the_two_moves(two: tuple[Path, Store]) -> None:
    folder, store = two
    killed = run(folder, "op=promote", "name=bot", "version=2", "run_name=cut", *GATE, module="dying")
    assert killed.returncode == -signal.SIGKILL
    assert aliases(store) == {"champion": 1, "previous": 1}, "between the two moves the old champion is there"
    assert "was cut off: the next start completes it" in ok(run(folder, "op=show", "name=bot"))
    done = run(folder, "op=rollback", "name=bot", "op.reason=it answers in English", "run_name=back", "project=race")
    assert re.search(r"champion +version 1 +\n", ok(done)) and "by cut, which was cut off, is completed" in done.stderr
    assert aliases(store) == {"champion": 1}
    tags = store.client.get_registered_model("bot").tags
    assert [(each.kind, each.version, each.run) for each in champions.history(tags)][1:] == [
        ("promote", 2, "cut"),
        ("rollback", 1, "back"),
    ]
    version = store.client.get_model_version("bot", "2")
    assert version.tags["rolled_back.why"] == "it answers in English" and champions.JOURNAL not in tags


def test_any_next_start_completes_what_was_cut_off(two: tuple[Path, Store]) -> None:
    folder, store = two
    ok(run(folder, "op=promote", "name=bot", "version=2", *GATE))
    killed = run(folder, "op=rollback", "name=bot", "op.reason=why", "project=race", module="dying")
    assert killed.returncode == -signal.SIGKILL and aliases(store)["champion"] == 2
    ok(run(folder, "op=sign_off", "name=bot", "version=3", "op.by=Wang", "project=race"))
    assert aliases(store) == {"champion": 1}
    assert "signed_off.Wang" in store.client.get_model_version("bot", "3").tags


class Breaking:
    """A client whose n-th write fails, as if the process had died there."""

    def __init__(self, client: MlflowClient, left: int) -> None:
        self._client, self.left = client, left

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        if not name.startswith(("set_registered", "delete_registered", "set_model_version")):
            return real

        def write(*words: Any) -> Any:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            return real(*words)

        return write


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    monkeypatch.chdir(tmp_path)
    return lambda name: open_run(Opening("registry", "race", name, tmp_path / name))


def test_a_move_that_breaks_at_any_write_is_completed_once(tmp_path: Path, opened: Callable[[str], Any]) -> None:
    store = connect_to(f"sqlite:///{tmp_path / 'mlflow.db'}")
    register(store, tmp_path, 2)
    with opened("first") as first:
        champions.move(store, "bot", 1, champions.PROMOTE, first.name, "first")
    for writes in range(12):
        with opened(f"try-{writes}") as again:
            before = champions.history(store.client.get_registered_model("bot").tags)
            now, other = before[-1].version, 3 - before[-1].version
            breaking = Store(Breaking(store.client, writes), store.address)  # type: ignore[arg-type]
            broke = False
            try:
                champions.move(breaking, "bot", other, champions.PROMOTE, again.name, "again")
            except KeyboardInterrupt:
                broke = True
                assert aliases(store)["champion"] in (now, other)
            with champions.turn_of(store, again.id, "bot") as completed:
                pass
            model = store.client.get_registered_model("bot")
            moves = champions.history(model.tags)
            if writes == 0:
                assert completed is None and moves == before, "nothing was begun"
                continue
            assert (completed is not None) == broke, writes
            assert [each.number for each in moves] == list(range(1, len(before) + 2))
            assert aliases(store) == {"champion": other, "previous": now} and champions.JOURNAL not in model.tags
    assert not broke, "each write was tried"


def test_what_a_version_says_of_its_decision_is_true_wherever_the_process_dies(
    tmp_path: Path, opened: Callable[[str], Any]
) -> None:
    store = connect_to(f"sqlite:///{tmp_path / 'mlflow.db'}")
    register(store, tmp_path, 1)
    with opened("dies") as dies:
        asked = Registry(op=None, name="bot", version="1", policy=Policy(), output=str(tmp_path / "dies"))
        found = promotion(asked, evaluate=False, force=False, reason="")
        with mock.patch.object(champions, "_carry_out", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            found.work(dies)
        assert store.client.get_model_version("bot", "1").tags["decision"] == "promoted" and not aliases(store)
        with champions.turn_of(store, dies.id, "bot"):
            assert aliases(store) == {"champion": 1}
    with opened("cut") as cut, mock.patch.object(recording, "mark", side_effect=KeyboardInterrupt):
        register(store, tmp_path, 1, "other")
        asked = Registry(op=None, name="other", version="1", policy=Policy(), output=str(tmp_path / "cut"))
        with pytest.raises(KeyboardInterrupt):
            promotion(asked, evaluate=False, force=False, reason="").work(cut)
        with champions.turn_of(store, cut.id, "other"):
            assert int(store.client.get_registered_model("other").aliases["champion"]) == 1, "nothing is said before it is sure"


def test_who_died_is_passed_over_and_who_lives_is_waited_for(
    tmp_path: Path, opened: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = connect_to(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with opened("mine") as mine, opened("other") as other:
        store.client.set_tag(other.id, "turn.of", "x")
        for number in ("choosing", "1"):
            store.client.set_tag(other.id, "turn.number", number)
            monkeypatch.setattr("mlops_llm.tracking.turns.PATIENCE", 0.2)
            with pytest.raises(Exception, match="run other has been at it"), turn(store, mine.id, "x"):
                pass
        store.client.set_tag(other.id, "run.process", f"{os.getpid()}:1.00")  # a process that began at another time
        with turn(store, mine.id, "x"):
            assert store.client.get_run(mine.id).data.tags["turn.of"] == "x"
        assert "turn.of" not in store.client.get_run(mine.id).data.tags


def test_a_version_that_is_deleted_meanwhile_leaves_the_champion(tmp_path: Path, opened: Callable[[str], Any]) -> None:
    store = connect_to(f"sqlite:///{tmp_path / 'mlflow.db'}")
    register(store, tmp_path, 2)
    with opened("one") as one:
        champions.move(store, "bot", 1, champions.PROMOTE, one.name, "")
        breaking = Store(Breaking(store.client, 1), store.address)  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            champions.move(breaking, "bot", 2, champions.PROMOTE, one.name, "")
        store.client.delete_model_version("bot", "2")
        with champions.turn_of(store, one.id, "bot"):
            assert aliases(store) == {"champion": 1}
    tags = store.client.get_registered_model("bot").tags
    assert len(champions.history(tags)) == 1 and champions.JOURNAL not in tags
