"""What tests do without: a disk that has written, and MLflow's sixty migrations of each empty record.

No test cuts the power, so that a process which dies loses nothing of what it gave the system. What MLflow makes of an empty
database is made once and copied; with MLOPS_LLM_MIGRATE in the environment each is made. Commands that are started afresh wait
for both.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import warnings
from contextlib import closing
from functools import cache
from typing import Any


@cache
def hasten() -> None:
    """Let this process and its forks write records without waiting; loads MLflow."""
    from mlflow.store.db import utils
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    os.fsync = lambda file: None  # type: ignore[assignment]
    event.listen(Engine, "connect", _do_not_wait)
    empty, migrate = _migrated(), utils._initialize_tables
    utils._initialize_tables = lambda engine: migrate(engine) if "MLOPS_LLM_MIGRATE" in os.environ else _copy(empty, engine)


def close_records() -> None:
    """Close the files of records that nobody asks for now: MLflow holds those of each as long as the process lives."""
    loaded = (sys.modules.get(f"mlflow.store.{kind}.sqlalchemy_store") for kind in ("tracking", "model_registry"))
    for module in filter(None, loaded):
        for engine in list(module.SqlAlchemyStore._engine_map.values()):
            engine.dispose()


def _do_not_wait(connection: Any, record: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


def _migrated() -> bytes:
    """An empty record of MLflow's, as its own code makes it."""
    from mlflow.store.db import utils
    from sqlalchemy import create_engine

    engine = create_engine("sqlite://")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what its migrations use of SQLAlchemy is out of date
        utils._initialize_tables(engine)
    made = bytes(engine.raw_connection().driver_connection.serialize())
    engine.dispose()
    return made


def _copy(database: bytes, engine: Any) -> None:
    with closing(sqlite3.connect(":memory:")) as source, engine.connect() as target:
        source.deserialize(database)
        source.backup(target.connection.driver_connection)
