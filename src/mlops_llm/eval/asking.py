"""A judge is asked many things at once: what may pass is tried again, what is final ends all, and nothing is asked twice.

A failure is of one of three classes. Transient (HTTP 408, 409, 429 and 5xx, no connection, no answer in time, a web page):
tried again with growing pauses, or after what the server asks for. Final (401, 403, 404, a used-up quota): no more is asked.
Of the form (an answer that cannot be read): asked again, with what is wrong with it.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from mlops_llm import console
from mlops_llm.endpoint import Endpoint, HopelessError, LateError, RefusedError, TransientError, pause_before
from mlops_llm.errors import UserError
from mlops_llm.eval import reading
from mlops_llm.eval.chat import Chat
from mlops_llm.eval.purse import Purse
from mlops_llm.eval.reading import Read, UnreadableError
from mlops_llm.inference.cache import Answers, key
from mlops_llm.inference.chat import Reply, is_too_long, parsed, reply
from mlops_llm.inference.concurrent import Lost, unless_lost
from mlops_llm.inference.engine import Class, Failure

R = TypeVar("R")
_WAITING = 4
"""Threads for each request that may be on its way: one that waits for its next attempt keeps no other from asking."""


@dataclass(frozen=True)
class Task:
    """What is to be judged once."""

    place: int
    """Number of the answer."""
    turn: int
    """Of the answer's judgements, from 0."""
    text: str
    """What the judge is told."""


@dataclass(frozen=True)
class Said(Generic[R]):
    """What the judge said."""

    read: Read[R]
    tokens: int = 0
    """Of all calls for it, in and out; 0 where it was known."""
    cost: float = 0.0
    is_second: bool = False
    """An earlier answer could not be read."""


class Asking(Generic[R]):
    """Asks one server; it counts what it did over all calls of `ask`."""

    def __init__(
        self,
        chat: Chat,
        meaning: Callable[[Mapping[str, Any]], R],
        schema: Mapping[str, Any],
        again: str,
        answers: Answers | None = None,
        refresh: bool = False,
        ledger: Path | None = None,
    ) -> None:
        """Begin.

        Args:
            chat: the server.
            meaning: makes the result of a JSON object; see `reading.read`.
            schema: JSON schema of that object.
            again: what is added to a task whose answer could not be read; {problem} is why.
            answers: what was answered before; None keeps nothing. The key is no part of what is kept.
            refresh: take nothing from there, but keep what is answered.
            ledger: see `Purse`.
        """
        self._chat, self._meaning, self._schema, self._again = chat, meaning, schema, again
        self._answers, self._refresh = answers, refresh
        self._form, self._slots = chat.form(schema), threading.Semaphore(chat.concurrency)
        self._lock = threading.Lock()
        self.purse = Purse(chat.price_in, chat.price_out, chat.budget, ledger)
        self.known = self.retried = self.unread = 0
        self.models = Counter[str]()

    def ask(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Said[R] | Failure]]:
        """What the judge says to each task, as soon as it is there, in any order.

        When the budget is used up, what is not judged by then are failures.

        Raises:
            UserError: the server refuses what any task would ask, or fails in too many of them in a row; or the budget does not
                pay for one.
        """
        missing, kept = list[Task](), 0
        for task in tasks:
            if (found := self._remembered(task)) is not None:
                kept += 1
                yield task, found
            else:
                missing.append(task)

        def why(count: int, last: Failure) -> UserError:
            what = f"{count} judgements in a row failed, the last: {last.cause}"
            remedy = f"check the server, and start again ({kept} of {len(tasks)} are judged)"
            return UserError(what, self._chat.base_url, remedy)

        with closing(self._asked(missing)) as results:
            for task, result in unless_lost(results, self._chat.most_failures, why):
                kept += not isinstance(result, Failure)
                yield task, result

    def knows(self, tasks: Sequence[Task]) -> bool:
        """Whether all of them were answered before."""
        return self._answers is not None and all(self._answers.get(self._key(task)) for task in tasks)

    def facts(self) -> dict[str, str]:
        """What was done so far, for a person."""
        purse = self.purse
        found = {
            "judge calls": f"{purse.calls:,}"
            + (f" ({purse.before:,} before it stopped)" if purse.before else "")
            + (f", {self.retried:,} attempts more" if self.retried else ""),
            "judgements known from before": f"{self.known:,}" if self.known else "",
            "judge tokens": f"{purse.tokens_in:,} in, {purse.tokens_out:,} out" if purse.calls else "",
            "judge cost": f"{purse.spent:.4g}" if purse.has_prices else "",
            "judged by": ", ".join(sorted(self.models)),
            "judge does not know": ", ".join(self._form.left_out),
            "judgements that could not be read": f"{self.unread:,}" if self.unread else "",
        }
        return {name: said for name, said in found.items() if said}

    def numbers(self) -> dict[str, float]:
        """What was done so far, for the record."""
        purse = self.purse
        found = {"calls": purse.calls, "known": self.known, "tokens_in": purse.tokens_in, "tokens_out": purse.tokens_out}
        found |= {"unread": self.unread, "attempts_more": self.retried}
        return {name: float(value) for name, value in found.items()} | ({"cost": purse.spent} if purse.has_prices else {})

    def _key(self, task: Task) -> str:
        return key(
            what="judgement", reading=reading.VERSION, schema=self._schema, again=self._again, turn=task.turn, text=task.text,
            **self._chat.identity(),
        )  # fmt: skip

    def _remembered(self, task: Task) -> Said[R] | None:
        found = self._answers.get(self._key(task)) if self._answers and not self._refresh else None
        if found is None:
            return None
        self.known += 1
        self.models[found["model"]] += 1
        return Said(reading.read(found["text"], self._meaning), is_second=found["is_second"])

    def _asked(self, tasks: Sequence[Task]) -> Generator[tuple[Task, Said[R] | Failure | Lost], None, None]:
        endpoint, done = self._chat.endpoint(), SimpleQueue[tuple[Task, Any]]()
        most = min(max(len(tasks), 1), _WAITING * self._chat.concurrency)
        threads = ThreadPoolExecutor(most, "judge")

        def work(task: Task, held: float) -> None:
            try:
                done.put((task, self._judged(endpoint, task, held)))
            except BaseException as error:  # told to the thread that waits
                done.put((task, error))

        begun = ended = judged = 0
        try:
            while True:
                while begun < len(tasks) and begun - ended < most:
                    held = self._bound(tasks[begun].text)
                    if not self.purse.hold(held):
                        break
                    threads.submit(work, tasks[begun], held)
                    begun += 1
                if begun == ended:
                    break
                task, result = done.get()
                ended += 1
                if isinstance(result, HopelessError):
                    remedy = f"{result.remedy} ({judged} of {len(tasks)} are judged)"
                    raise type(result)(result.what, result.where, remedy) from result
                if isinstance(result, BaseException):
                    raise result
                if isinstance(result, tuple):
                    said, answer = result
                    judged += 1
                    self._remember(task, said, answer)
                    result = said
                yield task, result
        finally:
            # After a failure or an interruption nobody waits for the server any more.
            endpoint.leave()
            threads.shutdown(wait=False, cancel_futures=True)
        yield from self._unpaid(tasks, ended, judged)

    def _unpaid(self, tasks: Sequence[Task], ended: int, judged: int) -> Iterator[tuple[Task, Failure]]:
        if ended == len(tasks):
            return
        if not judged and not self.purse.spent:
            what = f"pays for no judgement: one may cost up to {self._bound(tasks[ended].text):.4g}"
            raise UserError(what, "judge.budget", "raise it, or lower judge.max_tokens")
        what = f"judge.budget={self._chat.budget:g} pays for no other judgement"
        why = f"{self.purse.spent:.4g} is spent, one may cost up to {self._bound(tasks[ended].text):.4g}"
        console.warn(f"{what} ({why}): {len(tasks) - ended} of {len(tasks)} are not made")
        for task in tasks[ended:]:
            yield task, Failure(Class.refused, what)

    def _remember(self, task: Task, said: Said[R], answer: Reply) -> None:
        self.models[answer.model] += 1
        if self._answers:
            facts = {"text": answer.text, "model": answer.model, "is_second": said.is_second}
            self._answers.put(self._key(task), facts | {"tokens": said.tokens, "cost": said.cost})

    def _bound(self, text: str) -> float:
        """The most that one call about a text can cost."""
        if self._chat.budget is None:
            return 0.0
        sent = json.dumps(self._form.body(messages=_messages(text), seed=0), ensure_ascii=False)
        return self.purse.bound(sent, self._chat.max_tokens)

    def _judged(self, endpoint: Endpoint, task: Task, held: float) -> tuple[Said[R], Reply] | Failure | Lost:
        """One task through all its attempts, in a thread of its own."""
        text, tokens, cost = task.text, 0, 0.0
        last: Failure | Lost = Failure(Class.server, "never asked")
        for attempt in range(1, self._chat.retries + 2):
            try:
                answer = self._call(endpoint, text, task.turn)
            except TransientError as error:
                kind = Class.timeout if isinstance(error, LateError) else Class.server
                last = Lost(Failure(kind, f"failed {attempt} times, last: {error}" if attempt > 1 else str(error)))
                if attempt > self._chat.retries or endpoint.is_left:
                    break
                self._count(retried=True)
                endpoint.pause(pause_before(attempt, error))
                continue
            except HopelessError:
                raise
            except UserError as error:
                self.purse.release(held)
                if isinstance(error, RefusedError) and is_too_long(error):
                    return Failure(Class.too_long, error.what)
                return Lost(Failure(Class.refused, error.what))
            used = self.purse.pay(held, answer)
            held, tokens, cost = 0.0, tokens + used[0], cost + used[1]
            if answer.refusal:
                return Failure(Class.refused, answer.refusal)
            try:
                if answer.is_cut:
                    raise UnreadableError(f"the answer was cut off at {self._chat.max_tokens} tokens")
                said = Said(reading.read(answer.text, self._meaning), tokens, cost, text != task.text)
                return said, answer
            except UnreadableError as error:
                last = _unread(answer, error)
            self._count(retried=attempt <= self._chat.retries, unread=True)
            if attempt > self._chat.retries or endpoint.is_left:
                return last
            text = f"{task.text}\n\n{self._again.replace('{problem}', last.cause)}"
            held = self._bound(text)
            if not self.purse.hold(held):
                return Failure(last.kind, f"{last.cause}; judge.budget={self._chat.budget:g} pays for no other attempt")
        self.purse.release(held)
        return last

    def _call(self, endpoint: Endpoint, text: str, turn: int) -> Reply:
        """One request."""

        def send(body: dict[str, Any]) -> Reply:
            if endpoint.is_left:
                raise TransientError("nobody waits for it any more")
            return endpoint.once(body, lambda answer: parsed(endpoint, answer, partial(reply, endpoint)))

        seed = {"seed": turn} if self._chat.temperature else {}
        return self._form.sent(send, self._slots, messages=_messages(text), **seed)

    def _count(self, retried: bool, unread: bool = False) -> None:
        with self._lock:
            self.retried += retried
            self.unread += unread


def _messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _unread(answer: Reply, error: UnreadableError) -> Failure:
    if not answer.text.strip() and not answer.is_cut:
        return Failure(Class.empty, "the judge's answer is empty")
    return Failure(Class.unparsable, " ".join(str(error).split()))
