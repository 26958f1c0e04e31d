"""A small reward server for `ppo_general`, as an example of the Reward Model API: the standard library only.

    python projects/rlhf/reward_server.py --port 8100 [--key-env NAME]

POST /rewards with {"prompts": [...], "completions": [...]} gives {"rewards": [...]}, each from 0 to 1 and the sum of

    0.4  polite: two different polite words have all of it, one half
    0.4  on topic: the answer takes up three characters in a row of the question, two have half;
         an answer that repeats the whole question has none, as that answers nothing
    0.2  not too long: all of it for 5 to 80 characters, none from 200 on, in a straight line between

and 0 for an answer that is empty or holds a rude word. A prompt is a text, or a list of messages whose last user turn is
the question.
"""

from __future__ import annotations

import argparse
import difflib
import hmac
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

POLITE = ("您", "请", "谢", "抱歉", "欢迎", "很高兴", "乐意", "麻烦", "祝", "please", "thank", "sorry", "welcome")
RUDE = ("闭嘴", "笨", "傻", "烦死", "关我什么事", "爱买不买", "自己看", "stupid", "shut up")
LARGEST = 16 * 2**20
AT_ONCE = 32


def rewards(prompts: list[Any], completions: list[str]) -> list[float]:
    """The reward of each answer to its prompt."""
    return [reward(question(prompt), completion.strip()) for prompt, completion in zip(prompts, completions, strict=True)]


def reward(asked: str, answer: str) -> float:
    """The sum of the three rules; 0 without an answer, and for a rude one."""
    if not answer or any(word in answer.casefold() for word in RUDE):
        return 0.0
    return round(0.4 * polite(answer) + 0.4 * on_topic(asked, answer) + 0.2 * short(answer), 4)


def polite(answer: str) -> float:
    """Share of two polite words."""
    low = answer.casefold()
    return min(2, sum(word in low for word in POLITE)) / 2


def on_topic(asked: str, answer: str) -> float:
    """How much of the question the answer takes up."""
    asked = asked.strip()
    if asked and asked in answer:
        return 0.0
    match = difflib.SequenceMatcher(None, asked, answer, autojunk=False).find_longest_match()
    return {0: 0.0, 1: 0.0, 2: 0.5}.get(match.size, 1.0)


def short(answer: str) -> float:
    """1 for 5 to 80 characters, 0 from 200 on."""
    return min(1.0, len(answer) / 5, max(0.0, (200 - len(answer)) / 120))


def question(prompt: Any) -> str:
    """The text of a prompt, or of the last user turn of its messages."""
    if isinstance(prompt, str):
        return prompt
    said = [turn.get("content") for turn in prompt if turn.get("role") == "user"]
    return said[-1] if said and isinstance(said[-1], str) else ""


def problem(body: Any) -> str:
    """What is wrong with a request; empty where nothing is."""
    if not isinstance(body, dict):
        return 'the body is no JSON {"prompts": [...], "completions": [...]}'
    prompts, completions = body.get("prompts"), body.get("completions")
    for name, values in (("prompts", prompts), ("completions", completions)):
        if not isinstance(values, list):
            return f"'{name}' is no list"
    if len(prompts) != len(completions):
        return f"{len(prompts)} prompts and {len(completions)} completions: give as many of each"
    for place, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        if not isinstance(prompt, str) and not (isinstance(prompt, list) and all(isinstance(turn, dict) for turn in prompt)):
            return f"prompt {place} is neither a text nor a list of messages"
        if not isinstance(completion, str):
            return f"completion {place} is no text"
    return ""


class Handler(BaseHTTPRequestHandler):
    """Answers POST /rewards."""

    key = ""
    timeout = 30
    room = threading.BoundedSemaphore(AT_ONCE)

    def do_GET(self) -> None:
        """Say what to do instead."""
        self.reply(404, {"error": "POST to /rewards"})

    def do_POST(self) -> None:
        """Reward the answers of the body."""
        length = self.headers.get("content-length", "")
        if not length.isascii() or not length.isdecimal() or int(length) > LARGEST:
            return self.reply(400, {"error": f"give a Content-Length of at most {LARGEST} bytes"})
        # Read first: a client that is answered while it still sends sees a broken connection.
        sent = self.rfile.read(int(length))
        if not self.room.acquire(blocking=False):
            return self.reply(503, {"error": f"{AT_ONCE} requests are in work already; try again"}, {"Retry-After": "1"})
        try:
            return self.answer(sent)
        finally:
            self.room.release()

    def answer(self, sent: bytes) -> None:
        """Reply to a request that was read."""
        given = self.headers.get("authorization", "")
        if self.key and not hmac.compare_digest(given.encode(), f"Bearer {self.key}".encode()):
            return self.reply(401, {"error": "the key is wrong: send it as Authorization: Bearer KEY"})
        if self.path != "/rewards":
            return self.reply(404, {"error": "POST to /rewards"})
        try:
            body = json.loads(sent)
        except (ValueError, RecursionError):
            body = None
        if said := problem(body):
            return self.reply(400, {"error": said})
        return self.reply(200, {"rewards": rewards(body["prompts"], body["completions"])})

    def reply(self, code: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        """Send JSON."""
        sent = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: Any) -> None:
        """Keep quiet: training asks often."""


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Rewards polite, on-topic, not too long answers.")
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on")
    parser.add_argument("--port", type=int, default=8100, help="0 takes a free one")
    parser.add_argument(
        "--key-env", default="", metavar="NAME", help="environment variable with the key that clients must send"
    )
    given = parser.parse_args()
    if given.host not in ("127.0.0.1", "localhost", "::1") and not given.key_env:
        print(f"error: --host: {given.host} lets others ask, without a key; name its variable: --key-env NAME", file=sys.stderr)
        return 2
    if given.key_env and not os.environ.get(given.key_env):
        print(f"error: --key-env: the environment variable {given.key_env} is not set", file=sys.stderr)
        return 2
    Handler.key = os.environ.get(given.key_env, "").strip() if given.key_env else ""
    try:
        server = ThreadingHTTPServer((given.host, given.port), Handler)
    except (OSError, OverflowError) as error:
        print(f"error: cannot listen on {given.host}:{given.port}: {error}; choose another --port", file=sys.stderr)
        return 2
    with server:
        print(f"http://{given.host}:{server.server_address[1]}/rewards", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
