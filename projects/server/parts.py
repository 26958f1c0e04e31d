"""What a server consists of: PostgreSQL, SeaweedFS and MLflow, each as the command and the environment that start it.

`compose.yaml` starts the same in containers; a test compares the two.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from keys import Keys

LOOPBACK = "127.0.0.1"
BUCKET = "mlflow"
REGION = "us-east-1"
"""SeaweedFS has none; signatures want one."""

HOSTS = ["localhost", "127.0.0.1", "[::1]", "0.0.0.0", "localhost:*", "127.0.0.1:*", "[[]::1]:*", "0.0.0.0:*"]
HOSTS += ["192.168.*", "10.*", *(f"172.{number}.*" for number in range(16, 32)), "fc00:*", "fd00:*"]
"""By what MLflow may be called unless it is told: it forgets these where it is told names. A test compares them with it."""

STORE = ["server", "-master.telemetry=false", "-master.volumeSizeLimitMB=1024", "-volume.max=0", "-volume.preStopSeconds=0"]
STORE += ["-filer", "-s3", "-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
"""What SeaweedFS is told wherever it runs: as much as fits on the disk, nothing of itself to others, no ports but S3's."""

DATABASE = ["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--data-checksums"]
"""With what PostgreSQL's folder is made: passwords for everybody, and pages that tell when they are spoiled."""


class ServerError(Exception):
    """What a person can mend, as one line."""


@dataclass(frozen=True)
class Part:
    """A process of the server."""

    name: str
    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Besides that of this process."""
    ending: int = signal.SIGTERM
    """Signal on which it ends in order."""
    account: str = ""
    """Whose process it is; empty is whoever starts the server."""


@dataclass(frozen=True)
class Addresses:
    """Where the parts find each other."""

    database: str = LOOPBACK
    database_port: int = 5432
    store: str = f"http://{LOOPBACK}:8333"
    """S3, as MLflow and, with `--direct`, its clients reach it."""


def postgres(binaries: Path, folder: Path, port: int, account: str) -> Part:
    """The database, which listens on loopback only and asks for passwords (SCRAM, set by initdb)."""
    words = [str(binaries / "postgres"), "-D", str(folder), "-p", str(port), "-c", f"listen_addresses={LOOPBACK}"]
    # SIGINT: connections are closed, nothing is lost; SIGTERM would wait for the clients.
    return Part("postgres", [*words, "-c", "unix_socket_directories="], ending=signal.SIGINT, account=account)


def seaweedfs(folder: Path, host: str, ports: list[int], pair: Mapping[str, str]) -> Part:
    """The store: S3 with signatures; its own ports are on loopback, S3's where `host` says.

    Args:
        folder: where it works; `data` is in it.
        host: address that S3 listens on.
        ports: eight free ones, the first for S3.
        pair: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: it asks everybody for a signature by these.
    """
    s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = map(str, ports)
    words = [program("weed"), "-logtostderr=true", *STORE, f"-dir={folder / 'data'}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}"]
    words += [f"-master.port={master}", f"-master.port.grpc={master_grpc}", f"-volume.port={volume}"]
    words += [f"-volume.port.grpc={volume_grpc}", f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}"]
    words += [
        f"-filer.localSocket={folder / 'filer.sock'}",
        f"-s3.port={s3}",
        f"-s3.port.grpc={s3_grpc}",
        f"-s3.ip.bind={host}",
    ]
    return Part("seaweedfs", words, pair)


def mlflow(host: str, port: int, workers: int, names: str = "", url: str = "") -> list[str]:
    """MLflow's command, from `mlflow` on.

    Args:
        host: address that it listens on.
        port: its port.
        workers: processes.
        names: names by which browsers and clients may call it besides localhost and private addresses, with commas.
        url: an address by which they may call it as well.
    """
    words = ["server", "--app-name", "basic-auth", "--host", host, "--port", str(port), "--workers", str(workers)]
    words += ["--serve-artifacts", "--artifacts-destination", f"s3://{BUCKET}/artifacts"]
    return [*words, *(word for option, value in _called(port, names, url).items() for word in (option, value))]


def mlflow_names(port: int, names: str, url: str) -> dict[str, str]:
    """The same names as variables, for a command that is written down without them; none where there are none.

    Args:
        port: of the server.
        names: as for `mlflow`.
        url: likewise.
    """
    variables = {
        "--allowed-hosts": "MLFLOW_SERVER_ALLOWED_HOSTS",
        "--cors-allowed-origins": "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS",
    }
    return {variables[option]: value for option, value in _called(port, names, url).items()}


def listed(names: str) -> list[str]:
    """The names of a text that has commas between them."""
    return [each.strip() for each in names.split(",") if each.strip()]


def mlflow_environment(folder: str, where: Addresses, known: Keys, direct: bool) -> dict[str, str]:
    """What MLflow is told besides.

    Args:
        folder: holds `auth.ini` and `pgpass`.
        where: the other parts.
        known: the keys.
        direct: large files travel between clients and the store.
    """
    return {
        "MLFLOW_BACKEND_STORE_URI": database_uri(where, "mlflow"),
        "PGPASSFILE": f"{folder}/pgpass",  # so that no address holds a password
        "MLFLOW_AUTH_CONFIG_PATH": f"{folder}/auth.ini",
        "MLFLOW_AUTH_ADMIN_PASSWORD": known.admin,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": known.cookies,
        **store_environment(where, known),
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": str(direct).lower(),
        "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": str(direct).lower(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }


def store_environment(where: Addresses, known: Keys) -> dict[str, str]:
    """How a program reaches the store."""
    return {
        "MLFLOW_S3_ENDPOINT_URL": where.store,
        "AWS_ACCESS_KEY_ID": known.store_id,
        "AWS_SECRET_ACCESS_KEY": known.store_secret,
        "AWS_DEFAULT_REGION": REGION,
    }


def database_uri(where: Addresses, name: str) -> str:
    """Address of a database, without its password; SQLAlchemy 2.1 would take another driver where none is named."""
    return f"postgresql+psycopg2://mlflow@{where.database}:{where.database_port}/{name}"


def auth(where: Addresses) -> str:
    """Settings of MLflow's basic auth: who has an account reads all and begins projects; more is given (`users.py`).

    A password is looked up once a minute: to hash it at each request takes three quarters of a server's time.
    """
    return f"""[mlflow]
default_permission = USE
auth_cache_ttl_seconds = 60
database_uri = {database_uri(where, "mlflow_auth")}
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


def program(name: str) -> str:
    """A program beside this Python, else of the PATH.

    Raises:
        ServerError: it is not installed.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise ServerError(f"{name} is not installed; pip install 'mlops-llm[server]'")
    return found


def binaries() -> Path:
    """The folder of PostgreSQL's programs: of the PATH, of `pg_config`, or where packages of systems put them; the newest.

    Raises:
        ServerError: there is none.
    """
    there = [Path(found).resolve().parent for name in ("postgres", "initdb") if (found := shutil.which(name))]
    if shutil.which("pg_config"):
        said = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=False).stdout.strip()
        there.append(Path(said))
    for pattern in (
        "/usr/lib/postgresql/*/bin",
        "/usr/pgsql-*/bin",
        "/opt/homebrew/opt/postgresql@*/bin",
        "/usr/local/pgsql/bin",
    ):
        there += sorted(Path("/").glob(pattern.lstrip("/")), key=_release, reverse=True)
    for each in there:
        if (each / "postgres").exists() and (each / "initdb").exists():
            return each
    raise ServerError(
        "PostgreSQL's programs (postgres, initdb) are not found; apt-get install postgresql, or put them on the PATH"
    )


def _release(folder: Path) -> tuple[int, ...]:
    return tuple(int(digits) for digits in "".join(each if each.isdigit() else " " for each in str(folder)).split())


def _called(port: int, names: str, url: str) -> dict[str, str]:
    """MLflow's options for names besides those that it allows by itself, which it forgets once it is told any."""
    told = listed(names) + ([str(urlsplit(url).hostname)] if url else [])
    if not told:
        return {}
    hosts = [*HOSTS, *(f"{name}{ending}" for name in told for ending in ("", ":*"))]
    origins = _origins(told, port) + ([url.rstrip("/")] if url else [])
    return {"--allowed-hosts": _once(hosts), "--cors-allowed-origins": _once(origins)}


def _origins(names: list[str], port: int) -> list[str]:
    """Pages that may write: a proxy's and MLflow's own. None has a pattern for its port: flask_cors reads one as a prefix."""
    return [f"{page}{name}{at}" for name in names for page, at in (("https://", ""), ("http://", ""), ("http://", f":{port}"))]


def _once(words: list[str]) -> str:
    return ",".join(dict.fromkeys(words))
