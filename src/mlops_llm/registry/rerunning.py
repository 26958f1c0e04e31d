"""A training started once more: its code in a worktree, its settings as they were typed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.files import writable
from mlops_llm.registry.beginning import Beginning, beginning
from mlops_llm.registry.reproduction import Difference, steps
from mlops_llm.tracking import checkpoints, environment, ledger
from mlops_llm.tracking.opening import PARENT
from mlops_llm.tracking.origin import Origin
from mlops_llm.tracking.store import Store

_LOOK = 0.2
ITS_OWN = ("run_name", "output", "register_as", "resume", "launch")
"""Settings that a rerun has of its own."""


@dataclass(frozen=True)
class Again:
    """A training that can be started once more."""

    words: tuple[str, ...]
    folder: Path
    """Where it was started."""
    commit: str
    """Of this package; empty where no checkout was recorded."""
    patch: str
    beginning: Beginning
    """Its rows and models."""


def again(store: Store, origin: Origin, overrides: str, run: str) -> Again:
    """Find what a training began from.

    Args:
        store: the record.
        origin: what its run says of itself.
        overrides: its settings, one a line.
        run: its id.
    """
    began = beginning(store, run, origin)
    dropped = {*ITS_OWN, *began.settings}
    typed = [line for line in overrides.splitlines() if line.strip()]
    words = [each for each in typed if each.lstrip("+").partition("=")[0] not in dropped]
    words += [f"{name}={value}" for name, value in began.settings.items()]
    own = "git.mlops_llm_commit" in origin.tags
    commit = origin.tags.get("git.mlops_llm_commit" if own else "git.commit", "")
    patch = origin.patches.get("mlops_llm" if own else "uncommitted", "")
    folder = Path(origin.tags.get("folder", "."))
    where = folder if folder.is_dir() else Path.cwd()
    return Again(tuple(words), where, "" if commit == "none" else commit, patch, began)


@contextmanager
def code(wanted: Again, folder: Path) -> Iterator[tuple[Path, list[Difference]]]:
    """Give the folder of the package as it was, and what of it could not be brought back.

    Args:
        wanted: the training.
        folder: a new one, in which the worktree lies meanwhile.
    """
    here = Path(__file__).parents[2]
    root = environment.checkout(here)
    now = environment.git(root, "rev-parse", "HEAD") if root else ""
    found = root is not None and wanted.commit and environment.git(root, "cat-file", "-t", wanted.commit) == "commit"
    if not found or root is None:
        same = bool(wanted.commit) and wanted.commit == now and not wanted.patch
        yield here, [] if same else [Difference("code", "the commit", wanted.commit[:12], f"{now[:12]} (that one is not here)")]
        return
    tree, differs = folder / "code", list[Difference]()
    environment.git(root, "worktree", "add", "--detach", str(tree), wanted.commit)
    if not (tree / "src").is_dir():
        raise UserError(f"the commit {wanted.commit[:12]} cannot be checked out", str(root), "see: git worktree list")
    try:
        if wanted.patch and (said := _applied(tree, wanted.patch)):
            differs.append(Difference("code", "uncommitted changes", "there", f"not applied ({said})"))
        unknown = (line.partition(": ")[2] for line in wanted.patch.splitlines() if line.startswith("# untracked: "))
        differs += [Difference("code", name, "there, too long to be recorded", "") for name in unknown]
        yield tree / "src", differs
    finally:
        environment.git(root, "worktree", "remove", "--force", str(tree))
        shutil.rmtree(tree, ignore_errors=True)


def _applied(tree: Path, patch: str) -> str:
    """Apply changes; return what git says against it."""
    done = subprocess.run(
        ["git", "-C", str(tree), "apply", "--allow-empty", "--whitespace=nowarn", "-"],
        input=patch,
        text=True,
        capture_output=True,
        check=False,
    )
    return (done.stderr.strip().splitlines() or ["?"])[0][:200] if done.returncode else ""


def rerun(wanted: Again, source: Path, output: Path, name: str, most: int | None, address: str) -> str:
    """Train once more, in a process of its own; return its steps as `steps.jsonl` has them.

    Args:
        wanted: the training.
        source: folder of the package.
        output: of the rerun's files.
        name: of its run.
        most: step after which it is stopped; None lets it end.
        address: of the record.
    """
    file = output / "steps.jsonl"
    words = [*wanted.words, f"run_name={name}", f"output={output.absolute()}", "register_as=null"]
    log = writable(output.parent) / f"{output.name}.log"
    stopped = False
    with log.open("w", encoding="utf-8") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlops_llm.train", *words],
            cwd=wanted.folder,
            env=_environment(source, address),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None:
                if most is not None and file.is_file() and _last(file) >= most:
                    stopped = True
                    process.send_signal(signal.SIGTERM)
                    process.wait()
                time.sleep(_LOOK)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if not file.is_file():
        lines = log.read_text("utf-8", "replace").strip().splitlines()
        raise UserError(f"the rerun did not train ({lines[-1] if lines else 'it said nothing'})", str(log), "see its log")
    ended = f"was stopped after step {most}" if stopped else f"ended with {process.returncode}"
    console.detail(f"the rerun {ended}; its log is {log}")
    return file.read_text("utf-8")


def weights(store: Store, run: str) -> dict[str, str]:
    """Checkpoint of a run -> digest of its weights, in the order of their steps."""
    found = checkpoints.of_run(store, ledger.find_run(store, run).id)
    return {each.name: each.tags["digest.weights"] for each in found if "digest.weights" in each.tags}


def _last(file: Path) -> int:
    found = steps(file.read_text("utf-8", "replace"))
    return int(found[-1]["step"]) if found else 0


def _environment(source: Path, address: str) -> Mapping[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("MLFLOW_RUN_ID", PARENT)}
    return kept | {"PYTHONPATH": str(source), "MLFLOW_TRACKING_URI": address}
