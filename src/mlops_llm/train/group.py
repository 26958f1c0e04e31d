"""The processes of a training as the one that started them sees them: their record is kept, and all end when one fails."""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.launch import stopping
from mlops_llm.record import Result, Run
from mlops_llm.tracking import environment
from mlops_llm.train import nodes, versions
from mlops_llm.train.door import Door
from mlops_llm.train.nodes import Start
from mlops_llm.train.relay import Line, perform

DOOR = "launcher.json"
"""File, beside the settings of a training's processes, by which they find the one that started them."""
PATIENCE = 20.0
"""Seconds that processes have to end by themselves."""


class Member:
    """One of the processes, and the connection to it."""

    def __init__(self, line: Line, told: Mapping[str, Any]) -> None:
        """Keep who it said it is."""
        self.line, self.rank, self.pid = line, int(told["rank"]), int(told["pid"])
        self.start = int(told["start"])
        """How often the processes started before."""
        self.here = told["host"] == environment.host()
        """It runs on this machine."""
        self.asked = False
        """It was told to stop."""


class Group:
    """The processes, their connections, and torchrun above them on every machine."""

    def __init__(self, starts: Sequence[Start], env: Mapping[str, str], folder: Path, logs: Path, address: str = "") -> None:
        """Start them.

        Args:
            starts: what is started here.
            env: its environment.
            folder: where it runs.
            logs: folder of what they print.
            address: of this machine for the others, where there are any.
        """
        self._logs = logs
        self._door = Door(logs / DOOR, address)
        self._own = versions.here() if address else {}
        self._events: queue.SimpleQueue[tuple[Member, dict[str, Any] | None]] = queue.SimpleQueue()
        self._members: list[Member] = []
        self._told: dict[tuple[str, str, int], int] = {}
        self._met = set[int]()
        threading.Thread(target=self._accept, daemon=True).start()
        self._starts, self._torchruns = list(starts), list[subprocess.Popen[str]]()
        try:
            for each in starts:
                with self._log(each).open("w") as log:
                    self._torchruns.append(_started(each, env, folder, log))
        except BaseException:
            self.close()
            raise

    def serve(self, run: Run, count: int) -> Result:
        """Record what the first process asks for until all have ended; return what it ends with.

        Raises:
            UserError: a process failed, and they do not start again.
        """
        result: Result | None = None
        failed: list[tuple[Member, dict[str, Any]]] = []
        done: set[Member] = set()
        start = 0
        terminal = console.Told()
        try:
            while event := self._next():
                member, message = event
                if member.start > start:
                    start = member.start
                    self._say_again(run, failed, count, start)
                if message is None:
                    self._members.remove(member)
                    if member not in done:
                        failed.append((member, {}))
                elif "record" in message:
                    answer = perform(run, self._unsaid(member, message))
                    with suppress(OSError):  # it may be gone meanwhile, which is told next
                        member.line.send(answer=answer)
                elif "told" in message:
                    terminal.hear(message["told"], message["values"])
                elif "failed" in message:
                    failed.append((member, message))
                    done.add(member)
                    if not message.get("missed"):
                        break  # it would fail again
                else:
                    result = message.get("done") or result
                    done.add(member)
        finally:
            terminal.close()
        last = failed[-1][1] if failed else {}
        broken = "failed" in last and not last.get("missed")
        code = 1 if broken else max(abs(each.wait()) for each in self._torchruns)
        if stopping.asked() and not broken and (code or result is None):
            stopping.stop()
        if code or result is None:
            raise self._reason(run.name, [each for each in failed if each[0].start == start], count, code)
        return result

    def _say_again(self, run: Run, failed: Sequence[tuple[Member, dict[str, Any]]], count: int, start: int) -> None:
        """Say that the processes start again, and why."""
        why = self._reason(run.name, [each for each in failed if each[0].start == start - 1], count, 1)
        console.warn(f"{why.what}; all start again from the last checkpoint (restart {start})")
        run.tags({"restarts": str(start)})

    def _unsaid(self, member: Member, message: dict[str, Any]) -> dict[str, Any]:
        """A message without the numbers that an earlier start has recorded."""
        if message["record"] != "metrics":
            return message
        values, step, checkpoint, dataset = message["arguments"]
        name = checkpoint.name if checkpoint else ""
        new = {key: value for key, value in values.items() if self._told.get((name, key, step), member.start) == member.start}
        self._told |= {(name, key, step): member.start for key in new}
        return {**message, "arguments": [new, step, checkpoint, dataset]}

    def _next(self) -> tuple[Member, dict[str, Any] | None] | None:
        """The next that a process says, or (it, None) when it is gone; None when all are."""
        while True:
            self._pass_on()
            try:
                return self._events.get(timeout=0.2)
            except queue.Empty:
                if self._go_on():
                    continue
            if not self._members:
                return None
            for member in self._members:  # torchrun was killed, and left them behind
                member.line.end()

    def _pass_on(self) -> None:
        """Tell each process once that it is to stop, when this one is."""
        for member in [each for each in list(self._members) if stopping.asked() and not each.asked]:
            member.asked = True
            with suppress(OSError):  # it is gone, which is told next
                member.line.send(stop=True)

    def _go_on(self) -> bool:
        """Whether torchrun is there; where it failed on one machine, it is ended on all."""
        codes = [each.poll() for each in self._torchruns]
        if any(codes):
            for each in self._torchruns:
                _end(each)
        return any(code is None for code in codes)

    def _accept(self) -> None:
        for connection in self._door.visitors():
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        told = self._door.entered(connection)
        if told is None:
            connection.close()
            return
        line = Line(connection)
        member = Member(line, told)
        self._members.append(member)
        self._met.add(member.rank)
        if differs := self._own and versions.differ(self._own, told.get("versions", {})):
            what = f"{str(told['host']).partition('/')[0]}: {differs}"
            remedy = "let all machines see the same code, and the same Python"
            self._events.put((member, {"failed": [what, "distributed.nodes", remedy], "user": True}))
        for message in line.messages():
            self._events.put((member, message))
        self._events.put((member, None))

    def _reason(self, name: str, failed: list[tuple[Member, dict[str, Any]]], count: int, code: int) -> UserError:
        """What the first process to fail said; one that only missed another is not the first."""
        on = f"go on with: resume={name}"
        if apart := self._apart(on if len(self._met) == count else ""):
            return apart
        if not failed:
            printed = self._log(self._starts[0])
            return UserError(f"the processes did not start ({_last_line(printed) or f'exit code {code}'})", str(printed))
        member, why = next((each for each in failed if not each[1].get("missed")), failed[0])
        if why.get("user"):
            return UserError(*why["failed"])
        rank, log = member.rank, str(self._logs / f"rank-{member.rank}.log")
        if not why:
            return UserError(f"process {rank} of {count} ended without a word ({self._end_of(member)})", log, on)
        error = UserError(f"process {rank} of {count} failed: {why['failed'][0]}", log, on)
        error.__cause__ = _RemoteError(why["traceback"])
        return error

    def _apart(self, on: str) -> UserError | None:
        """What another machine said from which nothing came, or whose connection was lost."""
        for each, process in zip(self._starts, self._torchruns, strict=False):
            if each.machine and process.returncode:
                log = self._log(each)
                if found := nodes.failure(each.machine, process.returncode, _last_line(log), str(log), on):
                    return found
        return None

    def _log(self, start: Start) -> Path:
        """What torchrun on a machine prints, or what started it there."""
        return self._logs / f"torchrun{'-' * bool(start.machine)}{start.machine.replace('/', '_')}.log"

    def _end_of(self, member: Member) -> str:
        """What torchrun says of a process's end."""
        said = "\n".join(self._log(each).read_text("utf-8", "replace") for each in self._starts)
        code = re.search(rf"exitcode\s*: (-?\d+)\)? .*\(pid: {member.pid}\)", said)
        if code is None or int(code[1]) >= 0:
            return f"exit code {code[1]}" if code else "killed, or out of memory"
        name = signal.Signals(-int(code[1])).name
        return f"{name}: killed, or out of memory" if name == "SIGKILL" else name

    def close(self) -> None:
        """End all that still run."""
        self._door.close()
        for member in list(self._members):
            member.line.end()  # they see that nobody is here any more, and end
        for each in self._torchruns:
            _end(each)
        for each in self._torchruns:
            try:
                each.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                each.kill()
        until = time.monotonic() + 2
        while self._some_left() and time.monotonic() < until:
            time.sleep(0.05)
        for member in self._members:
            if member.here:
                _kill(member.pid)
            member.line.close()

    def _some_left(self) -> bool:
        """Take note of those that are gone; whether any is still there."""
        while not self._events.empty():
            member, message = self._events.get()
            if message is None and member in self._members:
                self._members.remove(member)
        return bool(self._members)


class _RemoteError(Exception):
    """An error of another process, with its traceback as its text."""


def _started(each: Start, env: Mapping[str, str], folder: Path, log: IO[str]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        each.words,
        cwd=folder,
        env=dict(env),
        stdin=subprocess.PIPE if each.told else subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C reaches this process, which ends the others
    )
    if process.stdin:
        with suppress(BrokenPipeError):  # it has ended, which is told with its exit code
            process.stdin.write(each.told)
            process.stdin.flush()
    return process


def _end(process: subprocess.Popen[str]) -> None:
    """Ask torchrun to end, on another machine by the end of its standard input."""
    if process.poll() is not None:
        return
    if process.stdin:
        with suppress(OSError):
            process.stdin.close()
    else:
        process.send_signal(signal.SIGHUP)  # it may not hear SIGTERM


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _last_line(file: Path) -> str:
    lines = file.read_text("utf-8", "replace").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")
