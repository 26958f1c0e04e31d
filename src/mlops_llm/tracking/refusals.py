"""What a record that cannot be used, or not by this account, or not with this MLflow, is told as: one line with the remedy."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

from mlops_llm.errors import UserError, first_line
from mlops_llm.tracking.secrets import mask_address


class AwayError(UserError):
    """The record does not answer at the moment."""


_OTHER_FORM = re.compile(r"out-of-date database schema \(found version (\w+), but expected (\w+)\)")
_LOST = re.compile(r"API request to \S+ failed with exception .*?(?P<how>refused|reset by peer|timed out|aborted|$)", re.DOTALL)
_UNKNOWN_FORM = re.compile(r"Can't locate revision identified by '(\w+)'")


def is_denied(error: BaseException) -> bool:
    """Tell whether the server refuses the account, or a right (401, 403)."""
    return bool(_denial(error))


def told(error: BaseException, where: str) -> UserError | None:
    """What a person is told of an error of the record; None of any other.

    Args:
        error: what MLflow, or the database, raised.
        where: address of the record.
    """
    place, text = mask_address(where), _text(error)
    denial = _denial(error)
    if denial == "401":
        named = "MLFLOW_TRACKING_USERNAME" in os.environ
        what = "refuses the name or the password" if named else "asks for a name and a password"
        remedy = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        return UserError(f"the tracking server {what}", place, remedy)
    if denial == "403":
        asked = re.search(r"endpoint /\S*?mlflow\S*?/(\S+) failed", text)
        what = f"gives '{os.environ.get('MLFLOW_TRACKING_USERNAME', '')}' no right to that"
        remedy = "ask its administrator for EDIT on the project (or on the registered model), or take another project="
        return UserError(f"the tracking server {what}" + (f" ({asked[1]})" if asked else ""), place, remedy)
    if form := _OTHER_FORM.search(text) or _UNKNOWN_FORM.search(text):
        return _other_form(form[1], where)
    if failing := re.search(r"too many (5\d\d) error responses|error code (5\d\d)", text):
        what = f"the tracking server answers with errors ({failing[1] or failing[2]})"
        return UserError(what, place, "see its log: its database or its store may be away")
    if lost := _LOST.search(text):
        return silent(where, f"connection {lost['how']}" if lost["how"] else "it went away in between")
    return None


def silent(where: str, reason: str) -> AwayError:
    """What a person is told of a server that does not answer."""
    return AwayError(
        f"the tracking server does not answer ({reason})", mask_address(where), "start it or change MLFLOW_TRACKING_URI"
    )


def check_form(where: str) -> None:
    """See that a team's database has the form of the MLflow that is installed: MLflow itself would change it without a word.

    Raises:
        UserError: it is of another MLflow.
    """
    from alembic.script import ScriptDirectory
    from sqlalchemy import create_engine, inspect, text

    engine = create_engine(where)
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return
            found = str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar())
    finally:
        engine.dispose()
    if found != ScriptDirectory(str(_migrations())).get_current_head():
        raise _other_form(found, where)


def _migrations() -> Path:
    found = find_spec("mlflow")
    (place,) = (found.submodule_search_locations if found else None) or [""]
    return Path(place, "store", "db_migrations")


def _other_form(found: str, where: str) -> UserError:
    """The database has the form of another MLflow."""
    from mlflow.version import VERSION

    place = mask_address(where)
    if _is_known(found):
        return UserError("the database is of an older MLflow", place, f"back it up, then: mlflow db upgrade {place}")
    remedy = "install that one (pip install --upgrade mlflow), or take another database"
    return UserError(f"the database is of a newer MLflow than {VERSION}", place, remedy)


def _is_known(revision: str) -> bool:
    """Whether the MLflow that is installed has had this form of the database."""
    return any(f'revision = "{revision}"' in each.read_text("utf-8") for each in (_migrations() / "versions").glob("*.py"))


def _denial(error: BaseException) -> str:
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen)
        for code in ("401", "403"):
            if f"failed with error code {code} " in text or re.match(rf"{code} Client Error: ", text):
                return code
        if getattr(seen, "error_code", "") in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            return "401" if seen.error_code == "UNAUTHENTICATED" else "403"  # type: ignore[attr-defined]
        seen = seen.__cause__ or seen.__context__
    return ""


def _text(error: BaseException) -> str:
    texts = list[str]()
    seen: BaseException | None = error
    while seen is not None:
        texts.append(str(seen))
        seen = seen.__cause__ or seen.__context__
    return "\n".join(texts)


def cause(error: BaseException) -> str:
    """Why a write waits, in a few words."""
    denial = _denial(error)
    if denial:
        return "it refuses the password" if denial == "401" else "it refuses the right to that"
    failing = re.search(r"too many (5\d\d) error responses", _text(error))
    return f"it answers with errors, {failing[1]}" if failing else first_line(error)
