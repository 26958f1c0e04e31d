"""A real chat server on the loopback that judges, and misbehaves where a prompt names a fault."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-canary-8f3a1c7e5b9d2460"
RATINGS = {"accuracy": 4, "relevance": 5, "fluency": 5, "professionalism": 3}
GOOD = json.dumps({"comment": "礼貌、准确", **RATINGS}, ensure_ascii=False)
PASSING = ("429", "500", "503", "529", "408", "html", "hanging up", "cut off", "no choices", "error in 200")
"""Faults of the server that another attempt mends."""
SHAPES = {
    "fence": f"```json\n{GOOD}\n```",
    "prose": f"我认为 {{如下}}：\n{GOOD}\n以上。",
    "think": f'<think>maybe {{"accuracy": 1}}?</think>\n{GOOD}',
    "unopened think": f'well {{"accuracy": 1}}</think>{GOOD}',
    "of five": json.dumps({name: f"{value}/5" for name, value in RATINGS.items()} | {"comment": "礼貌、准确"}),
    "chinese": json.dumps({"准确性": 4, "相关性": "5分", "流畅度": 5, "专业性": 3, "评语": "礼貌、准确"}, ensure_ascii=False),
    "nested": json.dumps({"scores": {name: {"score": value} for name, value in RATINGS.items()}, "comment": "礼貌、准确"}),
}
"""Answers that are as good as the plain one."""
MENDED = {
    "single quotes": str({"comment": "礼貌、准确", **RATINGS}),
    "comma": GOOD[:-1] + ",}",
    "wide": GOOD.replace(":", "：").replace(", ", "，"),
}
"""Those that are no JSON as they come."""
BROKEN = {
    "truncated": GOOD[:-1],
    "cut in a word": GOOD[:40],
    "nine": GOOD.replace("4", "9"),
    "null": GOOD.replace("4", "null"),
    "bool": GOOD.replace("4", "true"),
    "good": GOOD.replace("4", '"good"'),
    "of ten": GOOD.replace("4", '"4/10"'),
    "missing": json.dumps({"accuracy": 4, "comment": ""}),
    "words": "准确性四分，其余都好。",
    "two": f"{GOOD} {GOOD.replace('4', '5')}",
    "thinking": f"<think>I would say {GOOD}",
}
"""Those that are none."""
_FAULT = re.compile(r"<<(.+?)>>")


class Judge(ThreadingHTTPServer):
    """Plays the fault that the prompt names, so often for each prompt, then answers well."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.calls: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.times: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.repeat = 1
        """How often a prompt's fault is played; 99 is always."""
        self.always = ""
        self.refused: tuple[str, str] = ("", "")
        """A field of requests that is not known, and what is said of it."""
        self.answers: list[str] = []
        """Answered one after the other, where there are any."""
        self.say: Callable[[str], str] | None = None
        """Makes the answer of a prompt, where it is given."""
        self.usage: dict[str, int] | None = {"prompt_tokens": 100, "completion_tokens": 50}
        self.slow = 0.0
        self.now = self.most = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, *_: Any) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    server: Judge

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = body["messages"][0]["content"] if body["messages"] else ""
        named = _FAULT.search(text)
        prompt = text.partition("\n\n再问")[0]
        with self.server.lock:
            self.server.calls.append({"path": self.path, **body})
            self.server.keys.add(self.headers.get("authorization"))
            self.server.times[prompt] += 1
            fault = self.server.always
            if named and named[1] != "none" and self.server.times[prompt] <= self.server.repeat:
                fault = named[1]
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            time.sleep(self.server.slow)
            field, said = self.server.refused
            if not body["messages"]:
                self.refuse(400 if not fault.isdigit() else int(fault), "messages is empty")
            elif field and field in body:
                self.refuse(400, said)
            else:
                self.play(fault, text)
        finally:
            with self.server.lock:
                self.server.now -= 1

    def play(self, fault: str, text: str) -> None:
        if fault == "429":
            self.send(429, "{}", {"retry-after": "0.01"})
        elif fault.isdigit():
            self.refuse(int(fault), f"no: {KEY}, {text}")
        elif fault == "quota":
            self.send(429, json.dumps({"error": {"code": "insufficient_quota", "message": f"pay first, {KEY}"}}))
        elif fault == "long":
            self.refuse(400, "This model's maximum context length is 8 tokens")
        elif fault == "html":
            self.send(200, f"<html>sign in {KEY}</html>")
        elif fault == "no choices":
            self.send(200, "{}")
        elif fault == "error in 200":
            self.send(200, json.dumps({"error": {"message": f"overloaded {KEY}"}}))
        elif fault == "hanging up":
            self.connection.close()
        elif fault == "cut off":
            self.send_response(200)
            self.send_header("content-length", "9999")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
        elif fault == "hang":
            time.sleep(1)
        elif fault in ("trickle", "trickling headers"):
            self.send_response(200)
            if fault == "trickle":
                self.end_headers()
            else:
                self.flush_headers()
            for _ in range(20):
                self.wfile.write(b" " if fault == "trickle" else b"x-more: 1\r\n")
                self.wfile.flush()
                time.sleep(0.05)
        else:
            self.answer(fault, text)

    def answer(self, fault: str, text: str) -> None:
        said: str | None = {"echo": f"my key is {KEY}", "echo rating": GOOD.replace("准确", KEY)}.get(fault) or (
            SHAPES | MENDED | BROKEN
        ).get(fault, GOOD)
        ended = "length" if fault == "length" else "content_filter" if fault == "filter" else "stop"
        with self.server.lock:
            if self.server.answers:
                said = self.server.answers.pop(0)
        said = self.server.say(text) if self.server.say else said
        if fault in ("empty", "no content"):
            said = None if fault == "no content" else ""
        found = {"model": "judge-1", "choices": [{"message": {"content": said}, "finish_reason": ended}]}
        self.send(200, json.dumps(found | ({"usage": self.server.usage} if self.server.usage else {})))

    def refuse(self, code: int, said: str) -> None:
        self.send(code, json.dumps({"error": {"message": said}}))

    def send(self, code: int, text: str, headers: dict[str, str] | None = None) -> None:
        body = text.encode()
        self.send_response(code)
        for name, value in {"content-length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve() -> Iterator[Judge]:
    """A running server."""
    server = Judge()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
