"""A team's server without Docker: PostgreSQL, SeaweedFS and MLflow with accounts, as one tree of processes.

`make server`, or `python projects/server/serve.py`; Ctrl-C ends all of it. See README.md.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from address import VARIABLE, of_people
from keys import Keys, keys, passfile, variables, write
from parts import (
    DATABASE,
    LOOPBACK,
    Addresses,
    Part,
    ServerError,
    auth,
    binaries,
    database_uri,
    mlflow,
    mlflow_environment,
    mlflow_names,
    store_environment,
)
from parts import postgres as postgres_part
from parts import seaweedfs as seaweedfs_part
from tree import Tree, as_account, end_left_over, last_line

_DATABASES = ("mlflow", "mlflow_auth")
CONTAINERS = Addresses("postgres", 5432, "http://seaweedfs:8333")
"""Names of the services in compose.yaml."""


def main() -> int:
    """Start the server, and end it when it is told to; 0 ended as asked, 1 a part failed, 2 it cannot start so."""
    asked = _arguments()
    folder = asked.folder.absolute()
    try:
        _check(asked)
        lock = _own(folder)
        known = _written(folder, asked)
    except (ServerError, OSError) as error:
        return _say(error, 2)
    if asked.write_only:
        print(f"keys and settings are in {folder}")
        return 0
    end_left_over(folder)
    tree, begun = Tree(folder), time.monotonic()
    try:
        ready = _started(tree, folder, asked, known)
        if ready:
            print(f"ready after {time.monotonic() - begun:.0f} s: http://{asked.host}:{asked.port}  (Ctrl-C ends)", flush=True)
            print(f"user admin, and where it is: {folder / 'admin.env'}", flush=True)
            tree.wait()
    except ServerError as error:
        return _say(error, 1)
    finally:
        tree.end()
        os.close(lock)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="serve.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--folder", type=Path, default=Path("server"), help="all that the server keeps (./server)")
    add("--host", default=LOOPBACK, help="address that it listens on; 0.0.0.0 is every one of this machine (127.0.0.1)")
    add("--port", type=int, default=5000, help="its port (5000)")
    add("--workers", type=int, default=2, help="processes of MLflow, 0.3 GB each (2)")
    add("--names", default="", help="names by which it may be called, with commas; localhost and private addresses always")
    add("--url", default="", help="address that people's accounts get (https://NAME, the first of --names; else its own)")
    add("--direct", default="", metavar="HOST", help="large files go to the store under this address, not through MLflow")
    add("--store-port", type=int, default=0, help="port of the store's S3, for --direct behind a firewall (a free one)")
    add("--account", default="postgres", help="whose process PostgreSQL is where root starts the server (postgres)")
    add("--upgrade", action="store_true", help="bring the database of an older MLflow up to date; back it up before")
    add("--write-only", action="store_true", help="only draw keys and write settings with --names and --url, for compose.yaml")
    return parser.parse_args()


def _check(asked: argparse.Namespace) -> None:
    """See that all is there before anything is made."""
    of_people(asked.url, asked.names, _here(asked))
    if asked.write_only:
        return
    binaries()
    for module in ("boto3", "psycopg2", "flask_wtf"):
        if find_spec(module) is None:
            raise ServerError(f"{module} is not installed; pip install 'mlops-llm[server]'")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((asked.host, asked.port))
        except OSError as error:
            raise ServerError(f"cannot listen on {asked.host}:{asked.port} ({error.strerror}); take another --port") from error
    if os.geteuid() == 0:
        try:
            pwd.getpwnam(asked.account)
        except KeyError as error:
            raise ServerError(
                f"PostgreSQL refuses root, and there is no account '{asked.account}'; name one: --account"
            ) from error


def _here(asked: argparse.Namespace) -> str:
    """Its address on this machine."""
    return f"http://{LOOPBACK if asked.host == '0.0.0.0' else asked.host}:{asked.port}"


def _own(folder: Path) -> int:
    """Make the folder, and see that no other server works in it."""
    for each in (folder, folder / "logs", folder / "seaweedfs" / "data"):
        each.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)  # PostgreSQL's account passes through
    for each in ("seaweedfs", "logs"):  # what a client said is in the logs
        (folder / each).chmod(0o700)
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ServerError(f"a server works in {folder} already; end it, or take another --folder") from error
    return lock


def _written(folder: Path, asked: argparse.Namespace) -> Keys:
    """Write keys and settings; what containers read has their names of each other."""
    known = keys(folder)
    passfile(folder, known)
    if asked.write_only:
        write(folder / "compose.database_owner", known.database_owner)
        variables(folder / "compose.postgres.env", {"MLFLOW_DATABASE_PASSWORD": known.database})
        write(folder / "compose.auth.ini", auth(CONTAINERS))
        told = mlflow_environment("/run/secrets", CONTAINERS, known, direct=False)
        told = {name: told[name] for name in told if name not in COMPOSED}
        variables(folder / "compose.env", told | mlflow_names(asked.port, asked.names, asked.url))
    here = _here(asked)
    told = {"MLFLOW_TRACKING_URI": here, "MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": known.admin}
    variables(folder / "admin.env", told | {VARIABLE: of_people(asked.url, asked.names, here)})
    return known


COMPOSED = (
    "MLFLOW_BACKEND_STORE_URI",
    "PGPASSFILE",
    "MLFLOW_AUTH_CONFIG_PATH",
    "MLFLOW_S3_ENDPOINT_URL",
    "AWS_DEFAULT_REGION",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION",
    "MLFLOW_DISABLE_TELEMETRY",
    "DO_NOT_TRACK",
)
"""What MLflow is told in compose.yaml itself; the rest of its environment, keys and names, is in `compose.env`."""


def _started(tree: Tree, folder: Path, asked: argparse.Namespace, known: Keys) -> bool:
    """Start part after part; False where the end is wanted before all are ready."""
    s3, database, *others = _free_ports(9)
    store = asked.direct or LOOPBACK
    s3 = asked.store_port or s3
    where = Addresses(LOOPBACK, database, f"http://{store}:{s3}")
    account = asked.account if os.geteuid() == 0 else ""
    _made(binaries(), folder / "postgres", account, known)
    seen = asked.host if asked.direct else LOOPBACK
    tree.start(seaweedfs_part(folder / "seaweedfs", seen, [s3, *others], store_environment(where, known)))
    tree.start(postgres_part(binaries(), folder / "postgres", database, account))
    if not tree.wait(lambda: _answers(database, known), 300):
        return False
    _databases(database, known)
    write(folder / "auth.ini", auth(where) if not (folder / "auth.ini").exists() else _moved(folder / "auth.ini", where))
    told = mlflow_environment(str(folder), where, known, bool(asked.direct))
    variables(folder / "parts.env", _for_backups(folder, database, where, known))
    if not _prepared(tree, folder, told, asked.upgrade):
        return False
    command = [sys.executable, "-m", "mlflow", *mlflow(asked.host, asked.port, asked.workers, asked.names, asked.url)]
    tree.start(Part("mlflow", command, told))
    return tree.wait(lambda: _healthy(f"{_here(asked)}/health"), 180)


def _for_backups(folder: Path, port: int, where: Addresses, known: Keys) -> dict[str, str]:
    """What pg_dump, psql and S3's tools want to know."""
    database = {"PGHOST": LOOPBACK, "PGPORT": str(port), "PGUSER": "postgres", "PGPASSFILE": str(folder / "pgpass")}
    return database | {"PGDATABASE": "mlflow", "AWS_ENDPOINT_URL": where.store} | store_environment(where, known)


def _made(programs: Path, folder: Path, account: str, known: Keys) -> None:
    """Make the database's folder, once; a first attempt that was cut off begins anew."""
    if (folder / "PG_VERSION").exists() and (folder / "made").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    password = write(folder.with_name("postgres.password"), known.database_owner)
    try:
        if account:
            found = pwd.getpwnam(account)
            for each in (folder, password):
                os.chown(each, found.pw_uid, found.pw_gid)
        words = ["-D", str(folder), "--username=postgres", f"--pwfile={password}", *DATABASE, "--no-instructions"]
        if subprocess.run(["test", "-w", folder], cwd="/", check=False, **as_account(account)).returncode:
            raise ServerError(f"the account '{account}' cannot reach {folder}; take a --folder whose parents it may enter")
        done = subprocess.run(
            [programs / "initdb", *words], cwd="/", capture_output=True, text=True, check=False, **as_account(account)
        )
        if done.returncode:
            raise ServerError(f"initdb failed: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
        (folder / "made").touch()
    finally:
        password.unlink(missing_ok=True)


def _databases(port: int, known: Keys) -> None:
    """Make MLflow's role and databases where they are not there."""
    import psycopg2
    from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT, encrypt_password

    with closing(psycopg2.connect(host=LOOPBACK, port=port, user="postgres", password=known.database_owner)) as owner:
        owner.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
        with owner.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = 'mlflow'")
            if not cursor.fetchone():
                # What the database's log could hold of a statement that fails is no password.
                cursor.execute(
                    "CREATE ROLE mlflow LOGIN PASSWORD %s", [encrypt_password(known.database, "mlflow", owner, "scram-sha-256")]
                )
            for name in _DATABASES:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
                if not cursor.fetchone():
                    cursor.execute(f"CREATE DATABASE {name} OWNER mlflow")


def _prepared(tree: Tree, folder: Path, told: dict[str, str], upgrade: bool) -> bool:
    """Make the bucket and the tables (`prepare.py`); False where the end is wanted."""
    log = folder / "logs" / "prepare.log"
    words = [sys.executable, str(Path(__file__).with_name("prepare.py")), *(["--upgrade"] if upgrade else [])]
    with log.open("wb") as out:
        process = subprocess.Popen(words, env={**os.environ, **told}, stdout=out, stderr=out, start_new_session=True)
    try:
        if not tree.wait(lambda: process.poll() is not None, 1800):
            return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        raise ServerError(last_line(log).removeprefix("error: "))
    return True


def _moved(file: Path, where: Addresses) -> str:
    """Settings of basic auth, which an operator may have changed, with the database where it is now."""
    lines = file.read_text("utf-8").splitlines()
    uri = f"database_uri = {database_uri(where, 'mlflow_auth')}"
    return "\n".join(uri if each.startswith("database_uri") else each for each in lines) + "\n"


def _answers(port: int, known: Keys) -> bool:
    """Whether the database takes connections; after a crash it reads its log first."""
    import psycopg2

    try:
        psycopg2.connect(host=LOOPBACK, port=port, user="postgres", password=known.database_owner, connect_timeout=5).close()
    except psycopg2.OperationalError as error:
        if "password authentication failed" in str(error):
            raise ServerError(
                "the database has another password than keys.json; restore the keys that were backed up"
            ) from error
        return False
    return True


def _healthy(address: str) -> bool:
    try:
        with urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for each in probes:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in probes]
    finally:
        for each in probes:
            each.close()


def _say(error: BaseException, code: int) -> int:
    print(f"error: {error}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
