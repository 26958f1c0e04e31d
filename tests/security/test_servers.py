"""What listens: on this machine alone unless told, behind a key that no clock gives away, and for no more than it can bear."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import json
import resource
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

import mlops_llm
from mlops_llm.inference import connection, hf_server, protocol
from mlops_llm.registry.serving import front as front_module
from mlops_llm.registry.serving import service
from mlops_llm.registry.serving.front import Front
from mlops_llm.registry.serving.standing import Post

ROOT = Path(mlops_llm.__file__).parent
REPOSITORY = ROOT.parents[1]
EXAMPLE = REPOSITORY / "projects/rlhf/reward_server.py"
LISTENING = {
    "inference/hf_server.py": "the backend of op=serve and of evaluations; --host comes from inference/server.py",
    "inference/llamacpp.py": "llama.cpp within this process",
    "inference/server.py": "starts hf_server and vLLM with --host 127.0.0.1 and a key of its own",
    "ports.py": "looks for a free port, and closes it",
    "registry/serving/service.py": "the front of op=serve: op.host, which needs a key unless it is the loopback",
    "registry/deploying/readme.py": "words of a README: --host 127.0.0.1",
    "registry/deploying/servers.py": "words of scripts: the loopback alone",
    "train/elastic.py": "torch's stores",
    "train/example_server.py": "the example reward server within this process",
    "launch/ssh/begin.py": "looks for a free port of the loopback there, and closes it",
    "tracking/door.py": "the record for a run elsewhere: the loopback, and who has its certificate (test_launch_ssh)",
    "train/door.py": "a socket in a folder of this user; for several machines a port, and who knows the token (test_relay)",
}
"""Every file in which something listens, or a command is made that does."""
_SIGNS = ("HTTPServer(", ".bind(", "uvicorn.run(", "uvicorn.Config(", '"--host"', "--host ", "Server(params", "start_server(")


def sources() -> Iterator[tuple[str, str]]:
    for each in sorted(ROOT.rglob("*.py")):
        yield str(each.relative_to(ROOT)), each.read_text("utf-8")


def test_everything_that_listens_is_known() -> None:
    found = {name for name, text in sources() if any(sign in text for sign in _SIGNS)}
    assert found <= LISTENING.keys(), f"say in LISTENING where it listens, and test it: {found - LISTENING.keys()}"


WITHIN = {
    "registry/deploying/servers.py": "within a container, whose port is published at the loopback alone",
    "launch/ssh/route.py": "how one asks oneself for a record whose address names all of them",
    "registry/serving/service.py": "how one asks oneself where op.host is all of them",
}
"""Where all interfaces are named, and why that opens nothing."""


def test_no_address_of_all_interfaces_is_a_default() -> None:
    texts = [*sources(), ("reward_server", EXAMPLE.read_text())]
    assert {name for name, text in texts if '"0.0.0.0"' in text or "'0.0.0.0'" in text} == WITHIN.keys()
    made = (ROOT / "registry/deploying/servers.py").read_text()
    assert '- "127.0.0.1:${{SERVE_PORT' in made and "host=${{SERVE_HOST:-127.0.0.1}}" in made and "-p 127.0.0.1:" in made


def test_keys_are_compared_in_constant_time() -> None:
    for name, text in [*sources(), ("reward_server", EXAMPLE.read_text())]:
        for each in ast.walk(ast.parse(text)):
            if isinstance(each, ast.Compare):
                said = ast.unparse(each).lower()
                secret = any(word in said for word in ("authorization", "bearer", "self._key", "self.key"))
                assert not secret or not any(isinstance(one, ast.Eq | ast.NotEq) for one in each.ops), f"{name}: {said}"


def example() -> Any:
    spec = importlib.util.spec_from_file_location("reward_server_of_security", EXAMPLE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_reward_server_is_open_to_nobody_else_without_a_key() -> None:
    done = subprocess.run([sys.executable, "-S", EXAMPLE, "--host", "0.0.0.0", "--port", "0"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: --host: 0.0.0.0") and len(done.stderr.splitlines()) == 1


def test_the_example_reward_server_says_when_it_has_no_room() -> None:
    module = example()
    server = ThreadingHTTPServer(("127.0.0.1", 0), module.Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/rewards"
    body = json.dumps({"prompts": ["a"], "completions": ["b"]}).encode()
    try:
        for _ in range(module.AT_ONCE):
            assert module.Handler.room.acquire(blocking=False)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(address, body, timeout=5)
        assert caught.value.code == 503 and caught.value.headers["Retry-After"] == "1"
        caught.value.close()
        for _ in range(module.AT_ONCE):
            module.Handler.room.release()
        for _ in range(module.AT_ONCE + 3):
            with urllib.request.urlopen(address, body, timeout=5) as answer:
                assert len(json.load(answer)["rewards"]) == 1
    finally:
        server.shutdown()
        server.server_close()


def test_who_sends_too_slowly_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_module, "_PATIENCE", 0.05)
    front = Front(Post(), ["m"], "", 1)

    async def slow() -> Any:
        yield b'{"model"'
        await asyncio.sleep(60)

    async def asked() -> tuple[int, int, int]:
        client = httpx.AsyncClient(transport=httpx.ASGITransport(front.application()), base_url="http://m")
        async with client:
            first = await client.post("/v1/chat/completions", content=slow())
            again = await client.post("/v1/chat/completions", json={})
            large = await client.post("/v1/chat/completions", content=b" " * (2**22 + 1))
        return first.status_code, again.status_code, large.status_code

    assert asyncio.run(asked()) == (408, 503, 413)


WHOLE = b"GET /v1/models HTTP/1.1\r\nHost: m\r\n\r\n"


@pytest.mark.parametrize("said", [[], [WHOLE[:-2]], [WHOLE, b"GET"]], ids=["nothing", "half a head", "another half"])
def test_who_says_nothing_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch, said: list[bytes]) -> None:
    """Uvicorn counts such connections and closes none of them."""
    monkeypatch.setattr(connection, "PATIENCE", 2)
    with serving(Front(Post(), ["m"], "", 1).application(), 50, monkeypatch) as address, ExitStack() as silent:
        there = []
        for _ in range(6):
            there.append(silent.enter_context(socket.create_connection(address, 20)))
            for part in said:
                there[-1].sendall(part)
                if part == WHOLE:
                    assert there[-1].recv(4096).startswith(b"HTTP/1.1 200")
        assert all(ended(one, 20) for one in there), "though there was room"
        again = silent.enter_context(socket.create_connection(address, 20))
        again.sendall(WHOLE + WHOLE)
        assert again.recv(4096).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("said", [b"", WHOLE[:-2], WHOLE + b"GET"], ids=["nothing", "half a head", "another half"])
def test_who_opens_connections_anew_and_asks_nothing_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """The oldest one without a request leaves for a new one; one that is being answered does not."""
    go, answered = threading.Event(), list[str]()

    async def held(request: Any) -> PlainTextResponse:
        answered.append("begun")
        await asyncio.to_thread(go.wait, 20)
        return PlainTextResponse("held")

    application = Starlette(routes=[Route("/held", held), Route("/v1/models", lambda request: PlainTextResponse("m"))])
    with serving(application, 5, monkeypatch) as address, ExitStack() as open_ones:
        asking = open_ones.enter_context(socket.create_connection(address, 20))
        asking.sendall(b"GET /held HTTP/1.1\r\nHost: m\r\n\r\n")
        until = time.monotonic() + 20
        while not answered and time.monotonic() < until:
            time.sleep(0.01)
        silent = []
        for _ in range(12):
            silent.append(open_ones.enter_context(socket.create_connection(address, 20)))
            silent[-1].sendall(said)
            if said.startswith(WHOLE):
                assert silent[-1].recv(4096).startswith(b"HTTP/1.1 200")
            with socket.create_connection(address, connection.PATIENCE / 2) as other:
                other.sendall(WHOLE)
                assert other.recv(4096).startswith(b"HTTP/1.1 200")
        assert ended(silent[0], 20) and not ended(silent[-1], 0.2)
        go.set()
        assert asking.recv(4096).startswith(b"HTTP/1.1 200")


def ended(one: socket.socket, patience: float) -> bool:
    """Whether the other side ends a connection."""
    one.settimeout(patience)
    try:
        while one.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        pass
    return True


def test_who_does_not_read_an_answer_keeps_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READING", 0.2)
    left = threading.Event()

    async def endless() -> Any:
        try:
            while True:
                await asyncio.sleep(0)
                yield b"x" * 2**16
        finally:
            left.set()

    application = Starlette(routes=[Route("/", lambda request: StreamingResponse(endless()))])
    with serving(application, 5, monkeypatch) as address, socket.create_connection(address, 20) as one:
        one.sendall(b"GET / HTTP/1.1\r\nHost: m\r\n\r\n")
        assert left.wait(20)
        assert ended(one, 20)


def test_who_reads_on_is_waited_for() -> None:
    told, flow = list[str](), SimpleNamespace(pause_writing=lambda: None, resume_writing=lambda: None)
    one = object.__new__(connection.Connection)
    one.flow, one.transport = flow, SimpleNamespace(abort=lambda: told.append("ended"))
    one.loop = SimpleNamespace(
        call_later=lambda seconds, what: SimpleNamespace(cancel=lambda: told.append(f"not in {seconds:g}"))
    )
    one.pause_writing()
    assert told == []
    one.resume_writing()
    assert told == ["not in 60"]


@pytest.mark.parametrize(
    ("limits", "at_once", "room", "raised"),
    [
        ((1024, 2**20), 256, 1024, 1024 + 256 + 128),
        ((1024, 1200), 256, 1200 - 256 - 128, 1200),
        ((1024, 1024), 2, 1024 - 2 - 128, 1024),
        ((2**20, 2**20), 2000, 4000, None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 256, 1024, None),
        ((1024, 1024), 10**6, (1024 - 128) // 2, 1024),
        ((64, 64), 256, 2, 64),
    ],
)
def test_there_are_no_more_connections_than_files(
    limits: tuple[int, int], at_once: int, room: int, raised: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system has none left, nobody is let in, and the model's own process is not reached."""
    told = list[int]()
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda which, both: told.append(both[0]))
    assert service._room(at_once) == room and told == ([raised] if raised else [])


@contextmanager
def serving(application: Any, connections: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """Where an application is served for so many connections."""
    monkeypatch.setattr(service._Server, "capture_signals", lambda self: nullcontext())  # of the main thread alone
    with socket.create_server(("127.0.0.1", 0)) as door:
        server = service._Server(application, *door.getsockname(), connections)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[door])), daemon=True)
        thread.start()
        try:
            yield door.getsockname()
        finally:
            server.should_exit = True
            thread.join()


def test_one_request_asks_for_no_more_than_so_many_answers() -> None:
    class Never:
        def __len__(self) -> int:
            return 9

    answers = hf_server.Answers(None, Never(), 16, ["m"])  # type: ignore[arg-type]

    async def asked(count: int, n: int) -> httpx.Response:
        transport = httpx.ASGITransport(answers.application(""))
        async with httpx.AsyncClient(transport=transport, base_url="http://m") as client:
            return await client.post("/v1/completions", json={"prompt": ["a"] * count, "n": n})

    for count, n in ((protocol.ANSWERS + 1, 1), (100, 16)):
        found = asyncio.run(asked(count, n))
        assert found.status_code == 400 and "answers are wanted at once" in found.json()["error"]["message"]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"messages": [], "n": 16_384}, "answers are wanted"),
        ({"prompt": "a", "best_of": 513}, "answers are wanted"),
        ({"prompt": [[1]] * 513}, "answers are wanted"),
        ({"prompt": ["a"] * 100, "n": 6}, "answers are wanted"),
        ({"prompt": [[1], "a", 2] * 200}, "answers are wanted"),
        ({"prompt": "a", "n": "16384"}, "n is no whole number"),
        ({"prompt": "a", "n": 1e4}, "n is no whole number"),
        ({"messages": [], "n": True}, "n is no whole number"),
        ({"prompt": [1] * 4000, "n": 512}, None),
        ({"prompt": ["a"] * 512}, None),
        ({"messages": [], "n": None}, None),
    ],
)
def test_the_front_asks_no_backend_for_more_than_so_many_answers(told: dict[str, Any], said: str | None) -> None:
    """Whichever engine is behind: vLLM's own bound is 16,384 answers to each of a million prompts."""
    front = Front(Post(), ["m"], "", 1)

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(front.application())
        async with httpx.AsyncClient(transport=transport, base_url="http://m") as client:
            return await client.post("/v1/completions", json=told)

    found = asyncio.run(asked())
    assert found.status_code == (400 if said else 503)  # 503: it would have been passed on, and nobody is behind
    assert (said or "is being started") in found.json()["error"]["message"]
