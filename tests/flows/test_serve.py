"""A model is served by a command: real clients, a promotion under load, models that fail."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any
from unittest import mock

import openai
import psutil
import pytest

from mlops_llm.inference import protocol
from mlops_llm.inference.engine import Care, Generation, Request, Sampling
from mlops_llm.inference.engines.hf import Hf
from mlops_llm.models import load
from mlops_llm.models.load import ModelLoad
from mlops_llm.models.ref import Place
from mlops_llm.tracking.store import local_path
from tests.commands import start, wait_for
from tests.ports import own_port
from tests.processes import told
from tests.record import checkpoints_of, client, run_of
from tests.security.canaries import Watch, found_in
from tests.security.sockets import heard_by
from tests.surgeries import command

KEY = "kept-from-all-logs"
ASKED = [{"role": "user", "content": "你们几点开门？"}]


def registry(folder: Path, *words: str, code: int = 0) -> str:
    return command(folder, *words, code=code, stage="registry")


def promoted(folder: Path, name: str, model: str) -> None:
    registry(folder, "op=promote", f"name={name}", f"model={model}", "op.force=true", "op.reason=a test")


class Served:
    """A server that runs."""

    def __init__(self, folder: Path, run: str, port: int, pid: int) -> None:
        self.folder, self.run, self.address, self.pid = folder, run, f"http://127.0.0.1:{port}", pid

    def client(self, key: str = KEY) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.address}/v1", api_key=key, max_retries=0)

    def health(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.address}/health") as answer:
            return dict(json.loads(answer.read()))

    @property
    def log(self) -> str:
        file = self.folder / "outputs" / self.run / "registry.log"
        return file.read_text("utf-8") if file.is_file() else ""

    @property
    def result(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "outputs" / self.run / "result.json").read_text("utf-8")))


@contextmanager
def served(folder: Path, run: str, *words: str) -> Iterator[tuple[Served, Callable[[Callable[[], bool]], None]]]:
    """Start a server, and end it by Ctrl-C; also gives a function that waits for something while it runs."""
    port = own_port()
    process = start(folder, "op=serve", f"op.port={port}", f"run_name={run}", *words, stage="registry")
    one = Served(folder, run, port, process.pid)
    try:
        wait_for(lambda: "answers at" in one.log, process)
        yield one, lambda condition: wait_for(condition, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
        assert "Traceback" not in out + err and KEY not in out + err
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def answer(model: Path, messages: list[dict[str, str]], most: int) -> str:
    """What a model answers, always taking the likeliest token, as evaluations ask it."""
    files = load.inspect(Place("there", model), ModelLoad())
    tokenizer = load.tokenizer_of(files)
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    with Hf().open(files, ModelLoad(), tokenizer, files.window) as session:
        ((_, said),) = session.generate([Request(0, messages, text, 0)], Sampling(1, most, 0.0), Care())
    assert isinstance(said, Generation)
    return said.text


def test_a_real_client_is_answered_as_evaluations_are(own, monkeypatch):
    monkeypatch.setenv("MLOPS_LLM_SALES_KEY", KEY)
    model = checkpoints_of(client(own), run_of(client(own), "mine"))["checkpoint-6"]
    wanted = answer(local_path(model.artifact_location), ASKED, 12)
    words = ["model=runs:/mine/checkpoint-6", "name=sales", "op.api_key_env=MLOPS_LLM_SALES_KEY"]
    with Watch({"key": KEY}) as watch, served(own, "shop", *words) as (shop, _):
        asks = shop.client()
        assert [each.id for each in asks.models.list()] == ["sales", "runs:/mine/checkpoint-6"]
        assert asks.models.retrieve("sales").weights == model.tags["digest.weights"]
        same: dict[str, Any] = {"model": "sales", "messages": ASKED, "max_tokens": 12, "temperature": 0}
        whole = asks.chat.completions.create(**same, logprobs=True, top_logprobs=3)
        choice = whole.choices[0]
        assert choice.message.content == wanted and choice.finish_reason in ("stop", "length")
        assert whole.usage.completion_tokens == len(choice.logprobs.content) <= 12
        assert all(each.top_logprobs[0].logprob == each.logprob <= 0 for each in choice.logprobs.content)
        pieces = list(asks.chat.completions.create(**same, stream=True, stream_options={"include_usage": True}))
        assert "".join(each.choices[0].delta.content or "" for each in pieces if each.choices) == wanted
        assert pieces[-1].usage == whole.usage
        drawn = {"model": "sales", "prompt": "产品", "max_tokens": 8, "temperature": 1, "seed": 3}
        texts = [[each.text for each in asks.completions.create(**drawn, n=2).choices] for _ in range(2)]
        assert texts[0] == texts[1] and texts[0][0] != texts[0][1]
        stop = wanted[3:5]
        assert asks.chat.completions.create(**same, stop=[stop]).choices[0].message.content == wanted[: wanted.index(stop)]
        for wrong, status, said in (
            ({"model": "sale"}, 404, "no model 'sale' here; it is called sales"),
            ({"temperature": 9}, 400, "temperature"),
            ({"messages": []}, 400, "messages"),
            ({"messages": [{"role": "user", "content": "长" * 5000}]}, 400, "context length"),
            ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, 400, "no text"),
            ({"tools": [{"type": "function", "function": {"name": "a"}}]}, 400, "engine=vllm"),
        ):
            with pytest.raises(openai.APIStatusError) as refused:
                asks.chat.completions.create(**{**same, **wrong})
            assert refused.value.status_code == status and said in refused.value.message
        for key in ("", "x", f"{KEY}x"):
            with pytest.raises(openai.AuthenticationError):
                shop.client(key or "none").models.list()
        with pytest.raises(openai.APIStatusError) as refused:
            asks.chat.completions.create(**{**same, "messages": [{"role": "user", "content": "x" * protocol.LARGEST}]})
        assert refused.value.status_code == 413
        assert shop.health()["status"] == "ok" and shop.health()["in_work"] == 0
        assert heard_by([shop.pid]) == {"127.0.0.1"}
        child = _behind(shop, "runs:/mine/checkpoint-6")
        assert KEY not in " ".join(child.cmdline())
    assert not psutil.pid_exists(child.pid), "nothing is left behind"
    told, run = shop.result, run_of(client(own), "shop")
    assert told["probe"]["passed"] and told["probe"]["largest"] < 1e-3 and told["probe"]["template"] == "token ids"
    assert run.info.status == "FINISHED" and run.data.tags["digest.weights"] == model.tags["digest.weights"]
    assert told["answered"] >= 6 and told["failed"] == 0
    assert watch.rounds > 20 and not watch.seen
    written = [each for each in own.rglob("*") if each.is_file() and each.suffix != ".safetensors"]
    assert not [each for each in written if [*found_in(each.read_bytes(), {"key": KEY})]]


def _behind(shop: Served, name: str) -> psutil.Process:
    """The process of the model behind a server."""
    below = {each: told(each.cmdline) or [] for each in psutil.Process(shop.pid).children(recursive=True)}
    serve = {each: words for each, words in below.items() if "mlops_llm.inference.hf_server" in words and name in words}
    (child,) = [each for each, words in serve.items() if "guard.py" not in " ".join(words)]
    return child


def test_a_served_alias_is_followed_under_load_and_what_fails_stays_out(own):
    promoted(own, "shop", "runs:/mine/checkpoint-2")
    words = ["model=models:/shop@champion", "op.follow=true", "op.every=0.3"]
    with served(own, "following", *words) as (shop, until):
        over, seen, wrong = Event(), [set[str]() for _ in range(8)], list[Exception]()

        def ask(number: int) -> None:
            asks = shop.client().chat.completions.with_raw_response
            while not over.wait(0.25) and not wrong:  # the next model needs a core too
                try:
                    got = asks.create(model="shop", messages=ASKED, max_tokens=4 + number, stream=number % 2 == 0)
                    got.http_response.read()
                    assert got.http_response.status_code == 200
                    seen[number].add(got.headers["x-model-version"])
                except Exception as error:
                    wrong.append(error)

        clients = [Thread(target=ask, args=[number], daemon=True) for number in range(8)]
        for each in clients:
            each.start()
        until(lambda: wrong or all(seen))
        promoted(own, "shop", "runs:/mine/checkpoint-6")
        until(lambda: wrong or all("2" in each for each in seen))
        store = client(own)
        folder = local_path(checkpoints_of(store, run_of(store, "mine"))["checkpoint-4"].artifact_location)
        with mock.patch.dict(os.environ, MLFLOW_TRACKING_URI=f"sqlite:///{own / 'mlflow.db'}"):  # where MLflow looks for it
            version = store.create_model_version("shop", f"models:/{_id(store, 'checkpoint-4')}").version
        shutil.move(folder, folder.with_name("away"))
        store.set_registered_model_alias("shop", "champion", version)
        until(lambda: f"version {version} stays out" in shop.log)
        shutil.move(folder.with_name("away"), folder)
        store.set_registered_model_alias("shop", "champion", "2")
        over.set()
        for each in clients:
            each.join()
        assert not wrong and all(each == {"1", "2"} for each in seen)
        assert shop.health()["version"] == "2" and shop.health()["failed"] == 0
        os.kill(_behind(shop, "models:/shop@champion").pid, signal.SIGKILL)
        until(lambda: shop.log.count("starting it again") == 1 and _answers(shop))
    told = shop.result
    assert told["swaps"] == 1 and told["restarts"] == 1 and told["version"] == "2"
    assert [each["what"] for each in told["events"]] == ["answers", "answers", "refused", "ended", "answers"]


def _id(store: Any, name: str) -> str:
    return str(checkpoints_of(store, run_of(store, "mine"))[name].model_id)


def _answers(shop: Served) -> bool:
    try:
        return bool(shop.client().chat.completions.create(model="shop", messages=ASKED, max_tokens=2).choices)
    except openai.APIStatusError as error:
        assert error.status_code in (502, 503)
        return False


def test_bad_requests_are_one_line(own):
    promoted(own, "gone", "runs:/mine/checkpoint-4")
    promoted(own, "gone", "runs:/mine/checkpoint-2")
    store = client(own)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for words, error in (
            (["model=models:/gone@chempion"], r"'gone' has no alias 'chempion'; it has: champion, previous"),
            (["model=models:/gone@champion", f"op.port={port}"], rf"op.port: 127.0.0.1:{port} cannot be listened on"),
            (["model=models:/gone/1", "op.follow=true"], "op.follow: follows models:/gone/1, which is no alias"),
            (["model=tiny", "op.host=0.0.0.0"], "op.host: listens on 0.0.0.0, where others can ask, without a key"),
            (["model=tiny", "op.api_key_env=NOT_THERE"], "op.api_key_env: the environment variable NOT_THERE is not set"),
            (["model=tiny", "engine=openai"], "engine: openai cannot be served here"),
            (["model=tiny", "op.port=0"], "op.port: is 0"),
        ):
            said = registry(own, "op=serve", *words, code=2)
            assert re.search(error, said) and len(said.splitlines()) == 1, said
    store.delete_model_version("gone", "1")
    assert "'gone' has no version '1'; it has versions: 2" in registry(own, "op=serve", "model=models:/gone/1", code=2)
    folder = local_path(checkpoints_of(store, run_of(store, "mine"))["checkpoint-2"].artifact_location)
    shutil.move(folder, folder.with_name("away"))
    try:
        said = registry(own, "op=serve", "model=models:/gone@champion", code=2)
        assert len(said.splitlines()) == 1 and "gone" in said
    finally:
        shutil.move(folder.with_name("away"), folder)
