"""Commands that are killed where a test wants it; a pipeline alone, or with the stage that it runs.

`python -m tests.dying each "MODULE POINT…" STAGE WORDS…` is a command again and again, in forks of one process: each does not
survive a call of the next POINT, see below, and the last one ends by itself. Between them MODULE's `check` looks at the folder.

`python -m tests.dying pipeline WHERE WORDS…`, where WHERE is

- `after NAME`: the stage is done and was told,
- `in NAME POINT`: the stage calls `module:function` or `module:Class.method`, which neither of the two survives; with `+`
  behind it they end when it has been done,
- `slow NAME`: nobody is killed; between its look whether the stage is there and its beginning a second goes by.
"""

from __future__ import annotations

import functools
import importlib
import os
import runpy
import signal
import sys
import time
from typing import Any

from tests import commands, forks


def main(role: str, where: str, *words: str) -> None:
    """Be a command, a pipeline, or a stage of one."""
    if role == "each":
        _each(*where.split(), command=words)
        return
    if role == "stage":
        module, point, pipeline = where.split()
        _dies(point, int(pipeline), os.getpid())
        sys.argv = ["-m", *words]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    forks.inherit()
    commands.START.update(os.environ)
    from mlops_llm.entry import launch
    from mlops_llm.launch import process
    from mlops_llm.pipeline import running
    from mlops_llm.pipeline.__main__ import STAGE

    kind, name, *point = where.split()
    process.subprocess = Stages  # type: ignore[attr-defined]
    if kind == "in":
        Stages.dying = {name: point[0]}
    if kind == "slow":
        running.begun = _slowly(running.begun)
    done = running.Work.one

    def one(work: Any, step: Any, *others: Any) -> Any:
        ended = done(work, step, *others)
        if kind == "after" and step.name == name:
            os.kill(os.getpid(), signal.SIGKILL)
        return ended

    running.Work.one = one  # type: ignore[method-assign]
    sys.exit(launch(STAGE, list(words)))


class Stages(commands.Stages):
    """Stages as forks, of which some die at a point."""

    dying: dict[str, str] = {}
    """Stage -> where it dies."""

    class Popen(commands.Stages.Popen):
        """A stage."""

        def __init__(self, argv: list[str], *, env: dict[str, str], **others: Any) -> None:
            """Start it, or what dies in its place."""
            point = Stages.dying.get(env["MLOPS_LLM_JOB"].rpartition("/")[2])
            if point:
                argv = [*argv[:2], "tests.dying", "stage", f"{argv[2]} {point} {os.getpid()}", *argv[3:]]
            super().__init__(argv, env=env, **others)


def _each(checking: str, *points: str, command: tuple[str, ...]) -> None:
    from mlops_llm.entry import launch

    stage, *words = command
    own = importlib.import_module(f"mlops_llm.{stage}.__main__").STAGE
    check = importlib.import_module(checking).check
    launch(own, [*words, "--cfg", "job"])  # what is imported here once, forks have

    def fork(work: Any, *dying: str) -> int:
        child = os.fork()
        if not child:
            for each in dying:
                _dies(each, os.getpid())
            os._exit(work() or 0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    for point in points:
        ended = fork(lambda: launch(own, words), point)
        if ended != -signal.SIGKILL or fork(check):
            sys.exit(f"{point}: it ended with {ended}, or left what it must not")
    sys.exit(fork(lambda: launch(own, words)))


def _slowly(begun: Any) -> Any:
    def later(*words: Any) -> Any:
        time.sleep(1)
        return begun(*words)

    return later


def _dies(point: str, *pids: int) -> None:
    """Let these processes be killed when something is called, or with `+` has been."""
    module, _, path = point.rstrip("+").partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    real = getattr(owner, name)

    def dies(*words: Any, **more: Any) -> None:
        if point.endswith("+"):
            real(*words, **more)
        for each in pids:
            os.kill(each, signal.SIGKILL)

    setattr(owner, name, dies)


if __name__ == "__main__":
    main(*sys.argv[1:])
