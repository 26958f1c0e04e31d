"""Requests to a server, several at once: what fails is a failure with its class, what fails for all of them ends the work."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from mlops_llm.endpoint import (
    Endpoint,
    HopelessError,
    LateError,
    MisshapenError,
    RefusedError,
    TransientError,
    UnreachableError,
)
from mlops_llm.errors import UserError
from mlops_llm.inference.chat import Form, is_too_long, parsed, reply
from mlops_llm.inference.engine import Class, Failure, Generation

T = TypeVar("T")
R = TypeVar("R")
MOST = 10
"""Requests in a row that a server fails before no more are asked for; more where more are asked at once."""
_LOOK = 1.0
"""Seconds between two looks at whether the server is still there, while no answer comes."""


@dataclass(frozen=True)
class Lost:
    """A failure that is the server's, not the answer's: many in a row end the work."""

    failure: Failure


class LostError(UserError):
    """A server fails all that it is asked, or too much of it in a row."""

    def __init__(self, why: UserError, failures: Sequence[tuple[Any, Failure]], are_all: bool) -> None:
        """Keep what was lost.

        Args:
            why: for a person.
            failures: each with what was asked.
            are_all: nothing that was asked was answered, and nothing is left to ask.
        """
        super().__init__(why.what, why.where, why.remedy)
        self.failures, self.are_all = failures, are_all


def unless_lost(
    found: Iterable[tuple[T, R | Failure | Lost]], most: int, why: Callable[[int, Failure], UserError]
) -> Iterator[tuple[T, R | Failure]]:
    """The results, lost ones as failures; these are held back until one comes that is not, so that they are not kept in vain.

    A refusal counts as lost only as long as nothing was answered: later it is about what was asked.

    Args:
        found: results, each with what was asked.
        most: lost in a row at most.
        why: what a person is told, from how many are lost and the last of them.

    Raises:
        LostError: so many are lost, or all of them.
    """
    held, is_answered = list[tuple[T, Failure]](), False
    for asked, result in found:
        if isinstance(result, Lost) and not (is_answered and result.failure.kind is Class.refused):
            held.append((asked, result.failure))
            if len(held) >= most:
                raise LostError(why(len(held), held[-1][1]), held, False)
            continue
        yield from held
        held.clear()
        is_answered = True
        yield asked, result.failure if isinstance(result, Lost) else result
    if held and not is_answered:
        raise LostError(why(len(held), held[-1][1]), held, True)
    yield from held


def answered(
    requests: Sequence[T], ask: Callable[[T], R | Failure | Lost], concurrency: int, alive: Callable[[], None] = lambda: None
) -> Iterator[tuple[int, R | Failure]]:
    """Ask several at once; each result as soon as it is there, with the number of its request.

    The threads end with the iterator; one that waits for a server then is left alone.

    Args:
        requests: what is asked.
        ask: makes the result of one; it may raise what ends the work.
        concurrency: how many are asked at once.
        alive: raises what ends the work where the server is gone.

    Raises:
        UserError: of `ask` or `alive`, or too many requests are lost in a row.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, R | Failure | Lost | BaseException]] = queue.SimpleQueue()
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
        yield from unless_lost(_found(len(requests), done, alive), max(MOST, concurrency), _why)
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


def _why(count: int, last: Failure) -> UserError:
    requests = "the only request" if count == 1 else f"{count} requests in a row"
    what = f"{requests} failed, the last as {last.kind.value}: {last.cause}"
    return UserError(what, "engine", "mend that first, and start again")


def one(
    endpoint: Endpoint, form: Form, own: Mapping[str, Any], read: Callable[[Any, float], R | Failure], attempts: int
) -> R | Failure | Lost:
    """The result of one request.

    Args:
        endpoint: what is asked.
        form: of all requests.
        own: fields of this one.
        read: makes the result of the JSON that comes back, and of the seconds since the request.
        attempts: calls in all.

    Raises:
        UserError: any other request would fail, too.
    """
    began = time.perf_counter()

    def result(answer: bytes) -> R | Failure:
        return parsed(endpoint, answer, lambda told: read(told, time.perf_counter() - began))

    try:
        return form.sent(lambda body: endpoint.ask(body, result, attempts=attempts), nullcontext(), **own)
    except HopelessError:
        raise
    except UserError as error:
        if isinstance(error.__cause__, UnreachableError):
            raise
        return _failed(error, time.perf_counter() - began)


def _failed(error: UserError, seconds: float) -> Failure | Lost:
    """A failure of a request that any other would not have met."""
    if isinstance(error, RefusedError) and is_too_long(error):
        return Failure(Class.too_long, error.what, seconds)
    causes = ((LateError, Class.timeout), (MisshapenError, Class.unparsable), (TransientError, Class.server))
    kind = next((kind for cause, kind in causes if isinstance(error.__cause__, cause)), Class.refused)
    return Lost(Failure(kind, error.what, seconds))


def generation(endpoint: Endpoint, told: Mapping[str, Any], seconds: float) -> Generation | Failure:
    """An answer of what an OpenAI-compatible server sends for a completion or a chat completion.

    Raises:
        AttributeError, LookupError, TypeError: it is none.
    """
    found = reply(endpoint, told)
    if found.refusal:
        return Failure(Class.refused, found.refusal, seconds)
    if found.absent:
        return Failure(Class.empty, found.absent, seconds)
    return Generation(found.text, found.tokens_out or 0, found.tokens_in or 0, seconds, found.is_cut)
