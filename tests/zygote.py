"""The process that the commands of the tests are forks of: it has imported once what each would import for seconds.

`tests.forks` starts it and asks it for forks. It keeps no module of `mlops_llm`: what the package does when it is imported, it
does in each fork. It has one thread, for a fork has no other: what a thread held that is not there is held for ever.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from tests.haste import hasten

PROGRAM = "import sys; from tests.zygote import run, serve; run(serve(int(sys.argv[1]), sys.argv[2:]))"
"""What Python is started with."""
LIBRARIES = (
    "torch",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.qwen2.tokenization_qwen2",
    "peft",
    "trl.trainer.sft_trainer",
    "trl.trainer.dpo_trainer",
    "trl.trainer.kto_trainer",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "sqlalchemy.dialects.sqlite",
    "mlflow.tracking.client",
    "datasets",
    "hydra.main",
    "hydra._internal.hydra",
    "matplotlib.pyplot",
    "matplotlib.backends.backend_agg",
    "sacrebleu",
    "rouge_score",
)
"""What commands import. What TRL's GRPO imports is left out: vLLM, which changes what it finds."""
SAFE_THREADS = {"jemalloc_bg_thd"}
"""Names of threads that are heeded where they come from: jemalloc (of Arrow) does without its own in a fork."""
ANSWER = 8
"""Bytes of a process id, or of a wait status."""


def serve(number: int, libraries: list[str]) -> str:
    """Import libraries, then fork for each request that comes over the socket of this number, until its other end is closed.

    A request is JSON (`module`, `words`, `folder`, `environment`) with four open files: what are to be the fork's standard
    input, output and errors, and where its process id is told and, when it has ended, its wait status.

    Returns:
        In a fork: the module that it is to run.
    """
    line = socket.socket(fileno=number)
    line.set_inheritable(False)
    # Ctrl-C is meant for the commands.
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    added = _import(libraries)
    others = [task for task in Path("/proc/self/task").iterdir() if task.name != str(os.getpid())]
    threads = {(task / "comm").read_text().strip() for task in others} - SAFE_THREADS
    line.send(json.dumps({"environment": dict(os.environ), "threads": sorted(threads)}).encode())
    ends: dict[int, tuple[int, int]] = {}  # descriptor of a fork -> its process id, and where its end is told
    with selectors.DefaultSelector() as ready:
        ready.register(line, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fd in ends:
                    ready.unregister(key.fd)
                    _tell_end(key.fd, *ends.pop(key.fd))
                    continue
                request, files, _, _ = socket.recv_fds(line, 1 << 20, 4)
                if not request:
                    os._exit(0)
                child = os.fork()
                if not child:
                    for each in (line.detach(), *ends, *(told for _, told in ends.values()), files.pop()):
                        os.close(each)
                    return _become(json.loads(request), files, added, signals)
                *streams, told = files
                for each in streams:
                    os.close(each)
                os.write(told, child.to_bytes(ANSWER, "little"))
                end = os.pidfd_open(child)
                ends[end] = child, told
                ready.register(end, selectors.EVENT_READ)


def run(module: str) -> None:
    """Run a module as `python -m` does, and end as Python does, but without taking apart what it shares with other forks.

    That would copy all of it: half a second of a command that takes half a second. An exception that is no `SystemExit` is
    Python's own to show.
    """
    try:
        runpy._run_module_as_main(module)  # type: ignore[attr-defined]
        code: Any = 0
    except SystemExit as ended:
        code = ended.code or 0
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it, or it is closed
            stream.flush()
    os._exit(code & 0xFF)


def _import(libraries: list[str]) -> dict[str, str]:
    """Import libraries, as commands do; return the variables that this has set."""
    before = dict(os.environ)
    if "OMP_WAIT_POLICY" not in os.environ:  # as `launch` does, before OpenMP is loaded
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    importlib.import_module("mlops_llm.tracking.store")  # sets what MLflow reads when it is imported
    for name in libraries:
        importlib.import_module(name)
    if "mlflow" in sys.modules:
        hasten()
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlops_llm"]:
        del sys.modules[name]
    gc.collect()
    gc.freeze()  # a collection in a fork would copy the memory that all share
    return {name: value for name, value in os.environ.items() if before.get(name) != value}


def _tell_end(end: int, child: int, told: int) -> None:
    """Collect a fork that has ended, and tell how."""
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(BrokenPipeError):  # nobody wants to know
        os.write(told, status.to_bytes(ANSWER, "little"))
    os.close(end)
    os.close(told)


def _become(request: dict[str, Any], streams: list[int], added: dict[str, str], signals: set[int]) -> str:
    """Make this fork what a process of its own would be, and return the module that it is to run."""
    for number, file in enumerate(streams):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update({**request["environment"], **added})
    sys.path[0] = str(Path.cwd())
    sys.argv = ["-m", *request["words"]]
    sys.orig_argv = [sys.executable, "-m", request["module"], *request["words"]]
    if "torch" in sys.modules:  # Python's own generator is seeded anew in a fork, these are not
        sys.modules["numpy"].random.seed()
        sys.modules["torch"].seed()
    signal.pthread_sigmask(signal.SIG_SETMASK, signals)
    return str(request["module"])
