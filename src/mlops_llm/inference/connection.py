"""Connections of clients that say nothing, or half a head, or do not read: closed, so that they keep nobody out."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.server import ServerState

PATIENCE = 30.0
"""Seconds in which the head of a request is there whole; uvicorn alone would wait for ever."""
READING = 60.0
"""Seconds in which a client reads some of what waits for it; that comes in jumps, of up to a megabyte each."""
_waiting: WeakKeyDictionary[ServerState, dict[Connection, None]] = WeakKeyDictionary()
"""Server -> its connections without a request, the one that waits longest first."""


class Connection(AutoHTTPProtocol):  # type: ignore[misc]
    """What uvicorn takes as its `http`; how long a body may take, the application says."""

    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request; where all places are taken, who waits longest leaves."""
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            self._let_go()
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

    def pause_writing(self) -> None:
        """Wait for a client that does not read what was sent."""
        super().pause_writing()
        self._unread = self.loop.call_later(READING, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._read()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing."""
        self._stop()
        self._read()
        super().connection_lost(exc)

    @property
    def _is_asked(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _others(self) -> dict[Connection, None]:
        return _waiting.setdefault(self.server_state, {})

    def _wait(self) -> None:
        self._stop()
        self._others[self] = None
        self._late = self.loop.call_later(PATIENCE, self._close)

    def _stop(self) -> None:
        self._others.pop(self, None)
        if self._late is not None:
            self._late.cancel()

    def _read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()

    def _let_go(self) -> None:
        """Close the connection that has been without a request for longest, if there is one."""
        one = next(iter(self._others), None)
        if one is not None:
            one._stop()
            self.connections.discard(one)  # uvicorn counts it until the loop comes round
            one.transport.abort()

    def _close(self) -> None:
        if not self._is_asked:
            self.transport.abort()  # what is not read by now would keep it open
