"""Rewards from a server: the Reward Model API."""

from __future__ import annotations

import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Optional

from mlops_llm import console
from mlops_llm.component import component
from mlops_llm.data.read import Row
from mlops_llm.endpoint import Endpoint, HopelessError, MisshapenError, check_address, read_key
from mlops_llm.errors import UserError
from mlops_llm.train import example_server
from mlops_llm.train.reward import Answers, Ready, check_weight

REMEMBERED = 100_000
"""Rewards kept; the longest unused goes first."""
EXAMPLE = "http://HOST:PORT/rewards"


BUILT_IN = "example"
"""Stands for an address in `url`."""


class OnFailure(Enum):
    """What a batch without rewards means."""

    skip = "skip"
    stop = "stop"


class Asked(NamedTuple):
    """One answer as the server sees it."""

    prompt: str | list[dict[str, Any]]
    completion: str


@component("reward", "http")
@dataclass
class Http(Ready):
    """Asks a server: POST {"prompts": [...], "completions": [...]} to `url`, which answers {"rewards": [...]}.

    A prompt is a text where it is one turn of the user, else the list of its messages. What may pass (no connection, HTTP 429
    and 5xx, no answer in time) is tried again with growing pauses for `patience` seconds; an answer of the wrong shape three
    times. A refusal that meets every batch (401, 403, 404, a redirection, a used-up quota) ends the run whatever on_failure is.
    """

    weight: float = 1.0
    """Factor of this reward in the sum of all."""
    url: str = ""
    """Address that is posted to, e.g. http://127.0.0.1:8100/rewards; example starts that of projects/rlhf in this process."""
    api_key_env: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Name of the environment variable with the key, which is sent as a bearer token."""
    batch_size: int = 16
    """Answers a call."""
    concurrency: int = 4
    """Calls at the same time."""
    timeout: float = 30.0
    """Seconds of one attempt."""
    patience: float = 60.0
    """Seconds that the server may be gone."""
    least: Optional[float] = None  # noqa: UP045
    """Smallest reward that the server may give; a smaller one is a failure of that answer."""
    most: Optional[float] = None  # noqa: UP045
    """Largest reward that the server may give; a larger one is a failure of that answer."""
    on_failure: OnFailure = OnFailure.skip
    """skip leaves answers without a valid reward out, stop ends the run."""
    most_failures: int = 100
    """Answers that may be left out before the run ends after all; each one that is rewarded makes up for one."""
    cache: bool = True
    """Ask once for each pair of prompt and answer."""

    def __post_init__(self) -> None:
        """Check the ranges and the address."""
        check_weight(self.weight, "http")
        for name, number in (("batch_size", self.batch_size), ("concurrency", self.concurrency)):
            if number < 1:
                raise UserError(f"is {number}", f"reward.http.{name}", "give a number from 1")
        if self.most_failures < 1:
            raise UserError(f"is {self.most_failures}", "reward.http.most_failures", "give a number from 1")
        if not 0 < self.timeout < math.inf:
            raise UserError(f"is {self.timeout}", "reward.http.timeout", "give seconds above 0")
        if not 0 <= self.patience < math.inf:
            raise UserError(f"is {self.patience}", "reward.http.patience", "give seconds from 0")
        for name, bound in (("least", self.least), ("most", self.most)):
            if bound is not None and not math.isfinite(bound):
                raise UserError(f"is {bound}", f"reward.http.{name}", "give a number, or leave it out")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise UserError(f"is {self.most}", "reward.http.most", f"give a number from {self.least} (reward.http.least)")
        if self.url and self.url != BUILT_IN:
            check_address(self.url, "reward.http.url", EXAMPLE)
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._failures, self._left_out, self._told = 0, 0, 0

    def check(self, rows: Sequence[Row]) -> list[str | None]:
        """Every row can be rewarded; the server is not asked yet.

        Raises:
            UserError: there is no address, or the variable with the key is not set.
        """
        if not self.url:
            raise UserError("is not given", "reward.http.url", f"name the server: reward.http.url={EXAMPLE}")
        if self.api_key_env:
            read_key(self.api_key_env, "reward.http.api_key_env")
        return [None] * len(rows)

    def score(self, answers: Answers) -> list[float | None]:
        """The server's reward of each answer; None where it has no valid one.

        Raises:
            UserError: the server refuses, or fails and on_failure is stop, or most_failures more answers failed than did not.
        """
        self.check(answers.rows)
        asked = [Asked(_sent(prompt), each) for prompt, each in zip(answers.prompts, answers.completions, strict=True)]
        keys = [_key(one) if self.cache else place.to_bytes(8, "big") for place, one in enumerate(asked)]
        found: dict[bytes, float | None] = {key: self._known[key] for key in keys if key in self._known}
        todo = [(key, one) for key, one in dict(zip(keys, asked, strict=True)).items() if key not in found]
        batches = [todo[start : start + self.batch_size] for start in range(0, len(todo), self.batch_size)]
        for batch, rewards in zip(batches, self._ask([[one for _, one in batch] for batch in batches]), strict=True):
            found |= {key: reward for (key, _), reward in zip(batch, rewards, strict=True)}
            self._remember(found, keys=[key for key, _ in batch])
        self._remember(found, keys)
        return [found[key] for key in keys]

    def _remember(self, found: dict[bytes, float | None], keys: Sequence[bytes]) -> None:
        """Keep what the server said, also of a call that fails later."""
        for key in keys if self.cache else ():
            if (reward := found[key]) is not None:
                self._known[key] = reward
                self._known.move_to_end(key)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _ask(self, batches: Sequence[Sequence[Asked]]) -> Iterator[list[float | None]]:
        """The rewards of each batch, in order; several are asked for at the same time."""
        if not batches:
            return
        endpoint = Endpoint(
            example_server.start() if self.url == BUILT_IN else self.url,
            self.api_key_env or "",
            timeout=self.timeout,
            settings=("reward.http.url", "reward.http.api_key_env"),
            example=EXAMPLE,
            remedies={
                0: "check that the server runs, or raise reward.http.patience",
                404: "check the path in reward.http.url",
                413: "lower reward.http.batch_size",
            },
        )
        threads = ThreadPoolExecutor(min(self.concurrency, len(batches)), "reward.http")
        calls = [threads.submit(self._call, endpoint, batch) for batch in batches]
        try:
            for call, batch in zip(calls, batches, strict=True):
                wait([call])
                for other in calls:
                    if other.done() and isinstance(error := other.exception(), HopelessError):
                        raise error
                yield self._settle(call, len(batch))
        finally:
            # After a failure or an interruption nobody waits for the server any more.
            endpoint.leave()
            threads.shutdown(wait=False, cancel_futures=True)

    def _call(self, endpoint: Endpoint, batch: Sequence[Asked]) -> list[float | UserError]:
        body = {"prompts": [one.prompt for one in batch], "completions": [one.completion for one in batch]}
        try:
            values = endpoint.ask(body, lambda answer: _rewards(endpoint, answer, len(batch)), patience=self.patience)
        except HopelessError:
            endpoint.leave()
            raise
        return [self._valid(endpoint, value, place, len(batch)) for place, value in enumerate(values, start=1)]

    def _valid(self, endpoint: Endpoint, value: Any, place: int, count: int) -> float | UserError:
        """A reward, or why it is none."""
        shown = "a list" if isinstance(value, list | dict) else json.dumps(value, ensure_ascii=False)
        if isinstance(value, str):
            shown = json.dumps(endpoint.masked(value), ensure_ascii=False)
        what, remedy = f"reward {place} of {count} is {shown[:40]}", "mend the server"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return UserError(f"{what}, which is not a number", self.url, remedy)
        try:
            reward = float(value)
        except OverflowError:
            reward = math.inf
        if not math.isfinite(reward):
            return UserError(f"{what}, which is not a finite number", self.url, remedy)
        if self.least is not None and reward < self.least:
            return UserError(f"{what}, below reward.http.least={self.least:g}", self.url, f"{remedy}, or lower the bound")
        if self.most is not None and reward > self.most:
            return UserError(f"{what}, above reward.http.most={self.most:g}", self.url, f"{remedy}, or raise the bound")
        return reward

    def _settle(self, call: Future[list[float | UserError]], count: int) -> list[float | None]:
        """The rewards of a batch, or what its failures mean by on_failure."""
        try:
            found = call.result()
        except UserError as error:
            found = [error] * count
        wrong = [each for each in found if isinstance(each, UserError)]
        self._failures = max(0, self._failures + 2 * len(wrong) - count)
        if not wrong:
            return [each for each in found if not isinstance(each, UserError)]
        if self.on_failure is OnFailure.stop:
            raise wrong[0]
        if self._failures >= self.most_failures:
            said = f"{self._failures} more answers have no reward than have one, the last: {wrong[-1].what}"
            raise UserError(said, wrong[-1].where, wrong[-1].remedy)
        self._left_out += len(wrong)
        if self._left_out >= 2 * self._told:
            console.warn(f"reward.http: {self._left_out} answers are left out so far, the last because {wrong[-1]}")
            self._told = self._left_out
        return [None if isinstance(each, UserError) else each for each in found]


def _sent(prompt: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """A prompt as the server gets it."""
    if len(prompt) == 1 and prompt[0].get("role") == "user" and isinstance(prompt[0].get("content"), str):
        return str(prompt[0]["content"])
    return list(prompt)


def _key(asked: Asked) -> bytes:
    return hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).digest()


def _rewards(endpoint: Endpoint, body: bytes, count: int) -> list[Any]:
    """The list in an answer; each value is looked at later, as one that is none concerns its own answer only."""
    try:
        found = json.loads(body)["rewards"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        page = "is a web page" if body.lstrip()[:1] == b"<" else 'is no JSON {"rewards": [...]}'
        raise MisshapenError(f"the answer {page} (it begins: {endpoint.beginning(body)})") from error
    if not isinstance(found, list):
        raise MisshapenError(f"the answer's rewards are no list (it begins: {endpoint.beginning(body)})")
    if len(found) != count:
        raise MisshapenError(f"the answer holds {len(found)} rewards for {count} answers")
    return found
