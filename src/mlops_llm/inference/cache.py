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


class Answers:
    """What was answered under a key; several processes may read and write at once."""

    def __init__(self, file: Path | None = None) -> None:
        """Open the file, `answers.db` in the cache's folder if None."""
        folder = writable(file.parent if file else cache_folder())
        self._database = sqlite3.connect(file or folder / "answers.db", timeout=60, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
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


def key(**facts: Any) -> str:
    """The key of an answer: a digest of all that it depends on."""
    return digest.row({"format": FORMAT, **facts})
