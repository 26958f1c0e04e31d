"""Passwords of a server: drawn once, kept in files that only their owner reads, never printed and in no command line."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "keys.json"
_ROLE = "mlflow"


@dataclass(frozen=True)
class Keys:
    """What the parts of a server know each other by."""

    database_owner: str
    """Password of `postgres`, who owns PostgreSQL's databases."""
    database: str
    """Password of `mlflow`, as whom MLflow uses them."""
    store_id: str
    store_secret: str
    """Pair of keys of the S3 store."""
    admin: str
    """Password of MLflow's user `admin`."""
    cookies: str
    """What MLflow signs its pages' cookies with."""


def keys(folder: Path) -> Keys:
    """The keys of a folder, drawn at the first time."""
    file = folder / FILE
    if not file.exists():
        drawn = Keys(*(secrets.token_urlsafe(24) for _ in range(2)), f"MLOPS{secrets.token_hex(8).upper()}", *_rest())
        write(file, json.dumps(asdict(drawn), indent=1) + "\n")
    return Keys(**json.loads(file.read_text("utf-8")))


def passfile(folder: Path, known: Keys) -> Path:
    """The file from which libpq takes MLflow's password, wherever the database is: PGPASSFILE."""
    return write(folder / "pgpass", f"*:*:*:{_ROLE}:{known.database}\n*:*:*:postgres:{known.database_owner}\n")


def variables(file: Path, values: Mapping[str, str]) -> Path:
    """Write variables as a shell (`set -a; . FILE`), Compose and systemd read them."""
    return write(file, "".join(f"{name}={value}\n" for name, value in values.items()))


def write(file: Path, text: str) -> Path:
    """Write a file that only its owner may read, whole or not at all."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    draft.replace(file)
    return file


def _rest() -> tuple[str, str, str]:
    return secrets.token_urlsafe(30), secrets.token_urlsafe(18), secrets.token_urlsafe(32)
