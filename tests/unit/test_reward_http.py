"""Against a real HTTP server on the loopback that misbehaves on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm import console
from mlops_llm.endpoint import LONGEST_WAIT, Endpoint
from mlops_llm.errors import UserError
from mlops_llm.train.reward import Answers
from mlops_llm.train.rewards import http as module
from mlops_llm.train.rewards.http import Http, OnFailure
from tests.waiting import WaitingHandler, WaitingServer

KEY = "sk-very-secret"
BEGINNING = "sk-v"
"""Of the key: what is cut off in the middle of it shows it as well."""


class Faulty(WaitingServer):
    """Plays its faults one a call, then answers with the length of each completion."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[str] = []
        self.always = ""
        self.calls: list[dict] = []
        self.keys: list[str | None] = []
        self.meet: threading.Barrier | None = None
        self.lock = threading.Lock()
        self.now = self.most = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/rewards"

    def handle_error(self, *_) -> None:
        pass


class Handler(WaitingHandler):
    server: Faulty

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self.server.calls.append({"path": self.path})
        self.send_error(404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.calls.append({"path": self.path, **body})
            self.server.keys.append(self.headers.get("authorization"))
            fault = self.server.faults.pop(0) if self.server.faults else self.server.always
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            if self.server.meet:
                self.server.meet.wait(5)
            self.play(fault, body["completions"])
        finally:
            with self.server.lock:
                self.server.now -= 1

    def play(self, fault: str, completions: list[str]) -> None:
        refusals = {"poison": "400", "barred": "401"}
        fault = next((refusals[each] for each in completions if each in refusals), fault)
        rewards = [len(each) for each in completions]
        if fault.isdigit():
            self.reply(int(fault), json.dumps({"error": {"message": f"no: {'x' * 138} {KEY} {'x' * 1000}"}}))
        elif fault.startswith("wait "):
            self.reply(429, "{}", {"retry-after": fault[5:]})
        elif fault == "quota":
            self.reply(429, json.dumps({"error": {"code": "insufficient_quota", "message": "pay first"}}))
        elif fault == "moved":
            self.reply(307, "", {"location": "/elsewhere"})
        elif fault == "html":
            self.reply(200, f"<html>sign in{' ' * 3}{'x' * 56}{KEY}</html>")
        elif fault == "silent":
            self.keep_waiting(drips=False)
        elif fault in ("dripping", "dripping refusal"):
            self.send_response(200 if fault == "dripping" else 400)
            self.end_headers()
            self.keep_waiting(drips=True)
        elif fault == "hanging up":
            self.connection.close()
        elif fault == "no HTTP":
            self.wfile.write(f"{KEY}\r\n".encode())
        elif fault == "cut off":
            self.send_response(200)
            self.send_header("content-length", "9999")
            self.end_headers()
            self.wfile.write(b'{"rewards": [')
        elif fault == "huge":
            self.reply(200, " " * (2**24 + 1))
        elif fault in ("[]", "{}", '{"scores": [1]}', '{"rewards": 1}', "[" * 100_000):
            self.reply(200, fault)
        else:
            values = {
                "one less": rewards[:-1],
                "one more": [*rewards, 1],
                "nan": [float("nan"), *rewards[1:]],
                "inf": [float("-inf"), *rewards[1:]],
                "vast": [10**400, *rewards[1:]],
                "null": [None, *rewards[1:]],
                "text": [KEY, *rewards[1:]],
                "bool": [True, *rewards[1:]],
                "list": [[KEY], *rewards[1:]],
                "all null": [None] * len(rewards),
                "last null": [*rewards[:-1], None],
            }
            self.reply(200, json.dumps({"rewards": values.get(fault, rewards)}))

    def reply(self, code: int, text: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        body = text.encode()
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            patch.delenv(name, raising=False)
        patch.setenv("TEST_KEY", KEY)
        yield


def served() -> Iterator[Faulty]:
    with Faulty() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def faulty() -> Iterator[Faulty]:
    yield from served()


@pytest.fixture(scope="module")
def shared() -> Iterator[Faulty]:
    """One that never fails, for many examples."""
    yield from served()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(Endpoint, "pause", lambda _, seconds: found.append(seconds))
    return found


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(console, "warn", found.append)
    return found


def turn(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def answers(*completions: str, prompt: str = "问") -> Answers:
    return Answers([turn(prompt)] * len(completions), completions, [{}] * len(completions))


def reward(faulty: Faulty, **how) -> Http:
    return Http(**{"url": faulty.address, "api_key_env": "TEST_KEY", "on_failure": OnFailure.stop, **how})


def refused(faulty: Faulty, *completions: str, **how) -> str:
    with pytest.raises(UserError) as caught:
        reward(faulty, **how).score(answers(*(completions or ("a", "bbb", "cc"))))
    return line(faulty, caught.value)


def line(faulty: Faulty, error: UserError) -> str:
    said = str(error)
    assert faulty.address in said
    assert BEGINNING not in said
    assert "\n" not in said
    assert len(said) < 400
    return said


def test_what_is_sent_and_what_comes_back(faulty):
    prompts = [turn("一"), [{"role": "system", "content": "短"}, *turn("二")], [{"role": "assistant", "content": "三"}]]
    found = reward(faulty).score(Answers(prompts, ["a", "bbb", ""], [{}] * 3))
    assert found == [1.0, 3.0, 0.0]
    assert faulty.calls == [{"path": "/rewards", "prompts": ["一", *prompts[1:]], "completions": ["a", "bbb", ""]}]
    assert faulty.keys == [f"Bearer {KEY}"]


def test_without_a_key_none_is_sent(faulty):
    assert reward(faulty, api_key_env=None).score(answers("a")) == [1.0]
    assert faulty.keys == [None]


def test_characters_that_no_file_could_hold_are_sent(faulty):
    assert reward(faulty).score(answers("\ud800", "\x00", "\u2028")) == [1, 1, 1]


def test_batches_are_asked_at_the_same_time_and_no_more_of_them_than_allowed(faulty):
    faulty.meet = threading.Barrier(4)  # four calls must be there together, or none goes on
    found = reward(faulty, batch_size=8, concurrency=4).score(answers(*("x" * each for each in range(64))))
    assert found == list(range(64))
    assert [len(call["prompts"]) for call in faulty.calls] == [8] * 8
    assert faulty.most == 4


@given(st.lists(st.sampled_from(["", "a", "bb", "ccc", "dddd"]), max_size=12), st.integers(1, 5), st.integers(1, 3))
def test_order_batches_and_cache_never_change_rewards(shared, completions, size, concurrency):
    for cache in (True, False):
        one = Http(url=shared.address, batch_size=size, concurrency=concurrency, cache=cache)
        for _ in range(2):
            assert one.score(answers(*completions)) == [len(each) for each in completions]


def test_the_same_pair_is_asked_once(faulty):
    one = reward(faulty)
    assert one.score(answers("a", "a", "bb")) == [1, 1, 2]
    assert one.score(answers("bb", "ccc")) == [2, 3]
    assert one.score(answers("a", prompt="another")) == [1]
    assert [call["completions"] for call in faulty.calls] == [["a", "bb"], ["ccc"], ["a"]]


def test_without_cache_each_is_asked_each_time(faulty):
    one = reward(faulty, cache=False)
    assert one.score(answers("a", "a")) == one.score(answers("a", "a")) == [1, 1]
    assert [call["completions"] for call in faulty.calls] == [["a", "a"]] * 2


def test_the_longest_unused_is_forgotten_first(faulty, monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED", 2)
    one = reward(faulty)
    for each in ("a", "bb", "a", "ccc", "a", "bb"):
        one.score(answers(each))
    assert [call["completions"][0] for call in faulty.calls] == ["a", "bb", "ccc", "bb"]


def test_more_answers_than_are_remembered(faulty, monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED", 2)
    assert reward(faulty, batch_size=2).score(answers("a", "bb", "ccc", "dddd", "a")) == [1, 2, 3, 4, 1]


def test_what_came_before_a_failure_is_remembered(faulty):
    one = reward(faulty, batch_size=1, concurrency=1)
    with pytest.raises(UserError):
        one.score(answers("a", "poison"))
    assert one.score(answers("a")) == [1]
    assert [call["completions"][0] for call in faulty.calls] == ["a", "poison"]


@pytest.mark.parametrize("fault", ["500", "503", "429", "408", "hanging up", "cut off", "html", "one less", "no HTTP"])
def test_what_may_pass_is_tried_again(faulty, waits, fault):
    faulty.faults = [fault, fault]
    assert reward(faulty).score(answers("a", "bbb")) == [1, 3]
    assert len(faulty.calls) == 3
    assert len(waits) == 2
    assert 0.5 <= waits[0] <= 1 <= waits[1] <= 2


def test_a_server_that_is_gone_for_a_while_costs_time_only(faulty, monkeypatch):
    gone = 0.0

    def pause(_, seconds):
        nonlocal gone
        gone += seconds
        if gone >= 20:
            faulty.always = ""

    monkeypatch.setattr(Endpoint, "pause", pause)
    faulty.always = "hanging up"
    assert reward(faulty).score(answers("a")) == [1]
    assert 20 <= gone <= 28


def test_patience_ends_with_a_last_attempt(faulty, waits):
    faulty.always = "503"
    said = refused(faulty, patience=10)
    assert f"failed {len(waits) + 1} times, last: HTTP 503" in said
    assert "reward.http.patience" in said
    assert sum(waits) == pytest.approx(10, abs=1)
    assert len(faulty.calls) == len(waits) + 1 > 4


@pytest.mark.parametrize(
    ("fault", "said"),
    [("hanging up", "losed"), ("cut off", "9986 bytes are missing"), ("no HTTP", "…"), ("500", "HTTP 500 no: x")],
)
def test_what_does_not_pass_in_time_is_told_in_one_line(faulty, fault, said):
    faulty.always = fault
    assert said in refused(faulty, patience=0)


def test_without_patience_there_is_one_attempt(faulty, waits):
    faulty.always = "503"
    assert "failed once: HTTP 503" in refused(faulty, patience=0)
    assert waits == []


@pytest.mark.parametrize(
    ("fault", "least", "most"),
    [
        ("wait 7", 7, 7),
        ("wait 9999", LONGEST_WAIT, LONGEST_WAIT),
        ("wait soon", 0.5, 1),
        ("wait -5", 0.5, 1),
        ("wait nan", 0.5, 1),
    ],
)
def test_the_server_says_how_long_to_wait(faulty, waits, fault, least, most):
    faulty.faults = [fault]
    assert reward(faulty).score(answers("a")) == [1]
    assert least <= waits[0] <= most


def test_the_server_says_until_when_to_wait(faulty, waits):
    faulty.faults = [f"wait {formatdate(time.time() + 20, usegmt=True)}"]
    reward(faulty).score(answers("a"))
    assert 10 <= waits[0] <= 20


def test_a_wait_never_goes_beyond_patience(faulty, waits):
    faulty.always = "wait 25"
    refused(faulty, patience=40)
    assert waits == [25, pytest.approx(15, abs=1)]


@pytest.mark.parametrize("fault", ["silent", "dripping", "dripping refusal"])
def test_a_slow_server_is_left_in_time(faulty, fault):
    faulty.always = fault
    said = refused(faulty, patience=0, timeout=0.2)
    assert ("HTTP 400" if "refusal" in fault else "answer within 0.2 s") in said
    assert not faulty.through


MISSHAPEN = {
    "one less": "2 rewards for 3 answers",
    "one more": "4 rewards for 3 answers",
    "html": "web page",
    "[]": "no JSON",
    "{}": "no JSON",
    '{"scores": [1]}': "no JSON",
    '{"rewards": 1}': "no list",
    "[" * 100_000: "no JSON",
}


@pytest.mark.parametrize(("fault", "said"), MISSHAPEN.items(), ids=lambda each: each[:12])
def test_an_answer_of_the_wrong_shape_is_told_after_three(faulty, waits, fault, said):
    faulty.always = fault
    found = refused(faulty)
    assert said in found and "failed 3 times" in found and "check reward.http.url" in found
    assert len(faulty.calls) == 3


VALUES = {
    "nan": "reward 1 of 3 is NaN, which is not a finite number",
    "inf": "reward 1 of 3 is -Infinity, which is not a finite number",
    "vast": "not a finite number",
    "null": "reward 1 of 3 is null, which is not a number",
    "text": "not a number",
    "bool": "reward 1 of 3 is true, which is not a number",
    "list": "reward 1 of 3 is a list, which is not a number",
}


@pytest.mark.parametrize(("fault", "said"), VALUES.items())
def test_a_value_that_is_no_reward_stops_or_leaves_its_answer_out(faulty, warned, fault, said):
    faulty.always = fault
    assert said in refused(faulty)
    assert len(faulty.calls) == 1
    assert reward(faulty, on_failure=OnFailure.skip).score(answers("a", "bbb", "cc")) == [None, 3, 2]
    assert said in warned[0] and BEGINNING not in warned[0]


def test_rewards_out_of_range_are_failures(faulty, warned):
    assert reward(faulty, least=1, most=3).score(answers("a", "bbb")) == [1, 3]
    assert "reward 2 of 2 is 4, above reward.http.most=3" in refused(faulty, "a", "dddd", most=3)
    assert "reward 2 of 2 is 0, below reward.http.least=0.5" in refused(faulty, "a", "", least=0.5)
    found = reward(faulty, least=1, most=3, on_failure=OnFailure.skip).score(answers("", "a", "dddd"))
    assert found == [None, 1, None]


FINAL = {
    "401": "check the key in reward.http.api_key_env (TEST_KEY)",
    "403": "check the key in reward.http.api_key_env (TEST_KEY)",
    "404": "check the path in reward.http.url",
    "405": "HTTP 405",
    "quota": "pay first; the quota is used up",
    "moved": "HTTP 307",
}


@pytest.mark.parametrize("on_failure", list(OnFailure))
@pytest.mark.parametrize(("fault", "said"), FINAL.items())
def test_what_every_batch_would_meet_ends_the_run(faulty, waits, fault, said, on_failure):
    faulty.always = fault
    assert said in refused(faulty, on_failure=on_failure)
    assert [call["path"] for call in faulty.calls] == ["/rewards"]
    assert waits == []


def test_a_server_that_wants_a_key_names_the_setting(faulty):
    faulty.always = "401"
    with pytest.raises(UserError, match=r"name the variable with the key in reward\.http\.api_key_env"):
        reward(faulty, api_key_env=None).score(answers("a"))


REFUSALS = {"400": "HTTP 400", "413": "lower reward.http.batch_size", "huge": "larger than 16 MiB"}


@pytest.mark.parametrize(("fault", "said"), REFUSALS.items())
def test_what_concerns_one_batch_is_told_at_once_or_skipped(faulty, waits, warned, fault, said):
    faulty.faults = [fault]
    assert said in refused(faulty)
    assert len(faulty.calls) == 1 and waits == []
    faulty.faults = [fault]
    one = reward(faulty, on_failure=OnFailure.skip, batch_size=2, concurrency=1)
    assert one.score(answers("a", "bb", "ccc")) == [None, None, 3]
    assert said in warned[0] and "2 answers are left out" in warned[0]
    assert one.score(answers("a", "bb")) == [1, 2]


def test_skipping_ends_after_too_many(faulty, warned):
    faulty.always = "400"
    one = reward(faulty, on_failure=OnFailure.skip, batch_size=2, concurrency=1, most_failures=6)
    assert one.score(answers("a", "bb", "ccc", "dddd")) == [None] * 4
    with pytest.raises(UserError) as caught:
        one.score(answers("a", "bb", "ccc"))
    assert "6 more answers have no reward than have one, the last: refuses: HTTP 400" in line(faulty, caught.value)


def test_an_answer_with_a_reward_makes_up_for_one_without(faulty, warned):
    one = reward(faulty, on_failure=OnFailure.skip, batch_size=2, concurrency=1, most_failures=3, cache=False)
    for _ in range(4):
        faulty.faults = ["all null"]
        assert one.score(answers("a", "bb", "ccc", "dddd")) == [None, None, 3, 4]
        faulty.faults = ["last null"]
        assert one.score(answers("a", "bb")) == [1, None]


def test_a_server_that_spoils_most_of_each_batch_ends_the_run(faulty, warned):
    one = reward(faulty, on_failure=OnFailure.skip, batch_size=2, concurrency=1, most_failures=8, cache=False)
    with pytest.raises(UserError, match="more answers have no reward than have one"):
        for _ in range(100):
            faulty.faults = ["all null", "last null"]
            one.score(answers("a", "bb", "ccc", "dddd"))


def test_warnings_do_not_flood(faulty, warned):
    faulty.always = "null"
    one = reward(faulty, cache=False, on_failure=OnFailure.skip)
    for _ in range(64):
        one.score(answers("a", "bb"))
    assert [each.split()[1] for each in warned] == ["1", "2", "4", "8", "16", "32", "64"]


@pytest.mark.parametrize(
    ("completions", "said"),
    [(["poison", *"abc"], "HTTP 400"), ([*"a", "barred", *"bc"], "HTTP 401"), (["barred", *"abc"], "HTTP 401")],
)
def test_after_a_failure_no_other_batch_waits_for_the_server(faulty, completions, said):
    faulty.always = "503"
    assert said in refused(faulty, *completions, batch_size=1, concurrency=2)
    for thread in threading.enumerate():
        if thread.name.startswith("reward.http"):
            thread.join(5)
            assert not thread.is_alive()
    assert len(faulty.calls) <= 9


def test_a_server_that_is_not_there_is_told(waits):
    with pytest.raises(UserError, match="refused"):
        Http(url="http://127.0.0.1:9/rewards", on_failure=OnFailure.stop).score(answers("a"))
    assert sum(waits) == pytest.approx(60, abs=1)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:8000",
        "ftp://host/r",
        "http://",
        "http://name:secret@host/r",
        "http://host/r?key=1",
        "http://host:99999/r",
        "http://[::1/r",
        "http://host/奖励",
        "http://host/a b",
        "http://host/r\n",
    ],
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(UserError, match=r"reward\.http\.url") as caught:
        Http(url=address)
    assert "secret" not in str(caught.value)


def test_no_address_and_no_key_are_told_before_training(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(UserError, match=r"reward\.http\.url: is not given"):
        Http().check([{}])
    with pytest.raises(UserError, match=r"reward\.http\.api_key_env.*NO_SUCH_KEY"):
        Http(url="http://127.0.0.1:1/r", api_key_env="NO_SUCH_KEY").check([{}])
    assert Http(url="http://127.0.0.1:1/r").check([{}, {}]) == [None, None]


@pytest.mark.parametrize("key", ["sk-two\nlines", "sk-钥匙"])
def test_a_key_that_cannot_be_sent_is_not_shown(monkeypatch, key):
    monkeypatch.setenv("ODD_KEY", key)
    with pytest.raises(UserError, match="ODD_KEY") as caught:
        Http(url="http://127.0.0.1:1/r", api_key_env="ODD_KEY").check([{}])
    assert "sk-" not in str(caught.value)


NONE = float("nan")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"concurrency": 0}, "concurrency"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": NONE}, "timeout"),
        ({"patience": -1}, "patience"),
        ({"patience": NONE}, "patience"),
        ({"most_failures": 0}, "most_failures"),
        ({"least": NONE}, "least"),
        ({"most": float("inf")}, "most"),
        ({"least": 1, "most": 0}, "most"),
    ],
)
def test_settings_that_are_none(settings, field):
    with pytest.raises(UserError) as caught:
        Http(**settings)
    assert caught.value.where == f"reward.http.{field}"
