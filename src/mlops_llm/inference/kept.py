"""An address on this machine that is asked many times."""

from __future__ import annotations

import threading
import urllib.error
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from mlops_llm.endpoint import Endpoint
from mlops_llm.timed import Connection


class Kept(Endpoint):
    """Keeps each thread's connection open for its next request, which halves what a request takes here.

    Plain HTTP without a proxy. A connection is left whenever something fails.
    """

    def __init__(self, address: str, **how: Any) -> None:
        """As `Endpoint`."""
        super().__init__(address, **how)
        parts = urlsplit(address)
        self._host, self._path = parts.netloc, parts.path
        self._own = threading.local()

    def _post(self, sent: bytes | None) -> bytes:
        try:
            return super()._post(sent)
        except BaseException:
            if found := getattr(self._own, "connection", None):
                found.close()  # it opens again by itself
            raise

    def _open(self, sent: bytes | None, headers: dict[str, str]) -> HTTPResponse:
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = Connection(self._host, timeout=self._timeout)
        connection.request("GET" if sent is None else "POST", self._path, sent, headers)
        answer: HTTPResponse = connection.getresponse()
        if answer.status >= 300:
            raise urllib.error.HTTPError(self._path, answer.status, answer.reason, answer.headers, answer)
        return answer
