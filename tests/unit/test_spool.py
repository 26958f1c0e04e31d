"""What waits on disk for the record: whose it is, and who may deliver it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mlops_llm.tracking import environment, outbox
from mlops_llm.tracking.outbox import Outbox, deliver_left_over, spool_folder
from mlops_llm.tracking.store import Store, connect_to

ROWS = {"do": "metrics", "rows": [["loss", 1.5, 1000, 1, "", "", ""]]}


@pytest.fixture
def store(here: Path) -> Store:
    return connect_to(f"sqlite:///{here}/mlflow.db")


def left(store: Store, host: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A run of a process on another host, and the file in which its numbers wait."""
    run = str(store.client.create_run(store.experiment("default")).info.run_id)
    beats = environment.process_tags() | {"run.host": host}
    for key, value in beats.items():
        store.client.set_tag(run, key, value)

    def away(*words: object, **more: object) -> None:
        raise ConnectionError("refused")

    with monkeypatch.context() as there:
        there.setattr(environment, "host", lambda: host)
        there.setattr(outbox, "deliver", away)
        assert not Outbox(store, run).put(dict(ROWS))
    return run, spool_folder() / f"{run}.jsonl"


def test_what_a_living_process_of_another_machine_keeps_is_its_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run, file = left(store, "gpu1/0a1b2c3d/4026531836", monkeypatch)
    assert deliver_left_over(store) == [] and file.exists()  # it was written just now
    long_ago = time.time() - 2 * environment.SILENCE
    os.utime(file, (long_ago, long_ago))
    assert deliver_left_over(store) == [] and file.exists()  # its heart beats
    store.client.set_tag(run, "run.heartbeat", str(int(long_ago)))
    assert deliver_left_over(store) == [run] and not file.exists()
    assert [each.value for each in store.client.get_metric_history(run, "loss")] == [1.5]


def test_a_start_that_begins_anew_finds_nothing_of_the_one_before(
    store: Store, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, file = left(store, "gpu1/0a1b2c3d/4026531836", monkeypatch)
    output = here / "outputs/one"
    output.mkdir()
    (output / "half").write_text("x")
    outbox.put_aside(run, here, output, 1)
    aside = here / "outputs/one.interrupted-1"
    assert not output.exists() and not file.exists() and {each.name for each in aside.iterdir()} == {"half", "spool.jsonl"}
    outbox.put_aside(run, here, output, 2)
    assert {each.name for each in (here / "outputs").iterdir()} == {".spool", "one.interrupted-1"}


def test_what_waits_in_another_folder_is_delivered_from_there(
    store: Store, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path_factory.mktemp("there")
    with monkeypatch.context() as typed:
        typed.chdir(there)
        run, _ = left(store, f"{environment.host().partition('/')[0]}/00000000/1", monkeypatch)
        _, kept = left(store, f"{environment.host().partition('/')[0]}/00000000/1", monkeypatch)
    assert deliver_left_over(store) == [] and deliver_left_over(store, there, run) == [run] and kept.exists()


def test_what_this_machine_kept_before_its_last_start_is_delivered_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = environment.host().partition("/")[0]
    run, _ = left(store, f"{name}/00000000/1", monkeypatch)
    assert deliver_left_over(store) == [run]
