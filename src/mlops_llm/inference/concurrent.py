"""Requests to a server, several at once: what fails is a failure with its class, what fails for all of them ends the work."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from mlops_llm.endpoint import Endpoint, HopelessError, LateError, MisshapenError, UnreachableError
from mlops_llm.errors import UserError
from mlops_llm.inference.engine import Class, Failure, Generation

T = TypeVar("T")
R = TypeVar("R")
FIRST = 10
"""Requests of which one must succeed; else they all would fail."""
_LOOK = 1.0
"""Seconds between two looks at whether the server is still there, while no answer comes."""
_TOO_LONG = ("context_length_exceeded", "maximum context length", "maximum model length")


def answered(
    requests: Sequence[T], ask: Callable[[T], R | Failure], concurrency: int, alive: Callable[[], None] = lambda: None
) -> Iterator[tuple[int, R | Failure]]:
    """Ask several at once; each result as soon as it is there, with the number of its request.

    The threads end with the iterator; one that waits for a server then is left alone.

    Args:
        requests: what is asked.
        ask: makes the result of one; it may raise what ends the work.
        concurrency: how many are asked at once.
        alive: raises what ends the work where the server is gone.

    Raises:
        UserError: of `ask` or `alive`, or the first requests all fail.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, R | Failure | BaseException]] = queue.SimpleQueue()
    is_left = threading.Event()
    for place in range(len(requests)):
        todo.put(place)

    def work() -> None:
        while not is_left.is_set():
            try:
                place = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((place, ask(requests[place])))
            except BaseException as error:
                done.put((place, error))
                return

    for _ in range(min(concurrency, len(requests))):
        threading.Thread(target=work, daemon=True).start()
    try:
        yield from _unless_all_fail(_found(len(requests), done, alive))
    finally:
        is_left.set()


def _found(count: int, done: queue.SimpleQueue[Any], alive: Callable[[], None]) -> Iterator[tuple[int, Any]]:
    for _ in range(count):
        place, result = _next(done, alive)
        if isinstance(result, BaseException):
            alive()  # it knows better why
            raise result
        yield place, result


def _next(done: queue.SimpleQueue[Any], alive: Callable[[], None]) -> Any:
    while True:
        try:
            return done.get(timeout=_LOOK)
        except queue.Empty:
            alive()


def _unless_all_fail(found: Iterable[tuple[int, R | Failure]]) -> Iterator[tuple[int, R | Failure]]:
    """The same, the first failures held back until something shows that not all requests fail, so that they are not kept.

    Raises:
        UserError: the first `FIRST` have failed.
    """
    lost: list[tuple[int, R | Failure]] | None = []
    for place, result in found:
        if lost is None:
            yield place, result
            continue
        lost.append((place, result))
        if not isinstance(result, Failure) or result.kind in (Class.too_long, Class.empty):
            yield from lost
            lost = None
        elif len(lost) == FIRST:
            what = f"the first {FIRST} requests all failed, the last as {result.kind.value}: {result.cause}"
            raise UserError(what, "engine", "mend that first")
    yield from lost or []


def one(endpoint: Endpoint, body: Mapping[str, Any], read: Callable[[Any, float], R | Failure], attempts: int) -> R | Failure:
    """The result of one request.

    Args:
        endpoint: what is asked.
        body: what is sent, as JSON.
        read: makes the result of the JSON that comes back, and of the seconds since the request.
        attempts: calls in all.

    Raises:
        UserError: any other request would fail, too.
    """
    began = time.perf_counter()

    def parsed(answer: bytes) -> R | Failure:
        try:
            return read(json.loads(answer), time.perf_counter() - began)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise MisshapenError(f"the answer has not the form of one (it begins: {endpoint.beginning(answer)})") from error

    try:
        return endpoint.ask(body, parsed, attempts=attempts)
    except HopelessError:
        raise
    except UserError as error:
        if isinstance(error.__cause__, UnreachableError):
            raise
        return Failure(_kind(error), error.what, time.perf_counter() - began)


def _kind(error: UserError) -> Class:
    cause = error.__cause__
    if isinstance(cause, LateError):
        return Class.timeout
    if isinstance(cause, MisshapenError):
        return Class.unparsable
    if cause is not None:
        return Class.server
    return Class.too_long if any(each in error.what.lower() for each in _TOO_LONG) else Class.refused


def generation(told: Mapping[str, Any], seconds: float) -> Generation | Failure:
    """An answer of what an OpenAI-compatible server sends for a completion or a chat completion.

    Raises:
        LookupError, TypeError, ValueError: it is none.
    """
    choice, usage = told["choices"][0], told.get("usage") or {}
    message = choice.get("message") or {}
    text = message.get("content") if message else choice["text"]
    if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
        said = " ".join(str(message.get("refusal") or "its filter holds the answer back").split())
        return Failure(Class.refused, said[:200], seconds)
    if text is None:
        calls = "it calls a tool instead" if message.get("tool_calls") else "the answer has no text"
        return Failure(Class.empty, calls, seconds)
    if not isinstance(text, str):
        raise TypeError(f"the text is {type(text).__name__}")
    tokens, asked = int(usage.get("completion_tokens") or 0), int(usage.get("prompt_tokens") or 0)
    return Generation(text, tokens, asked, seconds, choice.get("finish_reason") == "length")
