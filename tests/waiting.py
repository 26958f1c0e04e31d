"""A real HTTP server that keeps who asks it waiting."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WaitingServer(ThreadingHTTPServer):
    """Its handlers can keep somebody waiting."""

    def __init__(self, *where: Any) -> None:
        """Nobody waits."""
        super().__init__(*where)
        self.over = threading.Event()
        """The test is over."""
        self.through = False
        """Somebody waited to the end."""


class WaitingHandler(BaseHTTPRequestHandler):
    """A handler of such a server."""

    server: WaitingServer

    def keep_waiting(self, drips: bool) -> None:
        """Say nothing, or next to nothing, for half a minute or until the test is over."""
        for _ in range(600):
            if self.server.over.wait(0.05):
                return
            if drips:
                self.wfile.write(b" ")
                self.wfile.flush()
        self.server.through = True
