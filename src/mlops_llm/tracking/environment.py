"""The state of code, packages and machine that a run starts from."""

from __future__ import annotations

import getpass
import json
import os
import platform
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from mlops_llm.tracking import clock
from mlops_llm.tracking.secrets import mask

PATCH_BYTES = 1 << 20
"""A longer patch of uncommitted changes is cut, and the run says so."""
UNTRACKED_BYTES = 64 << 10
"""A longer untracked file is only named in the patch."""
_TRIES = 3
SILENCE = 120.0
"""Seconds without a heartbeat after which a run of another machine or container is taken to be dead."""
CODE = "MLOPS_LLM_CODE"
"""Variable that names the file in which the state of the code is told where no checkout is, only a copy of it."""
_NAMED = ("mlops-llm", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "mlflow")


@dataclass(frozen=True)
class Environment:
    """What is recorded of code, packages and machine."""

    tags: dict[str, str]
    packages: str
    """One `name==version` a line, sorted."""
    patches: dict[str, str]
    """Uncommitted changes against the commit, credentials masked: those of the checkout around the folder of the start
    (`uncommitted`; of this package's where there is none) and those of this package's own where it is another (`mlops_llm`)."""


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
        "host.cpu": cpu(),
        "host.memory_gb": f"{psutil.virtual_memory().total / 2**30:.1f}",
        "host.gpu": gpus(),
    }
    versions = _packages()
    by_name = dict(line.split("==", 1) for line in versions)
    tags |= {f"version.{name}": by_name[name] for name in _NAMED if name in by_name}
    of_code, patches = _handed_over() or code_state()
    return Environment(tags | of_code, "\n".join(versions) + "\n", patches)


def code_state() -> tuple[dict[str, str], dict[str, str]]:
    """Tags on the commits of the code that runs, and the changes that are not in them (see `Environment.patches`)."""
    here, own = checkout(Path.cwd()), checkout(Path(__file__).parent)
    roots = [root for root in dict.fromkeys((here or own, own)) if root]
    commits = [git(root, "rev-parse", "HEAD") for root in roots]
    patches = {"uncommitted" if root == roots[0] else "mlops_llm": _patch(root) for root in roots}
    tags = {"git.commit": commits[0] if commits else "none"}
    if commits:
        tags["mlflow.source.git.commit"] = commits[0]
        tags["git.uncommitted"] = str(bool(patches["uncommitted"])).lower()
    if len(commits) > 1:
        tags |= {"git.mlops_llm_commit": commits[1], "git.mlops_llm_uncommitted": str(bool(patches["mlops_llm"])).lower()}
    return tags, {name: patch for name, patch in patches.items() if patch}


def _handed_over() -> tuple[dict[str, str], dict[str, str]] | None:
    """The state of code that was sent here from a checkout elsewhere; None where it was not."""
    file = os.environ.get(CODE)
    if not file:
        return None
    told = json.loads(Path(file).read_text("utf-8"))
    return told["tags"], told["patches"]


@cache
def _packages() -> tuple[str, ...]:
    """`name==version` of each installed package; it takes a second of hundreds, so a process looks once."""
    # What setuptools carries along, and shows to who has imported it, is nobody's installation.
    paths = [each for each in sys.path if Path(each).name != "_vendor"]
    told = [each.metadata for each in metadata.distributions(path=paths)]  # read once each
    return tuple(sorted({f"{each['Name']}=={each['Version']}" for each in told if each["Name"]}))


def process_tags() -> dict[str, str]:
    """Tags by which a later start on this host can tell whether this process still lives."""
    return {"run.host": host(), "run.process": process(os.getpid()), "run.heartbeat": str(int(clock.now()))}


def host() -> str:
    """This machine since its last start, and this container on it: elsewhere a process id means another process, or none."""
    space = Path("/proc/self/ns/pid")
    return machine() + (f"/{space.stat().st_ino}" if space.exists() else "")


def machine() -> str:
    """This machine since its last start."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()}/{boot.read_text().strip()[:8] if boot.exists() else f'{psutil.boot_time():.0f}'}"


def is_earlier_start(host: str) -> bool:
    """Whether a `host()` is this machine before its last start, so that nothing of it runs any more."""
    name, _, rest = host.partition("/")
    here, _, now = machine().partition("/")
    return name == here and rest.partition("/")[0] != now


def process(pid: int) -> str:
    """A process id with its start time, since ids are used again."""
    return f"{pid}:{psutil.Process(pid).create_time():.2f}"


def lives(tag: str) -> bool:
    """Tell whether the process of a `run.process` tag still runs on this host; one that only waits to be collected does not."""
    pid, _, started = tag.partition(":")
    try:
        found = psutil.Process(int(pid))
        # A clock that is set right moves the start time by fractions of a second.
        return abs(found.create_time() - float(started)) < 2.0 and found.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False


def believed_alive(tags: Mapping[str, str]) -> bool:
    """Whether the process of a run is there, by the run's tags: looked up on this host, elsewhere told by its heartbeat."""
    if tags.get("run.host") == host():
        return lives(tags.get("run.process", ""))
    return clock.now() - float(tags.get("run.heartbeat", "0")) < SILENCE


def checkout(folder: Path) -> Path | None:
    """The root of the checkout around a folder that has a commit."""
    root = git(folder, "rev-parse", "--show-toplevel")
    return Path(root) if root and git(folder, "rev-parse", "HEAD") else None


def _patch(root: Path) -> str:
    """Changed and new files of a checkout, as `git apply` reads them."""
    with TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        for _ in range(_TRIES):
            names = git(root, "ls-files", "--others", "--exclude-standard", "-z", strip=False).split("\0")[:-1]
            small = [name for name in names if _is_small(root / name)]
            if _announced(root, small, index):
                break
        else:
            small = []
        diff = git(root, "diff", "--no-color", "--no-ext-diff", "HEAD", strip=False, index=index)
    diff += "".join(f"# untracked: {name}\n" for name in sorted({*names} - {*small}))
    patch = diff.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if len(patch.encode()) > PATCH_BYTES:
        patch = patch.encode()[:PATCH_BYTES].decode("utf-8", "ignore") + "\n# cut here: the patch is over 1 MiB\n"
    return mask(patch)


def _is_small(file: Path) -> bool:
    with suppress(FileNotFoundError):  # it was there a moment ago
        return file.is_file() and file.stat().st_size <= UNTRACKED_BYTES
    return False


def _announced(root: Path, names: Sequence[str], index: Path) -> bool:
    """Announce new files in a copy of the index, so that one diff shows all; the index itself stays as it is.

    Where one of them has gone meanwhile, git announces none.
    """
    with suppress(FileNotFoundError):
        shutil.copy2(root / git(root, "rev-parse", "--git-path", "index"), index)
    if not names:
        return True
    words = ("--literal-pathspecs", "add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul")
    done = _git(root, *words, index=index, given="\0".join(names))
    return done is not None and not done.returncode


def git(folder: Path, *args: str, strip: bool = True, index: Path | None = None) -> str:
    """What git says in a folder; nothing where it fails, or is not there."""
    done = _git(folder, *args, index=index)
    if done is None or done.returncode:
        return ""
    return done.stdout.strip() if strip else done.stdout


def _git(folder: Path, *args: str, index: Path | None, given: str = "") -> subprocess.CompletedProcess[str] | None:
    if shutil.which("git") is None:
        return None
    command = ["git", "-C", str(folder), "-c", "core.quotepath=off", *args]  # names of any script as they are
    env = os.environ | ({"GIT_INDEX_FILE": str(index)} if index else {})
    return subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", input=given, env=env, check=False)


def cpu() -> str:
    """The processor and how many cores of it there are."""
    return f"{_processor()} x {os.cpu_count()}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def gpus() -> str:
    """The GPUs that the driver knows, or `none`."""
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
