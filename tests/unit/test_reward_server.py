"""The example of a reward server, as a real process and as a function."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.errors import UserError
from mlops_llm.train.reward import Answers
from mlops_llm.train.rewards.http import Http

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "projects/rlhf/reward_server.py"
KEY = "sk-of-the-example"
GOOD = ("吹风机全国联保吗", "您好，吹风机全国联保，请放心。")


def imported() -> Any:
    spec = importlib.util.spec_from_file_location("reward_server", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


server = imported()


def started(*arguments: str) -> tuple[subprocess.Popen, str]:
    environment = {"PATH": os.environ["PATH"], "EXAMPLE_KEY": KEY, "PYTHONPATH": ""}
    process = subprocess.Popen(
        [sys.executable, "-S", FILE, "--port", "0", *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout
    return process, process.stdout.readline().strip()


@pytest.fixture(scope="module")
def addresses() -> Iterator[tuple[str, str]]:
    """One that is open, and one that wants a key."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            patch.delenv(name, raising=False)
        patch.setenv("EXAMPLE_KEY", KEY)
        found = [started(), started("--key-env", "EXAMPLE_KEY")]
        yield found[0][1], found[1][1]
        for process, _ in found:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            assert process.stdout and process.stdout.read() == ""


def post(address: str, body: bytes, **headers: str) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_reward_asks_it(addresses):
    answers = Answers([[{"role": "user", "content": GOOD[0]}]] * 2, [GOOD[1], ""], [{}] * 2)
    reward = Http(url=addresses[0], least=0, most=1)
    assert reward.score(answers) == server.rewards([GOOD[0]] * 2, [GOOD[1], ""]) == [1.0, 0.0]


def test_messages_are_understood(addresses):
    prompt = [{"role": "system", "content": "短"}, {"role": "user", "content": GOOD[0]}]
    body = json.dumps({"prompts": [prompt, GOOD[0]], "completions": [GOOD[1]] * 2}).encode()
    assert post(addresses[0], body) == (200, {"rewards": [1.0, 1.0]})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff", "no JSON"),
        (b"[]", "no JSON"),
        (b"{}", "'prompts' is no list"),
        (b'{"prompts": [], "completions": "a"}', "'completions' is no list"),
        (b'{"prompts": ["a"], "completions": []}', "1 prompts and 0 completions"),
        (b'{"prompts": [1], "completions": ["a"]}', "prompt 0"),
        (b'{"prompts": [["a"]], "completions": ["a"]}', "prompt 0"),
        (b'{"prompts": ["a"], "completions": [null]}', "completion 0"),
    ],
)
def test_a_bad_body_is_told(addresses, body, said):
    code, answer = post(addresses[0], body)
    assert code == 400
    assert said in answer["error"]


def test_a_body_without_a_length_or_too_long_is_refused(addresses):
    host, port = addresses[0].removeprefix("http://").partition("/")[0].split(":")
    for length in (b"", b"Content-Length: -1\r\n", b"Content-Length: 99999999999\r\n"):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(b"POST /rewards HTTP/1.0\r\n" + length + b"\r\n")
            assert connection.makefile("rb").readline().split()[1] == b"400"


def test_another_path_is_told(addresses):
    assert post(addresses[0].replace("/rewards", "/reward"), b"{}")[0] == 404


def test_a_wrong_key_is_refused(addresses):
    body = json.dumps({"prompts": [GOOD[0]], "completions": [GOOD[1]]}).encode()
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}):
        assert post(addresses[1], body, **headers)[0] == 401
    assert post(addresses[1], body, Authorization=f"Bearer {KEY}") == (200, {"rewards": [1.0]})
    answers = Answers([[{"role": "user", "content": GOOD[0]}]], [GOOD[1]], [{}])
    assert Http(url=addresses[1], api_key_env="EXAMPLE_KEY").score(answers) == [1.0]
    with pytest.raises(UserError, match="HTTP 401"):
        Http(url=addresses[1]).score(answers)


def test_what_keeps_it_from_starting_is_one_line(addresses):
    port = addresses[0].rpartition(":")[2].partition("/")[0]
    for arguments, said in ((["--port", port], "another --port"), (["--key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY is not set")):
        done = subprocess.run([sys.executable, "-S", FILE, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert said in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("asked", "better", "worse"),
    [
        ("微波炉是正品吗？", "您好，微波炉是正品，请放心。", "是的，微波炉是正品。"),
        ("微波炉是正品吗？", "您好，微波炉是正品，请放心。", "您好，请放心。"),
        ("微波炉是正品吗？", "您好，请放心。", "不知道"),
        ("微波炉是正品吗？", "微波炉是正品。", "闭嘴，请您自己看微波炉的页面。"),
        ("微波炉是正品吗？", "微波炉是正品。", "微波炉是正品吗？"),
        ("微波炉是正品吗？", "您好，微波炉是正品，请放心。", "您好，微波炉是正品，请放心。" * 12),
        ("Is it new?", "Yes, it is new, thank you. You are welcome!", "Yes."),
    ],
)
def test_what_is_better_has_more(asked, better, worse):
    more, less = server.rewards([asked, asked], [better, worse])
    assert more > less


@given(st.text(max_size=20), st.text(max_size=300))
def test_rewards_are_from_0_to_1(asked, answer):
    (found,) = server.rewards([asked], [answer])
    assert 0 <= found <= 1


def test_answers_to_the_dataset_can_have_every_reward():
    rows = json.loads((ROOT / "datasets/ppo_general.json").read_text("utf-8"))
    prompts = [row["prompt"] for row in rows]
    good = server.rewards(prompts, [f"您好，{prompt[1:]}，请稍等。" for prompt in prompts])
    assert min(good) == 1.0
    assert max(server.rewards(prompts, prompts)) < 0.7
