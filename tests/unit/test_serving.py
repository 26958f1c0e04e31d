"""What stands between clients and a model: texts that come token by token, requests under way, a watch, a probe."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from mlops_llm.errors import RequestError, UserError
from mlops_llm.inference import protocol
from mlops_llm.inference.batches import Batches, Job, Piece, Spoken
from mlops_llm.inference.engine import Care, Sampling
from mlops_llm.inference.engines.hf import Hf, HfSession
from mlops_llm.inference.hf_server import Answers
from mlops_llm.models import load, tiny
from mlops_llm.models.load import ModelLoad
from mlops_llm.models.ref import Place
from mlops_llm.registry.serving import following
from mlops_llm.registry.serving.expected import Expected
from mlops_llm.registry.serving.following import Target, Watch
from mlops_llm.registry.serving.front import Front
from mlops_llm.registry.serving.probe import Proof, first, proven
from mlops_llm.registry.serving.service import Service, refuse_port
from mlops_llm.registry.serving.standing import Post, Standing

KEY = "k" * 20


@pytest.fixture(scope="module")
def session() -> Iterator[HfSession]:
    files = load.inspect(Place("tiny", tiny.folder()), ModelLoad())
    with Hf().open(files, ModelLoad(), load.tokenizer_of(files), files.window) as opened:
        yield opened


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load.tokenizer(Place("tiny", tiny.folder()))


@given(
    st.text("产品abc \n。你好", max_size=12),
    st.lists(st.text("产品abc。", min_size=1, max_size=3), max_size=2),
    st.integers(1, 40),
)
def test_pieces_together_are_the_answer_up_to_its_stop_and_show_nothing_of_that(tokenizer, text, stops, most):
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    spoken, said, finish = Spoken(tokenizer, {tokenizer.eos_token_id}, Sampling(1, most, 0.0, stop=stops)), "", None
    for token in ids[:most]:
        piece, finish = spoken.hear(token)
        said += piece
        assert not any(stop in said for stop in stops)
        if finish:
            break
    known = tokenizer.decode(ids[:most], skip_special_tokens=True).rstrip("\ufffd")
    ends = [place for stop in stops if (place := known.find(stop)) >= 0]
    assert said == (known[: min(ends)] if ends else known)
    assert finish == ("length" if not ends and len(ids) > most else "stop")


def answered(batches: Batches, jobs: list[tuple[list[int], Sampling, int]], top: int = 0) -> list[list[Piece]]:
    told: list[list[Piece]] = [[] for _ in jobs]
    over = threading.Semaphore(0)

    def give(index: int, piece: Piece) -> None:
        told[index].append(piece)
        if piece.finish:
            over.release()

    for index, (ids, sampling, seed) in enumerate(jobs):
        batches.add(Job(ids, sampling, seed, top, lambda piece, index=index: give(index, piece)))
    assert all(over.acquire(timeout=60) for _ in jobs)
    return told


def test_answers_given_together_are_those_given_alone_and_their_log_probabilities_are_the_models(session):
    batches = Batches(session.model, session.tokenizer, session.ends, 4)
    prompts = [
        session.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("产品的保修期多久？", "你好", "退货")
    ]
    for sampling in (Sampling(1, 10, 0.0), Sampling(1, 6, 0.9, 0.8)):
        jobs = [(ids, sampling, seed) for seed, ids in enumerate(prompts)]
        together = answered(batches, jobs, top=2)
        for job, pieces in zip(jobs, together, strict=True):
            (alone,) = answered(batches, [job], top=2)
            assert [each.told.token for each in pieces] == [each.told.token for each in alone]
            assert "".join(each.text for each in pieces) == "".join(each.text for each in alone)
            whole = [*job[0], *(each.told.token for each in alone)]
            ((_, told),) = session.logprobs([whole], [len(job[0])], 1, Care())
            assert [each.told.logprob for each in pieces] == pytest.approx(told, abs=1e-4)
            assert all(each.told.top[0][1] >= each.told.logprob for each in pieces)


def test_a_batch_that_fails_is_told_and_the_next_is_answered(session, monkeypatch):
    batches = Batches(session.model, session.tokenizer, session.ends, 4)
    with monkeypatch.context() as broken:
        broken.setattr(session.model, "generate", lambda **_: (_ for _ in ()).throw(MemoryError("no memory")))
        ((piece,),) = answered(batches, [([5], Sampling(1, 2, 0.0), 0)])
    assert piece.finish == "error" and "no memory" in piece.failure
    assert answered(batches, [([5], Sampling(1, 2, 0.0), 0)])[0][-1].finish in ("stop", "length")


class Behind(BaseHTTPRequestHandler):
    """A model's process that does what it is told."""

    protocol_version = "HTTP/1.1"
    does: Callable[[Behind, dict[str, Any]], None]

    def do_GET(self) -> None:
        if self.headers["authorization"] == f"Bearer {KEY}":
            self.say({"data": []} if self.path == "/none/models" else {"data": [{"id": "shop"}, {"id": "other"}]})
        else:
            self.say({}, 401)

    def do_POST(self) -> None:
        assert self.headers["authorization"] == f"Bearer {KEY}"
        type(self).does(self, json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def say(self, told: Any, status: int = 200) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Process:
    """Stands for a process that runs."""

    def __init__(self, address: str) -> None:
        self.address, self.key, self.ended = address, KEY, ""

    def check(self) -> None:
        if self.ended:
            raise UserError(self.ended, "engine")


def standing(process: Any, version: str = "1") -> Standing:
    return Standing(process, "models:/shop@champion", version, f"w{version}", ExitStack())


@contextmanager
def behind(does: Callable[[Behind, dict[str, Any]], None]) -> Iterator[Process]:
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Behind,), {"does": does})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Process(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


@contextmanager
def front(post: Post, key: str = "", at_once: int = 8) -> Iterator[httpx.Client]:
    application = Front(post, ["shop", "models:/shop@champion"], key, at_once).application()
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="critical"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
        yield client
    server.should_exit = True
    thread.join()


ASKED = {"model": "models:/shop@champion", "messages": []}


def test_a_request_is_passed_on_under_the_models_name_and_counted():
    post, heard = Post(), []

    def does(self: Behind, asked: dict[str, Any]) -> None:
        heard.append(asked)
        self.say({"ok": 1}, 400 if asked.get("bad") else 200)

    with behind(does) as process, front(post) as client:
        none = client.post("/v1/chat/completions", json=ASKED)
        assert none.status_code == 503 and none.headers["retry-after"] == "2"
        post.put(standing(process))
        good = client.post("/v1/chat/completions", json=ASKED)
        assert good.json() == {"ok": 1} and good.headers["x-model-version"] == "1" and good.headers["x-model-weights"] == "w1"
        assert client.post("/v1/completions", json={"bad": 1, "prompt": "一\ud800"[:1]}).status_code == 400
        assert [each["model"] for each in heard] == ["shop", "shop"]
        for body, status in ((b"{", 400), (b"[]", 400), (b'{"model": "other"}', 404), (b"x" * (protocol.LARGEST + 1), 413)):
            refused = client.post("/v1/completions", content=body)
            assert refused.status_code == status and refused.json()["error"]["message"]
        assert client.get("/v1/completions").status_code == client.get("/nope").status_code == 404
        assert client.get("/v1/models/models:/shop@champion").json()["version"] == "1"
        until(lambda: (post.answered, post.failed, post.now.in_work) == (2, 0, 0))


def test_a_client_that_goes_while_it_asks_is_no_error(tokenizer):
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": [], "query_string": b"", "root_path": ""}
    said: list[Any] = []

    async def told(message: Any) -> None:
        said.append(message)

    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    for application in (Front(Post(), ["shop"], "", 8).application(), Answers(None, tokenizer, 512, ["shop"]).application("")):
        asyncio.run(application(dict(scope), gone, told))
    assert [each["status"] for each in said if "status" in each] == [499, 499]


def test_transformers_server_refuses_what_it_does_not_do_and_templates_of_clients(session):
    asked = {"messages": [{"role": "user", "content": "你好"}], "max_tokens": 1}
    answers = Answers(Batches(session.model, session.tokenizer, session.ends, 4), session.tokenizer, 512, ["shop"])
    client = TestClient(answers.application(""))
    for more, status in (
        ({}, 200),
        ({"top_k": -1, "repetition_penalty": 1.0, "min_p": 0.0, "tools": []}, 200),
        ({"top_k": 5}, 400),
        ({"repetition_penalty": 1.3}, 400),
        ({"guided_json": {}}, 200),
        ({"guided_regex": "a"}, 400),
        ({"chat_template_kwargs": {"enable_thinking": False}}, 200),
        ({"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, 400),
    ):
        answer = client.post("/v1/chat/completions", json={**asked, **more})
        assert answer.status_code == status, answer.text
        assert status == 200 or answer.json()["error"]["param"] in more


def test_a_part_of_a_character_has_no_bytes_of_its_own(tokenizer):
    part = next(token for token in range(len(tokenizer)) if "\ufffd" in tokenizer.decode([token]))
    written = protocol.Written("x", "shop", True, 0, False, tokenizer, 0)
    told = written.whole([protocol.Choice(0, "", [protocol.Told(part, -0.1)], "stop")], [[1]])
    assert told["choices"][0]["logprobs"]["content"][0]["bytes"] is None


def test_a_model_that_dies_is_told_and_nothing_stays_in_work():
    post, cut = Post(), b'data: {"a": 1}\n\n'

    def does(self: Behind, asked: dict[str, Any]) -> None:
        if asked.get("stream"):
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("content-length", "1000")
            self.end_headers()
            self.wfile.write(cut)
        self.close_connection = True
        self.connection.close()

    with behind(does) as process, front(post) as client:
        post.put(standing(process))
        assert client.post("/v1/completions", json={}).status_code == 502
        told = client.post("/v1/completions", json={"stream": True})
        assert told.content.startswith(cut) and "ended in the middle of its answer" in told.text
        until(lambda: post.failed == 2 and post.now.in_work == 0)


def test_only_so_many_are_in_work_and_a_client_that_goes_makes_room():
    post, come, go = Post(), threading.Event(), threading.Event()

    def does(self: Behind, asked: dict[str, Any]) -> None:
        come.set()
        go.wait(20)
        self.say({})

    with behind(does) as process, front(post, at_once=1) as client:
        post.put(standing(process))
        with socket.create_connection((client.base_url.host, client.base_url.port)) as leaves:
            leaves.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: m\r\nContent-Length: 2\r\n\r\n{}")
            assert come.wait(20)
        patient = threading.Thread(target=lambda: client.post("/v1/completions", json={}))
        until(lambda: post.now.in_work == 0)
        patient.start()
        until(lambda: post.now.in_work == 1)
        late = client.post("/v1/completions", json={})
        assert late.status_code == 429 and late.headers["retry-after"]
        go.set()
        patient.join()
        assert client.post("/v1/completions", json={}).status_code == 200


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_without_the_key_only_health_is_told():
    with front(Post(), KEY) as client:
        assert client.get("/health").status_code == 503
        for given in ({}, {"authorization": KEY}, {"authorization": f"Bearer {KEY}x"}, {"authorization": "Bearer ü".encode()}):
            for answer in (client.get("/v1/models", headers=given), client.post("/v1/completions", json={}, headers=given)):
                assert answer.status_code == 401 and KEY not in answer.text
        assert client.get("/v1/models", headers={"authorization": f"Bearer {KEY}"}).status_code == 200


def test_who_is_relieved_ends_what_it_took_on():
    post = Post()
    old, new = standing(Process("")), standing(Process(""), "2")
    post.put(old)
    taken = post.take()
    assert taken is old and post.put(new) is old and post.take() is new
    assert post.drain(old, 0.05) == 1
    threading.Timer(0.1, lambda: post.give_back(old, well=True)).start()
    assert post.drain(old, 10) == 0 and new.in_work == 1


class Starting:
    """Starts what it is told to, or fails."""

    def __init__(self, *ends: Exception | None) -> None:
        self.ends, self.started = list(ends), []

    def start(self, place: Any, version: str) -> Any:
        return self._next(version)

    def again(self, ready: Any) -> Any:
        return self._next(ready.standing.version)

    def _next(self, version: str) -> Any:
        self.started.append(version)
        if self.ends and (error := self.ends.pop(0)):
            raise error
        return made(version)


def made(version: str) -> Any:
    return following.Ready(standing(Process(""), version), None, "float32", [], Proof(True, 3, 0.0, 0.02, "token ids", "equal"))


def watching(starting: Starting, target: Callable[[], Target] | None, done: Callable[[Watch], bool]) -> tuple[Watch, Post]:
    """Watch until something is so."""
    post, over = Post(), threading.Event()
    watch = Watch(post, starting, made("1"), target, 0.01, 1.0)
    watch.start()
    if target is None:
        watch.ready.standing.server.ended = "vLLM has ended: killed"
    beside = threading.Thread(target=watch.run, args=[over])
    beside.start()
    until(lambda: done(watch))
    over.set()
    beside.join()
    return watch, post


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(following, "PAUSE", 0.01)
    monkeypatch.setattr(following, "_AGAIN", (0.0, 0.01, 0.01))


def test_a_process_that_ended_is_started_again_and_not_for_ever():
    watch, post = watching(Starting(UserError("no memory")), None, lambda one: one.restarts == 1)
    assert watch.failure is None and watch.restarts == 1 and post.now is watch.ready.standing
    watch, post = watching(Starting(*[UserError("no memory")] * 3), None, lambda one: one.failure is not None)
    assert watch.failure and "no memory" in str(watch.failure) and post.now is None


def test_an_alias_is_followed_what_fails_stays_out_until_the_alias_moves_again():
    turns = iter(["2", "2", "3", "3", "3", "2", "3"])
    last = ["3"]

    def target() -> Target:
        last[0] = next(turns, last[0])
        return Target(last[0], lambda: Place("there", Path()))

    starting = Starting(None, OSError("no space left on device"), None)
    watch, post = watching(starting, target, lambda one: one.swaps == 2)
    assert starting.started == ["2", "3", "3"] and post.now.version == "3" and watch.swaps == 2
    assert [each["what"] for each in watch.events] == ["answers", "answers", "refused", "answers"]


def test_an_alias_or_a_record_that_is_gone_changes_nothing(capsys):
    errors, asked = iter([UserError("there is no alias"), UserError("there is no alias")]), list[int]()

    def target() -> Target:
        asked.append(1)
        raise next(errors, ConnectionError("no server"))

    watch, post = watching(Starting(), target, lambda one: len(asked) >= 6)
    assert post.now.version == "1" and watch.swaps == 0 and watch.failure is None
    said = capsys.readouterr()
    assert (said.out + said.err).count("there is no alias") == 1 and (said.out + said.err).count("no server") == 1


def test_a_slow_request_to_a_relieved_model_stops_neither_its_successors_watch_nor_the_end(monkeypatch):
    post, over, starting = Post(), threading.Event(), Starting()
    watch = Watch(post, starting, made("1"), lambda: Target("2" if post.now.version == "1" else "3", Path), 0.01, 20.0)
    watch.start()
    slow = post.take()
    beside = threading.Thread(target=watch.run, args=[over])
    beside.start()
    until(lambda: post.now.version == "2")
    post.now.server.ended = "vLLM has ended: killed"
    until(lambda: watch.restarts == 1)
    assert slow.in_work == 1 and starting.started == ["2", "2"], "no third model while two are in memory"
    post.give_back(slow, well=True)
    until(lambda: post.now.version == "3")
    over.set()
    beside.join()
    watch.finish()


def test_a_model_that_is_ready_only_after_the_end_takes_over_from_nobody():
    over, late = threading.Event(), made("2")
    closed: list[str] = []
    late.standing.stack.callback(closed.append, "2")

    class Slow(Starting):
        def start(self, place: Any, version: str) -> Any:
            over.set()
            return late

    post = Post()
    watch = Watch(post, Slow(), made("1"), lambda: Target("2", Path), 0.01, 1.0)
    watch.start()
    watch.run(over)
    assert closed == ["2"] and post.now.version == "1" and watch.swaps == 0


def test_a_port_that_was_taken_meanwhile_is_told_and_addresses_of_either_kind_are_written_rightly():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        starting: Any = SimpleNamespace(names=("shop",))
        service = Service(starting, Place("there", Path()), "", None, "127.0.0.1", port, "", 1, 1.0, 1.0, False)
        with pytest.raises(RequestError, match=f"127.0.0.1:{port} cannot be listened on"):
            service._serve(Post(), None)
    for host, address in (("::1", "[::1]"), ("::", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("localhost", "localhost")):
        assert replace(service, host=host, port=80).address == f"http://{address}:80/v1"
    with pytest.raises(RequestError, match=r"op.host: no.such.host is no address"):
        refuse_port("no.such.host", 80)


PLACES = [{"7": -0.1, "8": -0.11}, {"9": -0.5}]
WANTED = [Expected([{"role": "user", "content": "a"}], [4, 5], PLACES, [{"7": "x", "8": "y"}, {"9": "z"}])]


def told(tokens: list[int], logprobs: list[float], prompt: list[int] | None = None, **more: Any) -> dict[str, Any]:
    names = {7: "x", 8: "y", 9: "z", 1: "q"}
    content = [{"token": names[token], "logprob": each} for token, each in zip(tokens, logprobs, strict=True)]
    choice = {"logprobs": {"content": content}, "token_ids": tokens}
    return {"choices": [choice | more], "prompt_token_ids": prompt or [4, 5], "usage": {"prompt_tokens": len(prompt or [4, 5])}}


@pytest.mark.parametrize(
    ("answer", "passed", "why"),
    [
        (told([7, 9], [-0.1, -0.5]), True, "2 tokens of 1 answers differ by at most 0 nats"),
        (told([7, 9], [-0.1, -0.51]), True, "differ by at most 0.01 nats"),
        (told([8, 1], [-0.11, -3.0]), True, "1 tokens of 1 answers"),
        (told([7, 9], [-0.1, -0.6]), False, "differ by at most 0.1 nats, more than 0.02"),
        (told([7, 1], [-0.1, -0.5]), False, "token 2 of an answer is none that these weights would give"),
        (told([7, 9], [-0.1, -0.5], [4, 6]), False, "the conversation is written otherwise"),
        (told([7, 9], [-0.1, -0.5]) | {"prompt_token_ids": None}, True, "2 tokens"),
        (told([7, 9], [-0.1, -0.5], token_ids=None), True, "2 tokens"),
        (told([7, 9], [float("nan"), -0.5]), False, "no number"),
        (told([], []), False, "it answered nothing"),
    ],
)
def test_a_server_is_known_by_its_log_probabilities(answer, passed, why):
    with behind(lambda self, asked: self.say(answer)) as process:
        proof = proven(f"{process.address}/v1", "shop", WANTED, 0.02, key=KEY)
    assert proof.passed is passed and why in proof.why


def test_a_server_that_tells_none_is_no_proof():
    answer = told([7, 9], [-0.1, -0.5]) | {"choices": [{"logprobs": None}]}
    with behind(lambda self, asked: self.say(answer)) as process, pytest.raises(UserError, match="tells no log-probabilities"):
        proven(f"{process.address}/v1", "shop", WANTED, 0.02, key=KEY)


def test_the_first_model_of_a_server_is_asked_and_refusals_name_the_probes_settings(monkeypatch):
    monkeypatch.setenv("RIGHT_KEY", KEY)
    monkeypatch.setenv("WRONG_KEY", "x")
    with behind(lambda self, asked: None) as process:
        assert first(f"{process.address}/v1", "RIGHT_KEY") == "shop"
        with pytest.raises(UserError, match=r"check the key in op.api_key_env \(WRONG_KEY\)"):
            first(f"{process.address}/v1", "WRONG_KEY")
        with pytest.raises(UserError, match=r"lists no models; name one: op.served_as=NAME"):
            first(f"{process.address}/none", "RIGHT_KEY")
