"""A judge's throughput against the server's own limit, in alternating pairs.

The server answers 16 requests at a time, each after 100 ms, so that it can answer 160 a second. A bare client on 16 open
connections asks for nothing but that; ours is the judge `rubric_zh` at concurrency 16, which fills the template, asks by a
schema, reads and checks every answer, and keeps it in an empty cache. Only the asking is timed, each side in its own process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stats import Run, alternate, compare, fresh, process, scratch

SLOTS, SECONDS = 16, 0.1
ANSWER = json.dumps(
    {"comment": "礼貌、准确", "accuracy": 4, "relevance": 5, "fluency": 5, "professionalism": 4}, ensure_ascii=False
)
BODY = json.dumps(
    {
        "model": "judge",
        "choices": [{"message": {"content": ANSWER}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 400, "completion_tokens": 50},
    }
).encode()


async def serve() -> None:
    """Answer until the process is ended; the first line says the port."""
    slots = asyncio.Semaphore(SLOTS)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await read_message(reader):
            async with slots:
                await asyncio.sleep(SECONDS)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY)
            await writer.drain()
            if b"connection: close" in head.lower():
                break
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """The head of a request or an answer, after its body was read; empty at the end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    lines = head.lower().split(b"\r\n")
    length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length"))
    await reader.readexactly(length)
    return head


def rows(count: int) -> list[tuple[str, str]]:
    return [(f"第 {number} 个订单几时发货？" * 8, f"您好，第 {number} 个订单明天发货。" * 8) for number in range(count)]


def limit(port: int, count: int) -> float:
    """Seconds of a bare client."""

    async def ask(each: Iterator[tuple[str, str]]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for prompt, answer in each:
            body = json.dumps({"model": "judge", "messages": [{"role": "user", "content": prompt + answer}]}).encode()
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n" % len(body)
            writer.write(head + body)
            await read_message(reader)
        writer.close()

    async def run() -> float:
        waiting = iter(rows(count))
        begun = time.perf_counter()
        await asyncio.gather(*(ask(waiting) for _ in range(SLOTS)))
        return time.perf_counter() - begun

    return asyncio.run(run())


def ours(port: int, count: int) -> float:
    """Seconds of the judge."""
    from mlops_llm.entry import config
    from mlops_llm.eval.config import PACKAGES, Eval
    from mlops_llm.eval.judge import Rated, Verdict
    from mlops_llm.inference.cache import Answers

    config.register("eval", Eval, PACKAGES)
    words = ["judge=rubric_zh", f"judge.base_url=http://127.0.0.1:{port}/v1", "judge.model=judge", f"judge.concurrency={SLOTS}"]
    judge = config.typed(config.composed("eval", words)).judge
    answers = [Rated(place, prompt, answer) for place, (prompt, answer) in enumerate(rows(count))]
    known = Answers(Path.cwd() / "answers.db")
    begun = time.perf_counter()
    found = dict(judge.rate(answers, known))
    seconds = time.perf_counter() - begun
    assert len(found) == count and all(isinstance(each, Verdict) for each in found.values())
    return seconds


SIDES = {"limit": limit, "ours": ours}


@contextmanager
def server() -> Iterator[int]:
    """The port of a server in its own process."""
    child = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout
        yield int(child.stdout.readline())
    finally:
        child.terminate()
        child.wait()


def side(name: str, port: int, count: int, folder: Path) -> Run:
    """One side, ready to run in its own process."""

    def run() -> dict[str, float]:
        with fresh(folder) as here:
            timed = process([sys.executable, __file__, "--side", name, "--port", str(port), "--count", str(count)], here)
            seconds = json.loads(timed.out.strip().splitlines()[-1])
            return {"s": seconds, "share of 160/s": count / seconds / (SLOTS / SECONDS)}

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--count", type=int, default=1600)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        asyncio.run(serve())
    elif asked.side:
        print(json.dumps(SIDES[asked.side](asked.port, asked.count)))
    else:
        with scratch() as folder, server() as port:
            found = alternate(asked.pairs, {name: side(name, port, asked.count, folder) for name in SIDES})
            compare(f"{asked.count:,} judgements at concurrency {SLOTS}", found, {"s": "ratio at most 1.1"})


if __name__ == "__main__":
    main()
