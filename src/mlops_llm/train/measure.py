"""What a training really took: time, memory, disk."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlops_llm.files import size
from mlops_llm.record import Run
from mlops_llm.train import ranks
from mlops_llm.train.steps import Steps


class Taken:
    """Time of a training's steps and evaluations in this process, and the peak of its memory."""

    def __init__(self, steps: Steps) -> None:
        """Begin; `steps` are timed by themselves."""
        self._steps, self._evaluations, self._inside = steps, 0.0, False
        forget_peak()

    def watch(self, trainer: Any) -> None:
        """Time the evaluations of a Hugging Face Trainer."""
        inner = trainer.evaluate

        def evaluate(*args: Any, **kwargs: Any) -> Any:
            if self._inside:  # one of averaged weights, within that of the weights
                return inner(*args, **kwargs)
            self._inside, begun = True, time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self._inside = False
                self._evaluations += time.perf_counter() - begun

        trainer.evaluate = evaluate

    @property
    def seconds(self) -> float:
        """Time of all steps and evaluations so far."""
        return self._steps.spent + self._evaluations

    def record(self, run: Run, checkpoints: Sequence[Path], step: int) -> None:
        """Write down what was taken, at the step from which on it was; of checkpoints the bytes that are kept."""
        import torch

        values = {
            "seconds": self.seconds,
            "memory_bytes": peak() * (1 if torch.cuda.is_available() else ranks.count()),
            "disk_bytes": sum(size(folder) for folder in checkpoints),
            "steps": max(self._steps.losses, default=step) - step,
        }
        run.metrics({f"real/{name}": value for name, value in values.items()}, step)


def forget_peak() -> None:
    """Let the peak of memory begin anew; where the system cannot, it stays that of the process's whole life."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Most bytes of memory that the process has held since `forget_peak`; of the GPU where there is one."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
