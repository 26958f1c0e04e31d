"""One address of a server that is asked over HTTP: what passes is tried again, what does not is told in one line.

The key comes from an environment variable and is in no message, even where the server repeats it.
"""

from __future__ import annotations

import json
import math
import os
import random
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from mlops_llm.errors import RequestError, UserError
from mlops_llm.timed import Http, Https

T = TypeVar("T")
LONGEST_WAIT = 30.0
"""Seconds between two attempts that a server may ask for."""
_LONGEST_BACKOFF = 8.0
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, *range(520, 530)}
_HOPELESS = {401, 402, 403, 404, 405, 410, 501}
_QUOTA = ("insufficient_quota", "insufficient_balance", "billing_hard_limit", "Arrearage", "credit balance is too low")
"""What servers say of a quota or a balance that is used up."""
_MISSHAPEN = 3
"""Attempts whose answer has the wrong shape; the server is there, so that waiting longer mends nothing."""


class TransientError(Exception):
    """What another attempt may mend."""

    def __init__(self, said: str, wait: float = 0.0) -> None:
        """Keep what is said, and the seconds that the server asks to wait."""
        super().__init__(said)
        self.wait = wait


class MisshapenError(TransientError):
    """An answer that is not what was asked for."""


class LateError(TransientError):
    """No whole answer in time."""


class UnreachableError(TransientError):
    """No connection to the server."""


class RefusedError(UserError):
    """A refusal: the same request would meet it again."""

    status = 0
    """Of HTTP."""
    said = ""
    """What the server says, without the key, up to 4096 characters."""


class HopelessError(RefusedError):
    """A refusal that any other request would meet as well."""


class DeniedError(HopelessError, RequestError):
    """A refusal of the key, or of more than was paid for."""


def check_address(address: str, setting: str, example: str) -> None:
    """Check that an address can be asked and shown.

    Raises:
        UserError: it is none, or holds a name, a password or a query, which may be secrets.
    """
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    written = address.isascii() and address.isprintable() and " " not in address
    if not good or not written or parts.username or parts.password or parts.query or parts.fragment:
        raise UserError("is no address of a server", setting, f"write it as {example}")


def read_key(variable: str, setting: str) -> str:
    """The key in an environment variable.

    Raises:
        UserError: the variable is not set, or what it holds cannot be sent.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"the environment variable {variable} is not set", setting, f"set it: export {variable}=…")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the environment variable {variable} holds characters that no key has", setting, "set it anew")
    return key


def pause_before(attempt: int, error: TransientError) -> float:
    """Seconds to wait after a number of attempts: what the server asks for, else a growing time with jitter."""
    backoff = min(0.5 * 2 ** min(attempt, 9), _LONGEST_BACKOFF) * random.uniform(0.5, 1)
    return min(error.wait or backoff, LONGEST_WAIT)


class Endpoint:
    """Asks one address: `POST` of JSON, an answer as bytes."""

    def __init__(
        self,
        address: str,
        key_env: str = "",
        *,
        timeout: float = 60.0,
        largest: int = 2**24,
        where: str = "",
        settings: tuple[str, str] = ("url", "api_key_env"),
        example: str = "http://HOST:PORT/PATH",
        remedies: dict[int, str] | None = None,
        key: str = "",
    ) -> None:
        """Check address and key, without asking the server.

        Args:
            address: what is posted to.
            key_env: name of the environment variable with the key; empty for none.
            timeout: seconds of one attempt, from connecting to the last byte.
            largest: bytes of an answer; a longer one is refused.
            where: what messages call the server; its address if empty.
            settings: what messages call the settings with the address and with the name of the variable.
            example: how an address is written.
            remedies: what to do about an HTTP status, in addition to 401 and 403; 0 for a server that keeps failing.
            key: where the caller made it, instead of a variable.

        Raises:
            UserError: the address is none, or the variable is not set.
        """
        self._setting, self._key_setting = settings
        check_address(where or address, self._setting, example)
        self._key = read_key(key_env, self._key_setting) if key_env else key
        self._address, self._where, self._timeout, self._largest = address, where or address, timeout, largest
        named = f"{self._key_setting} ({key_env})" if key_env else self._key_setting
        denied = f"check the key in {named}" if key_env else f"name the variable with the key in {named}"
        self._remedies = {401: denied, 403: denied} | (remedies or {})
        # A redirection would carry the key to another host.
        handlers: list[Any] = [_NoRedirection, Http, Https]
        if urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1"):
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)
        self._left = threading.Event()

    def ask(self, body: Any, read: Callable[[bytes], T], *, attempts: float = math.inf, patience: float = math.inf) -> T:
        """Post `body` and read the answer, again and again while what fails may pass.

        Args:
            body: what is sent, as JSON; None sends nothing, and gets what is there.
            read: makes the result of an answer; raises TransientError or MisshapenError for one that is none.
            attempts: calls in all.
            patience: seconds in all; there is a last attempt when they are over.

        Raises:
            HopelessError: the server refuses what any other request would ask, too.
            UserError: it refuses this request, or fails in every attempt.
        """
        sent, attempt, misshapen, gone = _encoded(body), 0, 0, 0.0
        while True:
            attempt, begun = attempt + 1, time.monotonic()
            try:
                return read(self._post(sent))
            except TransientError as error:
                gone += time.monotonic() - begun
                misshapen += isinstance(error, MisshapenError)
                if attempt >= attempts or gone >= patience or misshapen == _MISSHAPEN or self._left.is_set():
                    remedy = self._remedies.get(0, "check that the server runs")
                    if misshapen == _MISSHAPEN:
                        remedy = f"check {self._setting}, and what the server sends"
                    times = "once" if attempt == 1 else f"{attempt} times, last"
                    raise UserError(f"failed {times}: {error}", self._where, remedy) from error
                wait = min(pause_before(attempt, error), patience - gone)
            self.pause(wait)
            gone += wait

    def once(self, body: Any, read: Callable[[bytes], T]) -> T:
        """Post `body` and read the answer, in one attempt: for a caller that tries again by its own rules.

        Raises:
            TransientError: another attempt may mend it; see `pause_before`.
            HopelessError: the server refuses what any other request would ask, too.
            UserError: it refuses this request; a RefusedError has its status.
        """
        return read(self._post(_encoded(body)))

    def pause(self, seconds: float) -> None:
        """Wait between two attempts, at most until the endpoint is left."""
        self._left.wait(seconds)

    def leave(self) -> None:
        """End the waiting of every thread that asks; each tries at most once more."""
        self._left.set()

    @property
    def is_left(self) -> bool:
        """Whether nobody waits for answers any more."""
        return self._left.is_set()

    def masked(self, text: str) -> str:
        """A text of the server without the key."""
        return text.replace(self._key, "…") if self._key else text

    def beginning(self, body: bytes) -> str:
        """How an answer begins, for a message."""
        return " ".join(self.masked(body[:4096].decode("utf-8", "replace"))[:80].split())

    def _post(self, sent: bytes | None) -> bytes:
        """One attempt."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        try:
            with self._open(sent, headers) as answer:
                return self._whole(answer)
        except urllib.error.HTTPError as error:
            self._refused(error)
        except TimeoutError as error:
            raise LateError(f"no answer within {self._timeout:g} s") from error
        except (urllib.error.URLError, OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise LateError(f"no answer within {self._timeout:g} s") from error
            said = self.masked(str(reason)) or type(reason).__name__
            gone = isinstance(reason, ConnectionRefusedError | socket.gaierror)
            raise (UnreachableError if gone else TransientError)(" ".join(said.split())[:200]) from error

    def _open(self, sent: bytes | None, headers: dict[str, str]) -> HTTPResponse:
        """The answer as it begins; one of HTTP's errors is raised as urllib's."""
        request = urllib.request.Request(self._address, sent, headers)
        found: HTTPResponse = self._opener.open(request, timeout=self._timeout)
        return found

    def _whole(self, answer: HTTPResponse) -> bytes:
        found = bytearray()
        while part := answer.read1(2**20):
            found += part
            if len(found) > self._largest:
                raise UserError(f"the answer is larger than {self._largest // 2**20} MiB", self._where, "check the server")
        if answer.length:
            raise TransientError(f"the answer is cut off: {answer.length} bytes are missing")
        return bytes(found)

    def _refused(self, error: urllib.error.HTTPError) -> NoReturn:
        """Tell what another attempt may mend from what is final."""
        with error:
            text = _some(error)
        said = f"HTTP {error.code} {self.masked(_message(text))[:150]}".strip()
        quota = any(each in text for each in _QUOTA)
        if error.code in _AGAIN and not quota:
            raise TransientError(said, _seconds(error.headers.get("retry-after")))
        final = quota or error.code < 400 or error.code in _HOPELESS
        remedy = self._remedies.get(error.code, "see what the server says")
        if quota:
            remedy = "the quota is used up: raise it, or wait until it is renewed"
        elif error.code < 400:
            remedy = f"redirections are not followed: give the final address in {self._setting}"
        denied = error.code in (401, 402, 403) or quota
        kind: type[RefusedError] = DeniedError if denied else HopelessError if final else RefusedError
        refusal = kind(f"refuses: {said}", self._where, remedy)
        refusal.status, refusal.said = error.code, self.masked(text)
        raise refusal


def _encoded(body: Any) -> bytes | None:
    return None if body is None else json.dumps(body).encode()


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""


def _some(error: urllib.error.HTTPError) -> str:
    """What a refusal says, as far as it comes in time."""
    found = b""
    try:
        while len(found) < 4096 and (part := error.read1(4096)):
            found += part
    except (OSError, HTTPException):
        pass
    return found.decode("utf-8", "replace")


def _message(text: str) -> str:
    """The sentence in an error's JSON, else the text itself, on one line."""
    try:
        error = json.loads(text).get("error")
        text = str(error.get("message") if isinstance(error, dict) else error or text)
    except (ValueError, AttributeError, RecursionError):
        pass
    return " ".join(text.split())


def _seconds(value: str | None) -> float:
    """Seconds that `Retry-After` gives, which may be a date; 0 where it gives none."""
    try:
        seconds = float(value or 0)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value or "").timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return seconds if 0 < seconds < math.inf else 0.0
