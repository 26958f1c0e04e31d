"""This process as the driver of a Ray cluster: of the one that it belongs to, or of one of its own for the time."""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import Any

import psutil

from mlops_llm import console
from mlops_llm.errors import UserError, first_line, need

ADDRESS = "RAY_ADDRESS"
"""Variable with the cluster's address; Ray sets it in a job (launch=ray)."""
_STORE = 4 * 2**30
"""Bytes of a Ray of our own for what its processes share, at most; what is more goes to disk."""
_PATIENCE = 10.0
_ROOM = 103 - len("/ray-12345678/session_2026-11-29_01-26-49_314281_1234567/sockets/plasma_store")
"""Bytes of the path of a folder in which Ray's sockets, of at most 103 on some systems, still fit."""
_SHORT = "/tmp"


def check(where: str) -> None:
    """See that Ray is installed, and that a cluster answers where `RAY_ADDRESS` names one.

    Args:
        where: the setting that wants it, for messages.

    Raises:
        UserError: it is not, or none does.
    """
    need("ray", "ray")
    address = os.environ.get(ADDRESS, "")
    if address.startswith("ray://"):
        what = f"{address} is an address for Ray's client, which passes on no work of this kind"
        raise UserError(what, ADDRESS, f"have the command run on the cluster: launch=ray {where}=ray")
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
        except OSError as error:
            remedy = "start the head, or unset it to use a Ray of this machine alone"
            raise UserError(f"no head of Ray answers at {address} ({first_line(error)})", ADDRESS, remedy) from error


@contextmanager
def joined() -> Iterator[Any]:
    """The module `ray`, connected as long as the context lasts.

    One that is connected already is left so. A Ray of our own listens to this process's children alone (Ray opens its ports to
    the network, so it asks for a token that nobody else knows), and leaves no file.

    Raises:
        UserError: the cluster cannot be joined: it is gone, or of another release; or there is no folder for one of our own.
    """
    import ray

    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get(ADDRESS)
    folder = None if address else _folder()
    own = {} if address else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token_hex(32)}
    with _set({"RAY_USAGE_STATS_ENABLED": "0", **own, **({} if own or _says_mode() else {"RAY_AUTH_MODE": "disabled"})}):
        try:
            _read_anew()
            ray.init(**_how(address, folder))
            yield ray
        except (ConnectionError, RuntimeError, ValueError) as error:
            if ray.is_initialized():
                raise
            said = " ".join(str(error).split())[:300]
            remedy = "see that both are of one release"
            raise UserError(f"the cluster cannot be joined: {said}", address or "ray", remedy) from error
        finally:
            ray.shutdown()
            if folder:
                shutil.rmtree(folder, ignore_errors=True)


def cpus(ray: Any) -> int:
    """Processor cores of all nodes."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def gpus(ray: Any) -> int:
    """GPUs of all nodes."""
    return int(ray.cluster_resources().get("GPU", 0))


def nodes(ray: Any) -> int:
    """Nodes that are alive."""
    return sum(bool(each["Alive"]) for each in ray.nodes())


def cause(error: BaseException) -> BaseException:
    """What a worker raised, out of what Ray has put around it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, UserError):
            return UserError(seen.what, seen.where, seen.remedy)  # Ray's is a class of its own, with the whole traceback
        seen = getattr(seen, "cause", None) or seen.__cause__
    return error


def _how(address: str | None, folder: str | None) -> dict[str, Any]:
    """Arguments of `ray.init`."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        # Workers on other nodes find this package where this process does.
        paths = [os.path.abspath(each) for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]  # noqa: PTH100
        found = {"runtime_env": {"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}}} if paths else {}
        return {"address": address, **found, **quiet}
    store = min(_STORE, psutil.virtual_memory().total // 10)
    console.detail("starting Ray on this machine")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"num_cpus": cores, "object_store_memory": store, "include_dashboard": False, "_temp_dir": folder, **quiet}


def _folder() -> str:
    """A new folder for a Ray of our own: the temporary one unless its path is too long for sockets.

    Raises:
        UserError: none can be made.
    """
    try:
        where = tempfile.gettempdir()
        return tempfile.mkdtemp(prefix="ray-", dir=where if len(os.fsencode(where)) <= _ROOM else _SHORT)
    except OSError as error:
        remedy = f"name one with a path of at most {_ROOM} characters: TMPDIR"
        raise UserError(f"Ray has no folder for its sockets ({error.strerror})", str(error.filename or ""), remedy) from error


def _says_mode() -> bool:
    """Whether the user says how the cluster lets one in; else Ray would look for a token in the home folder, and make one."""
    return any(os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))


def _read_anew() -> None:
    """Have Ray read again whom it lets in and as whom it comes, which it has kept from when it was imported."""
    with suppress(ImportError, AttributeError):  # a release that asks nobody for a token
        inside: Any = importlib.import_module("ray._raylet")
        inside.Config.initialize("")
        inside.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the time."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
