"""What MLflow needs before it starts: a bucket in the store, and a database of its form. Told by its environment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from parts import BUCKET, ServerError

_PATIENCE = 60.0
"""Seconds in which database and store may come up."""


def main() -> int:
    """Prepare both; `--upgrade` lets a database of an older MLflow be changed. 0 done, 1 not."""
    try:
        _wait("store", _has_bucket)
        _migrate(os.environ["MLFLOW_BACKEND_STORE_URI"], "--upgrade" in sys.argv)
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _migrate(uri: str, upgrade: bool) -> None:
    """Bring an empty database to MLflow's form, another only where that is asked for.

    Raises:
        ServerError: it may not be changed, or cannot.
    """
    found = state(uri)
    if found == "newer":
        raise ServerError("the database was upgraded by a newer MLflow than this one; install that one, or restore a backup")
    if found == "older" and not upgrade:
        raise ServerError("the database is of an older MLflow; back it up (README.md), then start once with --upgrade")
    if found != "current":
        print("the database gets its tables" if found == "empty" else "the database is upgraded", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "mlflow", "db", "upgrade", uri], check=False, capture_output=True, text=True
        )
        print(done.stdout, done.stderr, flush=True)
        if done.returncode:
            raise ServerError("mlflow db upgrade failed, see above")


def state(uri: str) -> str:
    """Whether MLflow's tables are `empty`, `older`, `current` or `newer` than the MLflow that is installed."""
    import psycopg2
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    with closing(psycopg2.connect(uri.replace("+psycopg2", ""))) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('alembic_version')")
        if cursor.fetchone() == (None,):
            return "empty"
        cursor.execute("SELECT version_num FROM alembic_version")
        (found,) = cursor.fetchone() or ("",)
    (place,) = find_spec("mlflow").submodule_search_locations or [""]  # type: ignore[union-attr]
    scripts = ScriptDirectory(str(Path(place) / "store" / "db_migrations"))
    if found == scripts.get_current_head():
        return "current"
    try:
        return "older" if not found or scripts.get_revision(found) else "newer"
    except CommandError:
        return "newer"


def _has_bucket() -> bool:
    """Whether the store answers and has the bucket, which is made if need be."""
    client = _store()
    return _attempt(lambda: client.head_bucket(Bucket=BUCKET)) or _attempt(lambda: client.create_bucket(Bucket=BUCKET))


def _store() -> Any:
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1})
    return boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"], config=config)


def _attempt(ask: Callable[[], object]) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        ask()
    except (BotoCoreError, ClientError) as error:
        print(f"not yet: {error}", flush=True)
        return False
    return True


def _wait(what: str, ready: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE
    while not ready():
        if time.monotonic() > until:
            raise ServerError(f"the {what} is not ready after {_PATIENCE:.0f} s")
        time.sleep(0.3)


if __name__ == "__main__":
    sys.exit(main())
