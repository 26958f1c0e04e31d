"""The state of code, packages and machine that a run starts from."""

from __future__ import annotations

import getpass
import os
import platform
import shlex
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from mlops_llm.tracking.secrets import mask

PATCH_BYTES = 1 << 20
"""A longer patch of uncommitted changes is cut, and the run says so."""
UNTRACKED_BYTES = 64 << 10
"""A longer untracked file is only named in the patch."""
_NAMED = ("mlops-llm", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "mlflow")


@dataclass(frozen=True)
class Environment:
    """What is recorded of code, packages and machine."""

    tags: dict[str, str]
    packages: str
    """One `name==version` a line, sorted."""
    patch: str
    """Uncommitted changes against the commit, credentials masked; empty when there are none."""


def describe(argv: list[str]) -> Environment:
    """Read the environment; takes some tenths of a second, without importing torch."""
    command = " ".join(shlex.quote(word) for word in argv)
    tags = {
        "command": command,
        "mlflow.source.name": argv[2],  # the page shows what stands behind the last slash
        "mlflow.source.type": "LOCAL",
        "mlflow.user": getpass.getuser(),
        "python": platform.python_version(),
        "host.system": f"{platform.system()} {platform.machine()}",
        "host.cpu": f"{_cpu()} x {os.cpu_count()}",
        "host.memory_gb": f"{psutil.virtual_memory().total / 2**30:.1f}",
        "host.gpu": _gpus(),
    }
    versions = sorted({f"{dist.name}=={dist.version}" for dist in metadata.distributions() if dist.name})
    by_name = dict(line.split("==", 1) for line in versions)
    tags |= {f"version.{name}": by_name[name] for name in _NAMED if name in by_name}
    commit, patch = _code(Path.cwd())
    tags["git.commit"] = commit or "none"
    own = _git(Path(__file__).parent, "rev-parse", "HEAD")
    if own and own != commit:
        tags["git.mlops_llm_commit"] = own
    if commit:
        tags["mlflow.source.git.commit"] = commit
        tags["git.uncommitted"] = str(bool(patch)).lower()
    return Environment(tags, "\n".join(versions) + "\n", patch)


def process_tags() -> dict[str, str]:
    """Tags by which a later start on this host can tell whether this process still lives."""
    return {"run.host": host(), "run.process": process(os.getpid()), "run.heartbeat": str(int(time.time()))}


def host() -> str:
    """This machine since its last start, and this container on it: elsewhere a process id means another process, or none."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    suffix = boot.read_text().strip()[:8] if boot.exists() else f"{psutil.boot_time():.0f}"
    if space.exists():
        suffix += f"/{space.stat().st_ino}"
    return f"{socket.gethostname()}/{suffix}"


def process(pid: int) -> str:
    """A process id with its start time, since ids are used again."""
    return f"{pid}:{psutil.Process(pid).create_time():.2f}"


def lives(tag: str) -> bool:
    """Tell whether the process of a `run.process` tag still runs on this host."""
    pid, _, started = tag.partition(":")
    try:
        # A clock that is set right moves the start time by fractions of a second.
        return abs(psutil.Process(int(pid)).create_time() - float(started)) < 2.0
    except (psutil.Error, ValueError):
        return False


def _code(folder: Path) -> tuple[str, str]:
    """Return commit and patch of the checkout around `folder`, or of this package's own checkout."""
    for place in (folder, Path(__file__).parent):
        commit = _git(place, "rev-parse", "HEAD")
        if commit:
            break
    else:
        return "", ""
    root = Path(_git(place, "rev-parse", "--show-toplevel"))
    patch = _git(root, "diff", "--no-color", "--no-ext-diff", "HEAD", strip=False)
    for name in _git(root, "ls-files", "--others", "--exclude-standard").splitlines():
        small = (root / name).is_file() and (root / name).stat().st_size <= UNTRACKED_BYTES
        patch += _git(root, "diff", "--no-color", "--no-index", "--", "/dev/null", name, strip=False) if small else ""
        patch += "" if small else f"# untracked: {name}\n"
    if len(patch.encode()) > PATCH_BYTES:
        patch = patch.encode()[:PATCH_BYTES].decode("utf-8", "ignore") + "\n# cut here: the patch is over 1 MiB\n"
    return commit, mask(patch)


def _git(folder: Path, *args: str, strip: bool = True) -> str:
    if shutil.which("git") is None:
        return ""
    command = ["git", "-C", str(folder), "-c", "core.quotepath=off", *args]  # names of any script as they are
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode and "--no-index" not in args:  # which says by its exit code that files differ
        return ""
    return done.stdout.strip() if strip else done.stdout


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _gpus() -> str:
    if shutil.which("nvidia-smi") is None:
        return "none"
    done = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return "; ".join(done.stdout.split("\n")).strip("; ") if done.returncode == 0 else "none"


def argv_of(stage: str, overrides: list[str]) -> list[str]:
    """The command that repeats a run."""
    return [Path(sys.executable).name.replace("python3.11", "python"), "-m", f"mlops_llm.{stage}", *overrides]
