"""A server on a local record for a process elsewhere: MLflow's own, behind certificates that only the two know."""

from __future__ import annotations

import datetime
import ipaddress
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from mlops_llm.ports import LOOPBACK
from mlops_llm.tracking.store import database_file, local_path

_ARTIFACTS = "mlruns"
"""Folder of artifacts beside a local database."""
_DAYS = 3650
"""Days for which a certificate is good, before and after now: another machine's clock may be anywhere."""


def artifact_root(record: str, location: str) -> str:
    """Address of the folder of all experiments' artifacts; empty where a run's artifacts are not in a folder.

    Args:
        record: its address.
        location: of a run's artifacts: `ROOT/PROJECT/RUN/artifacts`, where a project's name may have slashes.
    """
    folder, file = local_path(location), database_file(record)
    if folder is None:
        return ""
    beside = file.parent / _ARTIFACTS if file else None
    return (beside if beside and folder.is_relative_to(beside) else folder.parents[2]).as_uri()


def server(address: str, root: str, port: int, identity: Path) -> tuple[list[str], dict[str, str]]:
    """The command of a server, and its environment.

    It answers on this machine's loopback, and only to who shows the certificate in `identity`; it shows the same one, so that
    nobody else can stand for it.

    Args:
        address: of the record.
        root: address of the folder of artifacts that it hands over.
        port: on which it listens.
        identity: file that `write_identity` wrote.
    """
    pem = shlex.quote(str(identity))
    secure = f"--ssl-keyfile {pem} --ssl-certfile {pem} --ssl-ca-certs {pem} --ssl-cert-reqs 2 --log-level warning"
    words = [
        *(sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"),
        *("--default-artifact-root", root, "--serve-artifacts"),
        *("--artifacts-destination", root, "--uvicorn-opts", secure),
    ]
    others = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING_")}
    # The address may hold a password, which a command line would show to everybody on this machine.
    own = {"MLFLOW_BACKEND_STORE_URI": address, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return words, others | own | {"MLFLOW_DISABLE_TELEMETRY": "true"}


def credentials(identity: str) -> Mapping[str, str]:
    """Variables with which MLflow's client shows a certificate, and asks for it."""
    return {"MLFLOW_TRACKING_SERVER_CERT_PATH": identity, "MLFLOW_TRACKING_CLIENT_CERT_PATH": identity}


def write_identity(file: Path) -> Path:
    """Make a key and its certificate for this machine's loopback address, for this user's eyes only."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mlops_llm")])
    now, good = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=_DAYS)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - good)
        .not_valid_after(now + good)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(private + public)
    return file
