"""HTTP whose whole answer must come in time: a socket's own timeout begins anew with every byte that drips in."""

from __future__ import annotations

import io
import socket
import time
import urllib.request
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any


class _Until(io.RawIOBase):
    """What a socket brings before a moment."""

    def __init__(self, raw: Any, sock: socket.socket, ends: float) -> None:
        self._raw, self._sock, self._ends = raw, sock, ends

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int | None:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        found: int | None = self._raw.readinto(into)
        return found

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, ends: float, **how: Any) -> None:
        super().__init__(sock, *args, **how)
        self.fp = io.BufferedReader(_Until(self.fp.detach(), sock, ends))


class Connection(HTTPConnection):
    """A connection that gives each answer, headers and all, `timeout` seconds from its request on.

    Whoever reads later than that gets a TimeoutError.
    """

    def request(self, *args: Any, **how: Any) -> None:
        """Send a request."""
        assert isinstance(self.timeout, int | float)
        self.response_class = partial(_Answer, ends=time.monotonic() + self.timeout)  # type: ignore[assignment]
        if self.sock:
            self.sock.settimeout(self.timeout)
        super().request(*args, **how)


class _Secure(Connection, HTTPSConnection):
    pass


class Http(urllib.request.HTTPHandler):
    """urllib's handler, with such connections."""

    def http_open(self, request: urllib.request.Request) -> HTTPResponse:
        """Ask."""
        return self.do_open(Connection, request)


class Https(urllib.request.HTTPSHandler):
    """urllib's handler for encrypted addresses, with such connections."""

    def https_open(self, request: urllib.request.Request) -> HTTPResponse:
        """Ask."""
        return self.do_open(_Secure, request)
