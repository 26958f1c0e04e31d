"""MLflow's client, whose writes hold too where two processes write one key for the first time at one moment.

MLflow looks whether the key is there and inserts it if not: both look, both insert, and the database refuses one of them,
here as behind a server. To that one the key is there at its next try, and the last value is kept, as always. Likewise where
the key is there when MLflow looks, and deleted before it writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

_TRIES = 5
_MEANWHILE = re.compile("unique constraint|duplicate entry|expected to update 1 row", re.IGNORECASE)
"""What SQLite, PostgreSQL and MySQL say of a key that is there, and SQLAlchemy of one that is there no more."""
_P = ParamSpec("_P")
_R = TypeVar("_R")


def _tried_again(write: Callable[_P, _R]) -> Callable[_P, _R]:
    @wraps(write)
    def written(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        for _ in range(_TRIES - 1):
            try:
                return write(*args, **kwargs)
            except MlflowException as error:
                if not _MEANWHILE.search(str(error)):
                    raise
        return write(*args, **kwargs)

    return written


class Client(MlflowClient):  # type: ignore[misc]
    """The record as MLflow gives access to it."""

    log_batch = _tried_again(MlflowClient.log_batch)
    log_inputs = _tried_again(MlflowClient.log_inputs)
    set_experiment_tag = _tried_again(MlflowClient.set_experiment_tag)
    set_model_version_tag = _tried_again(MlflowClient.set_model_version_tag)
    set_prompt_tag = _tried_again(MlflowClient.set_prompt_tag)
    set_registered_model_alias = _tried_again(MlflowClient.set_registered_model_alias)
    set_registered_model_tag = _tried_again(MlflowClient.set_registered_model_tag)
    set_tag = _tried_again(MlflowClient.set_tag)
