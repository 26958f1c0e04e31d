"""Answers that were given before, in one SQLite file for all projects of a user."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlops_llm import digest
from mlops_llm.files import cache_folder, writable

FORMAT = 1
"""Part of every key: it is raised where what is kept gets other fields, so that older rows are not read."""
_PATIENCE, _PAUSE = 60.0, 0.01


class Answers:
    """What was answered under a key; several processes may read and write at once."""

    def __init__(self, file: Path | None = None) -> None:
        """Open the file, `answers.db` in the cache's folder if None."""
        folder = writable(file.parent if file else cache_folder())
        self._database = sqlite3.connect(file or folder / "answers.db", timeout=_PATIENCE, isolation_level=None)
        _write_ahead(self._database)
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value TEXT, time REAL) WITHOUT ROWID")

    def get(self, key: str) -> dict[str, Any] | None:
        """What was kept under a key."""
        found = self._database.execute("SELECT value FROM answers WHERE key = ?", (key,)).fetchone()
        return dict(json.loads(found[0])) if found else None

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep a value, in place of one that is there."""
        # A server may send half a surrogate pair, which is no UTF-8.
        text = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
        self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (key, text, time.time()))

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _write_ahead(database: sqlite3.Connection) -> None:
    """Let readers and a writer work side by side.

    SQLite does not wait for another process that asks for the same of a new file, whatever its timeout.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            database.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(_PAUSE)


def key(**facts: Any) -> str:
    """The key of an answer: a digest of all that it depends on."""
    return digest.row({"format": FORMAT, **facts})
