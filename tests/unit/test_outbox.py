"""The outbox against a store that goes away, comes back, and loses answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from mlops_llm.tracking import environment, outbox
from mlops_llm.tracking.outbox import Outbox, deliver_left_over, spool_folder
from mlops_llm.tracking.store import Store

ADDRESS = "sqlite:////record.db"
RUN = "f" * 32


class Server:
    """As much of MLflow's client as tags, params and metrics need; like MLflow it keeps every metric that it is sent."""

    def __init__(self) -> None:
        self.metrics: list[tuple[str, float, int]] = []
        self.params: dict[str, str] = {}
        self.log: list[str] = []
        self.batches = 0
        self.away = False
        self.lose_answers = 0
        """How many answers get lost after the write was made."""
        self.last_batches: int | None = None
        """Batches until it goes away by itself."""
        self.refuse = False

    def log_batch(self, run: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        if self.last_batches is not None:
            self.away = self.away or self.last_batches <= 0
            self.last_batches -= 1
        if self.away:
            raise ConnectionError("connection refused")
        if self.refuse:
            raise ValueError("INVALID_PARAMETER_VALUE")
        self.batches += 1
        self.metrics += [(each.key, each.value, each.step) for each in metrics]
        self.log += [f"{each.key}@{each.step}" for each in metrics]
        self.params |= {each.key: each.value for each in params}
        self.log += [each.key for each in params]
        self.log += [f"{each.key}={each.value}" for each in tags]
        if self.lose_answers:
            self.lose_answers -= 1
            raise ConnectionError("connection reset")

    def get_metric_history(self, run: str, key: str) -> list[Any]:
        self._ask()
        return [SimpleNamespace(key=name, value=value, step=step) for name, value, step in self.metrics if name == key]

    def get_run(self, run: str) -> Any:
        self._ask()
        return SimpleNamespace(data=SimpleNamespace(params=dict(self.params)))

    def _ask(self) -> None:
        if self.away:
            raise ConnectionError("connection refused")


def metric(step: int, key: str = "loss") -> dict[str, Any]:
    return {"do": "metrics", "rows": [[key, float(step), 1000 + step, step, None, None, None]]}


def tag(value: str) -> dict[str, Any]:
    return {"do": "tags", "values": {"状态": value}}


def param(key: str) -> dict[str, Any]:
    return {"do": "params", "values": {key: "1"}}


@pytest.fixture
def server(here, monkeypatch):
    monkeypatch.setattr(outbox, "PAUSE", 0.0)  # a test need not wait between two tries
    return Server()


@pytest.fixture
def store(server):
    return Store(server, ADDRESS)


def spool():
    return spool_folder() / f"{RUN}.jsonl"


def dead_process() -> str:
    done = subprocess.Popen([sys.executable, "-c", ""])
    tag = environment.process(done.pid)
    done.wait()
    return tag


def as_if_dead() -> None:
    """Let the spool be that of a process that ended."""
    head, *rest = spool().read_text("utf-8").splitlines(keepends=True)
    spool().write_text(json.dumps({**json.loads(head), "process": dead_process()}) + "\n" + "".join(rest), "utf-8")


def test_a_server_that_is_there_gets_each_write_at_once(server, store):
    box = Outbox(store, RUN)
    for write in (param("a"), metric(1), tag("x")):
        assert box.put(write)
    assert server.log == ["a", "loss@1", "状态=x"]
    assert not box.waiting
    assert not spool_folder().exists()


def test_while_the_server_is_away_writes_wait_and_go_out_in_their_order(server, store):
    box = Outbox(store, RUN)
    box.put(metric(1))
    server.away = True
    for write in (metric(2), tag("old"), metric(3), param("a"), tag("new")):
        assert not box.put(write)
    assert box.waiting
    assert server.log == ["loss@1"]
    server.away = False
    assert box.put(metric(4))
    assert server.log == ["loss@1", "loss@2", "状态=old", "loss@3", "a", "状态=new", "loss@4"]
    assert not box.waiting
    assert not spool().exists()


@pytest.mark.parametrize("write", [metric(1), tag("x"), param("a")], ids=["metrics", "tags", "params"])
def test_an_answer_that_is_lost_doubles_nothing(server, store, write):
    box = Outbox(store, RUN)
    server.lose_answers = 1
    assert not box.put(write)
    assert box.waiting
    assert box.flush()
    assert len(server.metrics) == (write["do"] == "metrics")
    assert server.params == ({"a": "1"} if write["do"] == "params" else {})


def test_answers_lost_while_the_backlog_goes_out_double_nothing(server, store):
    box = Outbox(store, RUN)
    server.away = True
    for step in range(1, 6):
        box.put(metric(step))
        box.put(tag(str(step)))
    server.away, server.lose_answers = False, 3
    while box.waiting:
        box.flush()
    assert [step for _, _, step in server.metrics] == [1, 2, 3, 4, 5]


def test_only_the_rows_that_are_missing_are_sent_again(server, store):
    box = Outbox(store, RUN)
    server.away = True
    box.put(metric(1))
    box.put(metric(2))
    box.put(metric(2, "accuracy"))
    server.away = False
    server.metrics = [("loss", 1.0, 1)]
    assert box.flush()
    assert sorted(server.metrics) == [("accuracy", 2.0, 2), ("loss", 1.0, 1), ("loss", 2.0, 2)]


@pytest.mark.parametrize("batches", range(6))
def test_a_server_that_goes_away_again_in_mid_backlog(server, store, batches):
    box = Outbox(store, RUN)
    server.away = True
    writes = [metric(1), metric(2), tag("a"), metric(3), tag("b"), metric(4), metric(5)]
    for write in writes:
        box.put(write)
    server.away, server.last_batches = False, batches
    assert box.flush() == (batches > 4)
    server.away, server.last_batches = False, None
    assert not box.waiting or box.flush()
    assert [each for each in server.log if each.startswith("loss")] == [f"loss@{step}" for step in range(1, 6)]
    assert [each for each in server.log if each.startswith("状态")] == ["状态=a", "状态=b"]


@pytest.mark.parametrize(("most", "batches"), [(outbox.MOST_METRICS, 1), (20, 3)], ids=["one", "no larger than MLflow takes"])
def test_neighbouring_metrics_go_out_in_few_batches(server, store, monkeypatch, most, batches):
    monkeypatch.setattr(outbox, "MOST_METRICS", most)
    box = Outbox(store, RUN)
    server.away = True
    for step in range(50):
        box.put(metric(step))
    server.away = False
    assert box.flush()
    assert server.batches == batches
    assert [step for _, _, step in server.metrics] == list(range(50))


def test_what_the_server_refuses_is_told_and_not_kept(server, store):
    server.refuse = True
    with pytest.raises(ValueError, match="INVALID"):
        Outbox(store, RUN).put(tag("x"))
    assert not spool().exists()


def test_nothing_waiting_is_delivered(store):
    assert Outbox(store, RUN).flush()


class TestNextStart:
    def left(self, server, store, *writes):
        server.away = True
        for write in writes:
            Outbox(store, RUN).put(write)
        server.away = False
        as_if_dead()

    def test_delivers_what_a_dead_process_left(self, server, store):
        self.left(server, store, metric(1), tag("你好"), metric(2))
        assert deliver_left_over(store) == [RUN]
        assert server.log == ["loss@1", "状态=你好", "loss@2"]
        assert not spool().exists()
        assert deliver_left_over(store) == []

    def test_leaves_a_living_process_and_another_store_alone(self, server, store):
        self.left(server, store, metric(1))
        assert deliver_left_over(Store(server, "sqlite:////other.db")) == []
        head, *rest = spool().read_text("utf-8").splitlines(keepends=True)
        alive = {**json.loads(head), "process": environment.process(os.getpid())}
        spool().write_text(json.dumps(alive) + "\n" + "".join(rest), "utf-8")
        assert deliver_left_over(store) == []
        assert server.log == []
        assert spool().exists()

    def test_waits_on_when_the_server_is_still_away(self, server, store):
        self.left(server, store, metric(1), metric(2))
        server.away = True
        assert deliver_left_over(store) == []
        server.away = False
        assert deliver_left_over(store) == [RUN]
        assert [step for _, _, step in server.metrics] == [1, 2]

    @pytest.mark.parametrize("torn", ['{"do": "metrics", "rows": [["lo', "{", '{"do": "tags", "values": {"状'])
    def test_a_torn_last_line_is_not_there(self, server, store, torn):
        self.left(server, store, metric(1), tag("a"))
        with spool().open("a", encoding="utf-8") as file:
            file.write(torn)
        assert deliver_left_over(store) == [RUN]
        assert server.log == ["loss@1", "状态=a"]

    def test_a_write_after_a_torn_line_is_not_lost(self, server, store):
        self.left(server, store, metric(1))
        with spool().open("a", encoding="utf-8") as file:
            file.write('{"do": "metrics", "rows": [["lo')
        unreachable = Store(server, "http://127.0.0.1:9")  # the discard port: nobody listens
        server.away = True
        resumed = Outbox(unreachable, RUN)
        assert not resumed.put(metric(2))
        assert not resumed.put(metric(3))
        server.away = False
        assert Outbox(store, RUN).flush()
        assert [step for _, _, step in server.metrics] == [1, 2, 3]

    @pytest.mark.parametrize("content", ["", '{"address": "sqlite:////rec'])
    def test_a_torn_first_line_does_not_stop_every_later_start(self, store, content):
        spool_folder().mkdir(parents=True)
        spool().write_text(content)
        assert deliver_left_over(store) == []

    def test_what_its_own_process_delivers_meanwhile_is_no_error(self, server, store, monkeypatch):
        self.left(server, store, metric(1))
        monkeypatch.setattr(environment, "host", lambda: "elsewhere")
        monkeypatch.setattr(environment, "is_earlier_start", lambda host: spool().unlink())
        assert deliver_left_over(store) == []

    def test_a_draft_is_not_what_waits(self, server, store, monkeypatch):
        spool_folder().mkdir(parents=True)
        draft = spool_folder() / f".{RUN}.jsonl.abcdefgh.jsonl"
        draft.write_text("")
        assert deliver_left_over(store) == [] and draft.exists()
        os.utime(draft, (0, 0))
        assert deliver_left_over(store) == [] and not draft.exists()

    def test_what_the_server_refuses_does_not_stop_every_later_start(self, server, store):
        self.left(server, store, metric(1))
        server.refuse = True
        deliver_left_over(store)


def test_the_last_flush_does_not_wait_for_the_next_try_of_its_turn(server, store, monkeypatch):
    monkeypatch.setattr(outbox, "PAUSE", 3600.0)
    box = Outbox(store, RUN)
    server.away = True
    box.put(param("a"))
    assert box.waiting
    server.away = False
    assert not box.put(param("b"))
    assert box.flush(patience=2.0) and not box.waiting
