"""What a record that cannot be used is told as, and whose clock judges who lives."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from mlops_llm.tracking import clock, environment, refusals
from mlops_llm.tracking.store import address, is_away

SERVER = "https://li:geheim@mlflow.example"


class RestError(Exception):
    """As MLflow raises them: with a name of the code."""

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.error_code = code


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RestError("API request to endpoint /api/2.0/mlflow/runs/create failed with error code 403 != 200."), "(runs/create)"),
        (RestError("no", "PERMISSION_DENIED"), "gives 'li' no right to that"),
        (RestError("API request to endpoint /x failed with error code 401 != 200. Response body: ''"), "refuses the name"),
        (
            RestError("Detected out-of-date database schema (found version 0123456789ab, but expected 0a1b2c)"),
            "of a newer MLflow",
        ),
        (RestError("Can't locate revision identified by 'ffffffffffff'"), "of a newer MLflow"),
        (
            RestError("Detected out-of-date database schema (found version 451aebb31d03, but expected 0a1b2c)"),
            "mlflow db upgrade",
        ),
        (RestError("Max retries exceeded (Caused by ResponseError('too many 503 error responses'))"), "with errors (503)"),
    ],
)
def test_it_is_one_line_with_the_remedy_and_without_a_password(error, said, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "li")
    told = refusals.told(error, SERVER)
    assert told is not None and said in str(told)
    assert told.remedy and "\n" not in str(told) and "geheim" not in str(told)


def test_other_errors_are_not_its_own():
    assert refusals.told(RestError("parameter 'x' is 401 long", "INVALID_PARAMETER_VALUE"), SERVER) is None


def test_what_is_refused_waits_as_what_cannot_be_reached():
    assert is_away(RestError("403 Client Error: Forbidden for url: http://x"))
    assert is_away(ValueError()) is False
    assert refusals.cause(RestError("no", "UNAUTHENTICATED")) == "it refuses the password"


@pytest.mark.parametrize("hours", [-1.0, 0.0, 1.0])
def test_heartbeats_go_by_the_servers_clock(hours, monkeypatch, capsys):
    real = time.time()
    monkeypatch.setattr(clock._Difference, "seconds", 0.0)
    monkeypatch.setattr(clock._Difference, "told", False)
    monkeypatch.setattr(time, "time", lambda: real + hours * 3600)
    for _ in range(2):
        clock.heard(formatdate(real))
    assert abs(clock.now() - real) < clock.NOTICED
    assert capsys.readouterr().err.count("this machine's clock is") == bool(hours)
    other = {"run.host": "other/1", "run.heartbeat": str(int(real - environment.SILENCE / 2))}
    assert environment.believed_alive(other)
    assert not environment.believed_alive(other | {"run.heartbeat": str(int(real - environment.SILENCE * 2))})
    for nothing in (None, "", "yesterday"):
        clock.heard(nothing)
    assert abs(clock.now() - real) < clock.NOTICED


def test_postgresql_is_reached_by_the_driver_that_the_extra_brings(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://mlflow@db/mlflow")
    assert address() == "postgresql+psycopg2://mlflow@db/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg://mlflow@db/mlflow")
    assert address() == "postgresql+psycopg://mlflow@db/mlflow"
