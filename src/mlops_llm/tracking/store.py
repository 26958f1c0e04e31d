"""Where the record is kept: address, first creation, reachability, links."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import ssl
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname, urlopen

from mlops_llm import console
from mlops_llm.errors import UserError, first_line
from mlops_llm.files import check_part
from mlops_llm.tracking import clock, proxied
from mlops_llm.tracking.refusals import check_form, is_denied, silent, told
from mlops_llm.tracking.secrets import mask_address

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# MLflow's own seven retries with doubling waits hold training up for minutes when a server goes away.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

PATIENCE = "MLOPS_LLM_PATIENCE"
"""Variable that says for how many seconds a command waits at its start for a server that does not answer."""
PAGES = "MLOPS_LLM_PAGES"
"""Variable that says where a person looks at the record whose server this process knows by another address."""
LOCAL_PAGES = "http://127.0.0.1:5000"


_SHARED = {"nfs", "nfs3", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "lustre", "beegfs", "ceph", "fuse.ceph", "gpfs", "afs"}
"""File systems of networks."""


@dataclass(frozen=True)
class Store:
    """An open connection to the record."""

    client: Any
    """`tracking.client.Client`"""
    address: str

    @property
    def is_server(self) -> bool:
        """Whether the record is behind HTTP."""
        return self.address.startswith("http")

    def experiment(self, project: str, setting: str = "project=") -> str:
        """Return the id of a project's experiment, made at its first use; `setting` is what names it."""
        from mlflow.exceptions import MlflowException

        found = self.known_experiment(project, setting)
        if found:
            return found
        try:
            return str(self.client.create_experiment(project, artifact_location=self._artifacts(project)))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return self.known_experiment(project, setting)

    def known_experiment(self, project: str, setting: str = "project=") -> str:
        """Return the id of a project's experiment; empty where none is there and one can be made.

        Raises:
            UserError: it was deleted, or none can have this name.
        """
        found = self.client.get_experiment_by_name(project)
        if found is None:
            _check_name(project, setting)
            return ""
        if found.lifecycle_stage != "active":
            raise UserError(
                f"the experiment '{project}' was deleted in MLflow",
                remedy=f"restore it there or choose another {setting}",
            )
        return str(found.experiment_id)

    def link(self, experiment: str, run: str = "") -> str:
        """Address of a run's page (or of the list of runs) in the MLflow UI."""
        page = f"runs/{run}" if run else "runs"
        return f"{self._pages}/experiments/{experiment}/{page}?workflowType=machine_learning"

    def link_to_compare(self, experiment: str, runs: Sequence[str]) -> str:
        """Address of the page that sets the numbers and settings of runs side by side."""
        listed = (quote(json.dumps(each, separators=(",", ":"))) for each in (runs, [experiment]))
        return "{}/compare-runs?runs={}&experiments={}".format(self._pages, *listed)

    def link_to_answers(self, experiment: str, one: str, other: str) -> str:
        """Address of the page that sets the answers of two evaluations side by side."""
        return f"{self._pages}/experiments/{experiment}/evaluation-runs?selectedRunUuid={one}&compareToRunUuid={other}"

    @property
    def _pages(self) -> str:
        shown = os.environ.get(PAGES) or (mask_address(self.address).rstrip("/") if self.is_server else LOCAL_PAGES)
        return f"{shown}/#"

    def hint(self) -> str:
        """How to start the UI when no server runs; empty for a server."""
        if self.is_server:
            return ""
        command = "mlflow ui"
        beside = Path(sys.executable).with_name("mlflow")
        if shutil.which("mlflow") != str(beside) and beside.exists():
            # The environment is not activated: `make train`, or its Python called by path.
            command = f"{Path(os.path.relpath(beside))} ui"
        if self.address == default_address():
            return command
        return f"{command} --backend-store-uri {mask_address(self.address)}"

    def reachable(self) -> bool:
        """Ask the server for a sign of life, within two seconds; a database is taken to be there."""
        return not self.is_server or not _silence(self.address, 2)

    def _artifacts(self, project: str) -> str | None:
        """Artifacts of a local database lie beside it, wherever the command was started."""
        file = database_file(self.address)
        if file:
            return (file.parent / "mlruns" / project).as_uri()
        root = proxied.root()
        return f"{root}/{project}" if root else None


def default_address() -> str:
    """MLflow's own default, as an absolute address."""
    return f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def address() -> str:
    """`MLFLOW_TRACKING_URI`, or the default."""
    given = os.environ.get("MLFLOW_TRACKING_URI") or default_address()
    file = database_file(given)
    if given.startswith("postgresql://"):
        return given.replace("://", "+psycopg2://", 1)  # SQLAlchemy 2.1 would take a driver that the extra does not bring
    return f"sqlite:///{file}" if file else given


def database_file(address: str) -> Path | None:
    """The file of an SQLite address, absolute; None for any other."""
    if not address.startswith("sqlite:///"):
        return None
    return Path(address.removeprefix("sqlite:///")).absolute()


def local_path(location: str) -> Path | None:
    """The folder of a local artifact address; None for a remote one, also where the folder is that of another machine."""
    if proxied.holds(location):
        return None
    try:
        parts = urlsplit(location)
    except ValueError:  # no address, which somebody may have written down all the same
        return None
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return Path(location) if parts.scheme == "" else None


def check_address(where: str = "") -> None:
    """See whether the record can be there, before any other work and without importing mlflow.

    Args:
        where: another address than this process's.

    Raises:
        UserError: the address is none, or the server does not answer.
    """
    where = where or address()
    _check(where)
    if where.startswith("http"):
        _knock(where, _patience())


def check_sharing(where: str) -> None:
    """See that several machines may write the record at an address.

    Raises:
        UserError: it is a database file that a network's file system shares, which their locks and maps do not protect.
    """
    file = database_file(where)
    kind = _file_system(file) if file else ""
    if kind in _SHARED:
        remedy = "keep the record behind a server: MLFLOW_TRACKING_URI=http://HOST:PORT"
        raise UserError(f"is on {kind}, where SQLite breaks when several machines write", str(file), remedy)


def connect() -> Store:
    """Connect to the record of this folder or of `MLFLOW_TRACKING_URI`, creating a local database at its first use.

    Raises:
        UserError: the server does not answer, or the address is none that MLflow knows.
    """
    return connect_to(address())


def exists() -> bool:
    """Whether there is a record already; a server is taken to be one."""
    file = database_file(address())
    return file is None or file.exists()


def check_project(project: str, setting: str = "project=") -> None:
    """See that a run can lie in a project; nothing is made.

    Raises:
        UserError: it was deleted, or none can have this name.
    """
    if exists():
        connect().known_experiment(project, setting)
    else:
        _check_name(project, setting)


@cache
def connect_to(where: str) -> Store:
    """Connect to the record at an address, as `connect` does."""
    check_address(where)
    file = database_file(where)
    if file:
        _create(file)
    from mlops_llm.tracking.client import Client

    # MLflow would print the traceback of each failed write, which is kept and delivered later.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    proxied.register()
    try:
        if not file and not where.startswith(("http", "databricks")):
            check_form(where)
        client = Client(where)
        _open(client, where)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        remedy = "pip install 'mlops-llm[server]'"
        raise UserError(f"{error.name} is not installed, which this address needs", mask_address(where), remedy) from error
    except Exception as error:
        if known := told(error, where):
            raise known from error
        raise UserError(
            f"the record cannot be opened ({first_line(error)})", mask_address(where), "check MLFLOW_TRACKING_URI"
        ) from error
    return Store(client, where)


def is_away(error: BaseException) -> bool:
    """Tell whether the record cannot be reached now, or not by this account, rather than that a write is wrong."""
    if is_denied(error):
        return True
    seen: BaseException | None = error
    while seen is not None:
        kind = f"{type(seen).__module__}.{type(seen).__name__}"
        if isinstance(seen, ConnectionError | TimeoutError) or kind.startswith(("requests.exceptions.", "urllib3.exceptions.")):
            return True
        if kind == "sqlalchemy.exc.OperationalError":
            return True
        text = str(seen)
        if any(f"error code {code}" in text or f"with status {code}" in text for code in (502, 503, 504)):
            return True
        if "failed with exception HTTPConnectionPool" in text or "Max retries exceeded" in text:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _check_name(project: str, setting: str) -> None:
    for part in project.split("/"):  # its artifacts lie in a folder of this name
        check_part(part, setting.partition("=")[0])


def _open(client: Any, where: str) -> None:
    """Ask the record for something; a server that goes away just now is waited for, as one that was away."""
    until = time.monotonic() + _patience()
    while True:
        try:
            client.search_experiments(max_results=1)
            return
        except Exception as error:
            if not is_away(error) or is_denied(error) or time.monotonic() >= until:
                raise
            time.sleep(1.0)
            check_address(where)


def _patience() -> float:
    return float(os.environ.get(PATIENCE) or 0)


def _check(where: str) -> None:
    scheme = urlsplit(where).scheme
    if scheme == "sqlite" and database_file(where) in (None, Path.cwd()):
        raise UserError("keeps the record in memory, where it is lost", mask_address(where), "use sqlite:///FILE")
    if scheme in ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks") or "+" in scheme:
        return
    raise UserError("is no address for a record", mask_address(where), "use sqlite:///FILE, http://HOST:PORT or postgresql://…")


def _knock(where: str, patience: float) -> None:
    until = time.monotonic() + patience
    reason = _silence(where, 10)
    if reason and patience:
        console.say("waiting for the record")
    while reason and time.monotonic() < until:
        time.sleep(1.0)
        reason = _silence(where, 10)
    if reason:
        raise silent(where, reason)


def _silence(where: str, timeout: float) -> str:
    """Why a server does not answer; empty where it does, be it only to ask for a password."""
    try:
        with urlopen(f"{mask_address(where).rstrip('/')}/health", timeout=timeout, context=_identity(where)) as answer:
            clock.heard(answer.headers.get("Date"))
            return ""
    except HTTPError as error:
        return f"status {error.code}" if error.code >= 500 else ""
    except (OSError, HTTPException, ValueError) as error:
        return first_line(error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error)


def _file_system(file: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """Kind of the file system that a file is on; empty where that is not told."""
    lines = mounts.read_text("utf-8", "replace").splitlines() if mounts.exists() else []
    places = [line.split()[1:3] for line in lines if len(line.split()) > 2]
    around = [(place, kind) for place, kind in places if file.is_relative_to(place.replace("\\040", " "))]
    return max(around, key=lambda each: len(each[0]))[1] if around else ""


def _identity(where: str) -> ssl.SSLContext | None:
    """The certificates with which MLflow's client and the server know each other, where the environment names some."""
    trusted, own = (os.environ.get(f"MLFLOW_TRACKING_{which}_CERT_PATH") for which in ("SERVER", "CLIENT"))
    if not where.startswith("https") or not (trusted or own):
        return None
    context = ssl.create_default_context(cafile=trusted)
    if own:
        context.load_cert_chain(own)
    return context


def _does_not_wait(connection: Any, _: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


def _create(file: Path) -> None:
    """Create the database once, under a lock, complete before it has its name (processes starting together crash otherwise)."""
    if file.exists():
        return
    from filelock import FileLock

    from mlops_llm.files import writable

    with FileLock(f"{writable(file.parent) / file.name}.lock"):
        if file.exists():
            return
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        from mlflow import MlflowClient
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        try:
            # Sixty migrations of an empty file need not each wait for the disk: the file is nobody's until it has its name.
            event.listen(Engine, "connect", _does_not_wait)
            MlflowClient(f"sqlite:///{draft}").search_experiments(max_results=1)
            with closing(sqlite3.connect(draft)) as database:
                # Readers and one writer side by side: twice the speed with several processes.
                database.execute("PRAGMA journal_mode=WAL")
            with draft.open("rb") as whole:
                os.fsync(whole.fileno())
            draft.rename(file)
        except Exception as error:
            draft.unlink(missing_ok=True)
            raise UserError(
                f"the record cannot be created ({first_line(error)})", str(file), "check disk and rights"
            ) from error
        finally:
            event.remove(Engine, "connect", _does_not_wait)
            for rest in ("-wal", "-shm", "-journal"):
                draft.with_name(draft.name + rest).unlink(missing_ok=True)
