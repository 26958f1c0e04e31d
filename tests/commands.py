"""Real commands in processes of their own, as a person types them.

Most are forks of a process that has imported the libraries already (`tests.forks`): that saves seconds of each. With
MLOPS_LLM_FORKS=0 in the environment all are started afresh.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import pytest

from tests import forks
from tests.forks import Fork

SMOKE = [
    "+experiment=sft_sales",
    "trainer.max_steps=20",
    "trainer.save_steps=10",
    "trainer.eval_steps=10",
    "trainer.logging_steps=5",
    "samples.max_new_tokens=8",
]
"""A run of seconds with two checkpoints."""


START: dict[str, str] = {}
"""The environment in which the tests were started (`conftest` notes it)."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a command: that in which the tests were started, without anything that points to another record.

    Of what has changed since, only variables of ours count (MLOPS_LLM_...): libraries set others while they are imported.
    """
    kept = {key: value for key, value in (START or os.environ).items() if not key.startswith(("MLFLOW_", "MLOPS_LLM_"))}
    kept |= {key: value for key, value in os.environ.items() if key.startswith("MLOPS_LLM_")}
    kept.pop("MLOPS_LLM_PARENT_RUN", None)
    return kept | {"HF_HUB_OFFLINE": "1", "MLFLOW_DISABLE_TELEMETRY": "true"} | dict(extra or {})


def start(
    folder: Path,
    *words: str,
    env: Mapping[str, str] | None = None,
    stage: str = "train",
    module: str = "",
    fresh: bool = False,
) -> subprocess.Popen[str] | Fork:
    """Start `python -m mlops_llm.STAGE`, or `python -m MODULE`, with these words.

    With `fresh` Python itself is started, and imports all. That is for what a fork cannot show: how a command starts, what
    it prints while it imports, and that nothing depends on the seed of Python's hashes, which forks have in common.
    """
    module = module or f"mlops_llm.{stage}"
    fork = None if fresh else forks.start(module, words, folder, environment(env), usual=environment())
    return fork or subprocess.Popen(
        [sys.executable, "-m", module, *words],
        cwd=folder,
        env=environment(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(
    folder: Path, *words: str, env: Mapping[str, str] | None = None, fresh: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `python -m mlops_llm.train` with these words to its end."""
    process = start(folder, *words, env=env, fresh=fresh)
    out, err = process.communicate(timeout=400)
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def ok(done: subprocess.CompletedProcess[str]) -> str:
    """The output of a command that must have worked."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_for(
    condition: Callable[[], bool], process: subprocess.Popen[str] | Fork, seconds: float = 180, every: float = 0.05
) -> None:
    """Wait until something is so while a process runs; what takes long to ask is asked less often."""
    until = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"the process ended or took too long:\n{out}\n{err}")
        time.sleep(every)


def wait_for_step(folder: Path, run: str, step: int, process: subprocess.Popen[str] | Fork) -> None:
    """Wait until a run has done a step."""
    steps = folder / "outputs" / run / "steps.jsonl"
    wait_for(lambda: steps.is_file() and f'"step": {step},' in steps.read_text(), process)


class Stages:
    """Stands for `subprocess` where a pipeline in this process starts its stages: forks, which save seconds of each."""

    DEVNULL, STDOUT = subprocess.DEVNULL, subprocess.STDOUT

    class Popen:
        """A stage whose output goes to a file."""

        def __init__(self, argv: list[str], *, cwd: str, env: Mapping[str, str], stdout: IO[bytes], **others: Any) -> None:
            """Start `python -m MODULE`; like a real one it leads a process group of its own."""
            own = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLOPS_LLM_JOB")
            more = {name: env[name] for name in own if name in env}
            self._process = start(Path(cwd), *argv[3:], env=more, module=argv[2])
            self.pid = self._process.pid
            self._file = os.fdopen(os.dup(stdout.fileno()), "ab", buffering=0)
            self._threads = [
                threading.Thread(target=self._copy, args=[each], daemon=True)
                for each in (self._process.stdout, self._process.stderr)
            ]
            for thread in self._threads:
                thread.start()

        def _copy(self, stream: IO[str]) -> None:
            with stream:
                for line in stream:
                    self._file.write(line.encode())

        def poll(self) -> int | None:
            """The exit code, once all that it said is in the file."""
            if self._process.poll() is None or any(thread.is_alive() for thread in self._threads):
                return None
            return self._process.returncode

        def wait(self) -> int:
            """Wait for its end."""
            self._process.wait()
            for thread in self._threads:
                thread.join()
            assert self._process.returncode is not None
            return self._process.returncode
