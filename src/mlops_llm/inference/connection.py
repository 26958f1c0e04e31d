"""Connections of clients that say nothing, or begin a request and do not end its head: closed, so that they keep nobody out."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.auto import AutoHTTPProtocol

PATIENCE = 30.0
"""Seconds in which the head of a request is there whole; uvicorn alone would wait for ever."""


class Connection(AutoHTTPProtocol):  # type: ignore[misc]
    """What uvicorn takes as its `http`; how long a body may take, the application says."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait no longer where a request is being answered."""
        super().data_received(data)
        if self._is_asked:
            self._stop()

    def on_response_complete(self) -> None:
        """Wait for the next request; uvicorn's own clock is stopped by any byte."""
        super().on_response_complete()
        if not self._is_asked:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing."""
        self._stop()
        super().connection_lost(exc)

    @property
    def _is_asked(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        self._stop()
        self._late = self.loop.call_later(PATIENCE, self._close)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()

    def _close(self) -> None:
        if not self._is_asked:
            self.transport.close()
