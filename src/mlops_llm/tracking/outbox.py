"""Writes of a run in their order: delivered at once, or kept on disk while the server is away.

Every write is a small mapping that says what is to be true afterwards. Delivering one a second time changes nothing, so a
write whose answer was lost can simply be sent again: none is lost, none is doubled.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlops_llm import console, digest
from mlops_llm.errors import UserError
from mlops_llm.files import write_text
from mlops_llm.tracking import environment, ledger
from mlops_llm.tracking.deliver import deliver
from mlops_llm.tracking.refusals import cause, is_denied
from mlops_llm.tracking.store import Store, is_away

Write = dict[str, Any]
PAUSE = 5.0
"""Seconds between two tries to reach a server that is away."""
_ABANDONED = 3600.0
"""Seconds after which a draft is nobody's any more."""
MOST_METRICS = 1000
"""Metrics in one of MLflow's batches."""


def spool_folder(folder: Path | None = None) -> Path:
    """Where writes wait, beside the outputs of the folder where the command was started; None is this one."""
    return (folder or Path.cwd()) / "outputs" / ".spool"


class Outbox:
    """The writes of one run."""

    def __init__(self, store: Store, run: str, folder: Path | None = None) -> None:
        """Begin with nothing waiting, or with what an earlier process of the same run left."""
        self._store, self._run = store, run
        self._file = spool_folder(folder) / f"{run}.jsonl"
        self._next_try = 0.0

    @property
    def waiting(self) -> bool:
        """Whether writes are kept on disk."""
        return self._file.exists()

    def put(self, write: Write) -> bool:
        """Deliver a write, or keep it for later; return whether it was delivered."""
        if self.waiting and not self.flush():
            self._keep(write)
            return False
        try:
            deliver(self._store, self._run, write, again="unsure" in write)
        except Exception as error:
            # A version that may not be registered is told at once; all that a run says of itself waits.
            if not is_away(error) or (write["do"] == "register" and is_denied(error)):
                raise
            if not self.waiting:
                console.warn(f"the record cannot be reached ({cause(error)}); the work goes on, what is recorded waits on disk")
            self._keep(write)
            self._next_try = time.monotonic() + PAUSE
            return False
        return True

    def flush(self, patience: float = 0.0) -> bool:
        """Deliver what waits, in order, trying for `patience` seconds; return whether nothing waits any more."""
        until = time.monotonic() + patience
        if patience:
            self._next_try = time.monotonic()
        while self.waiting:
            if time.monotonic() >= self._next_try:
                if self._store.reachable() and self._send_all():
                    return True
                self._next_try = time.monotonic() + (1.0 if patience else PAUSE)
            if time.monotonic() >= until:
                return False
            time.sleep(0.5)
        return True

    def _send_all(self) -> bool:
        lines = self._file.read_text("utf-8").splitlines()
        if not lines or not _whole(lines[0]):
            self._file.unlink()  # a crash within the very first write: nothing is in it
            return True
        writes = [json.loads(line) for line in lines[1:] if _whole(line)]
        sent = 0
        try:
            for batch in _joined(writes):
                deliver(self._store, self._run, batch, again=True)
                sent += batch.pop("writes", 1)
        except Exception as error:
            if not is_away(error):
                raise
            rest = [lines[0], *(json.dumps(write, ensure_ascii=False) for write in writes[sent:])]
            draft = self._file.with_suffix(".draft")
            draft.write_text("\n".join(rest) + "\n", "utf-8")
            draft.replace(self._file)
            return False
        self._file.unlink()
        return True

    def _keep(self, write: Write) -> None:
        line = json.dumps(write, ensure_ascii=False) + "\n"
        empty, torn = _ending(self._file)
        if empty:  # it appears whole: an empty one is taken for what a crash left
            owner = environment.process(os.getpid())
            head = {"address": digest.text(self._store.address), "host": environment.host(), "process": owner}
            write_text(self._file, f"{json.dumps(head)}\n{line}")
            return
        with self._file.open("a", encoding="utf-8") as file:
            if torn:
                file.write("\n")
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def deliver_left_over(store: Store, folder: Path | None = None, run: str = "*") -> list[str]:
    """Deliver what dead processes left for this store; return the ids of the runs that are complete again.

    Args:
        store: the record.
        folder: where their commands were started; None is this one.
        run: of this run alone.
    """
    spool = spool_folder(folder)
    if not _left(spool, run):
        return []
    from filelock import FileLock

    with FileLock(spool / ".lock"):  # two starts at once would both find a number missing, and both write it
        return _deliver_left_over(store, folder, run)


def _left(spool: Path, run: str) -> list[Path]:
    """Files of what waits, without the drafts of those that begin; old drafts, of processes that were killed, are removed."""
    for draft in spool.glob(".*.jsonl"):
        with suppress(FileNotFoundError):
            if time.time() - draft.stat().st_mtime > _ABANDONED:
                draft.unlink()
    return sorted(each for each in spool.glob(f"{run}.jsonl") if not each.name.startswith("."))


def put_aside(run: str, folder: Path, output: Path, start: int | str) -> None:
    """Keep what a start of a run had written, out of the way of the next one, which begins anew.

    Args:
        run: its id.
        folder: where its command was started.
        output: folder of its files, which becomes OUTPUT.interrupted-START, and in it what waited for the record.
        start: that start's number or name.
    """
    aside = output.with_name(f"{output.name}.interrupted-{start}")
    if output.is_dir() and any(output.iterdir()):
        output.rename(aside)
    waiting = spool_folder(folder) / f"{run}.jsonl"
    if waiting.exists():
        aside.mkdir(exist_ok=True)
        waiting.replace(aside / "spool.jsonl")


def _deliver_left_over(store: Store, folder: Path | None, run: str) -> list[str]:
    done = []
    for file in _left(spool_folder(folder), run):
        try:
            first = file.read_text("utf-8").partition("\n")[0]
            if not _whole(first):
                file.unlink()
                continue
            head = json.loads(first)
            if head["address"] != digest.text(store.address) or _has_owner(store, file, head):
                continue
        except FileNotFoundError:  # its own process has just delivered it
            continue
        try:
            complete = Outbox(store, file.stem, folder).flush()
        except Exception as error:
            aside = file.rename(file.with_suffix(".refused"))
            console.warn(f"the record refuses what waited for run {file.stem} ({error}); it is kept in {aside}")
            continue
        if complete:
            done.append(file.stem)
    return done


def _has_owner(store: Store, file: Path, head: Mapping[str, str]) -> bool:
    """Whether the process that writes a file is there, here or on another machine that shares this folder."""
    if head["host"] == environment.host():
        return environment.lives(head["process"])
    if environment.is_earlier_start(head["host"]):
        return False
    if time.time() - file.stat().st_mtime < environment.SILENCE:
        return True
    try:
        run = ledger.find_run(store, file.stem)
    except UserError:
        return False
    return run.status == "RUNNING" and environment.believed_alive(run.tags)


def _ending(file: Path) -> tuple[bool, bool]:
    """Whether a file is empty or absent, and whether a crash tore its last line."""
    if not file.exists() or not file.stat().st_size:
        return True, False
    with file.open("rb") as content:
        content.seek(-1, os.SEEK_END)
        return False, content.read() != b"\n"


def _whole(line: str) -> bool:
    """The last line may be torn by a crash in mid-write; what it said was not acknowledged to anyone."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _joined(writes: list[Write]) -> Iterator[Write]:
    """Join neighbouring metric writes, so that an hour's backlog takes seconds."""
    joined: Write | None = None
    for write in writes:
        if write["do"] != "metrics":
            if joined:
                yield joined
                joined = None
            yield dict(write)
        elif joined and len(joined["rows"]) + len(write["rows"]) <= MOST_METRICS:
            joined["rows"] = joined["rows"] + write["rows"]
            joined["writes"] += 1
        else:
            if joined:
                yield joined
            joined = {**write, "writes": 1}
    if joined:
        yield joined
