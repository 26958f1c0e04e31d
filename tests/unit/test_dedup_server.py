"""Against a real HTTP server on the loopback that misbehaves on demand."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from mlops_llm.data.dedup.server import Server
from mlops_llm.endpoint import Endpoint
from mlops_llm.errors import UserError
from tests.waiting import WaitingHandler, WaitingServer

KEY = "sk-very-secret"


class Faulty(WaitingServer):
    """Plays its faults one a call, then answers well."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[str] = []
        self.calls: list[dict] = []
        self.keys: list[str | None] = []
        self.daemon_threads = True

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(WaitingHandler):
    server: Faulty

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self.server.calls.append({"path": self.path})
        self.send_error(404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.calls.append({"path": self.path, **body})
        self.server.keys.append(self.headers.get("authorization"))
        vectors = [[float(len(text)), 1.0] for text in body["input"]]
        data = [{"index": place, "embedding": vector} for place, vector in enumerate(vectors)]
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault.isdigit():
            self.reply(int(fault), json.dumps({"error": {"message": f"no: {KEY} {'x' * 5000}"}}))
        elif fault == "quota":
            self.reply(429, json.dumps({"error": {"code": "insufficient_quota", "message": "pay first"}}))
        elif fault == "wait":
            self.reply(429, "{}", {"retry-after": "7"})
        elif fault == "moved":
            self.reply(302, "", {"location": "/elsewhere"})
        elif fault == "html":
            self.reply(200, "<html>sign in</html>")
        elif fault == "silent":
            self.keep_waiting(drips=False)
        elif fault == "dripping":
            self.send_response(200)
            self.end_headers()
            self.keep_waiting(drips=True)
        elif fault == "hanging up":
            self.connection.close()
        elif fault == "cut off":
            self.send_response(200)
            self.send_header("content-length", "9999")
            self.end_headers()
            self.wfile.write(b'{"data": [')
        else:
            shapes = {
                "one less": data[:-1],
                "one more": [*data, data[0]],
                "ragged": [{"index": 0, "embedding": [1.0]}, *data[1:]],
                "null": [{"index": 0, "embedding": None}, *data[1:]],
                "nan": [{"index": 0, "embedding": [float("nan"), 1.0]}, *data[1:]],
                "zero": [{"index": 0, "embedding": [0.0, 0.0]}, *data[1:]],
                "shuffled": data[::-1],
            }
            self.reply(200, json.dumps({"data": shapes.get(fault, data), "model": "m"}))

    def reply(self, code: int, text: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        body = text.encode()
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEST_KEY", KEY)
    with Faulty() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(Endpoint, "pause", lambda _, seconds: found.append(seconds))
    return found


def embed(faulty: Faulty, texts=("a", "bbb", "cc"), **how):
    return Server(faulty.address, "m", "TEST_KEY", **how).embed(list(texts))


def refused(faulty: Faulty, **how) -> str:
    with pytest.raises(UserError) as caught:
        embed(faulty, **how)
    line = str(caught.value)
    assert faulty.address in line
    assert KEY not in line
    assert "\n" not in line
    assert len(line) < 400
    return line


def test_vectors_come_in_the_order_of_texts_and_of_length_one(faulty):
    faulty.faults = ["shuffled"]
    found = embed(faulty)
    assert np.allclose(found.vectors, [[0.5**0.5, 0.5**0.5], [0.9**0.5, 0.1**0.5], [0.8**0.5, 0.2**0.5]])
    assert found.tokens is None
    assert faulty.calls[0] == {"path": "/v1/embeddings", "model": "m", "input": ["a", "bbb", "cc"], "encoding_format": "float"}
    assert faulty.keys == [f"Bearer {KEY}"]


def test_many_texts_go_in_batches(faulty):
    assert embed(faulty, [str(each) for each in range(150)]).vectors.shape == (150, 2)
    assert [len(call["input"]) for call in faulty.calls] == [64, 64, 22]


@pytest.mark.parametrize(
    "fault", ["500", "503", "429", "408", "html", "hanging up", "cut off", "one less", "one more", "null", "ragged"]
)
def test_what_may_pass_is_tried_again(faulty, waits, fault):
    faulty.faults = [fault, fault]
    assert len(embed(faulty).vectors) == 3
    assert len(faulty.calls) == 3
    assert len(waits) == 2
    assert 0.5 <= waits[0] <= 1 <= waits[1] <= 2


@pytest.mark.parametrize("fault", ["silent", "dripping"])
def test_a_slow_server_is_left_in_time(faulty, monkeypatch, fault):
    faulty.faults = [fault, fault]
    line = refused(faulty, attempts=1, timeout=0.3)
    assert "answer within 0.3 s" in line
    assert not faulty.through


def test_the_server_says_how_long_to_wait(faulty, waits):
    faulty.faults = ["wait"]
    embed(faulty)
    assert waits == [7]


def test_after_four_attempts_it_is_told_in_one_line(faulty, waits):
    faulty.faults = ["500"] * 9
    assert "failed 4 times, last: HTTP 500" in refused(faulty)
    assert len(faulty.calls) == 4


FINAL = {"401": "op.api_key_env", "403": "op.api_key_env", "404": "/v1", "400": "HTTP 400", "quota": "pay first"}
FINAL |= {"moved": "HTTP 302", "nan": "1 of 3", "zero": "1 of 3"}


@pytest.mark.parametrize(("fault", "said"), FINAL.items())
def test_what_does_not_pass_is_told_at_once(faulty, fault, said):
    faulty.faults = [fault] * 4
    assert said in refused(faulty)
    assert [call["path"] for call in faulty.calls] == ["/v1/embeddings"]


def test_a_server_that_is_not_there_is_told(waits):
    with pytest.raises(UserError, match="failed 4 times"):
        Server("http://127.0.0.1:9/v1", "m").embed(["a"])


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1:8000", "ftp://host/v1", "http://", "http://name:secret@host/v1", "http://host/v1?key=1"]
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(UserError, match=r"op\.base_url"):
        Server(address, "m")


def test_a_missing_key_is_refused_by_its_name(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(UserError, match="NO_SUCH_KEY"):
        Server("http://127.0.0.1:1/v1", "m", "NO_SUCH_KEY")
