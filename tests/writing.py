"""`python -m tests.writing NAME STEPS`: a run that writes two numbers at each step, as a training does."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    from mlops_llm.tracking.opening import open_run
    from mlops_llm.tracking.run import Opening

    name, steps = sys.argv[1], int(sys.argv[2])
    with open_run(Opening("train", "writers", name, Path("outputs") / name)) as run:
        for step in range(steps):
            run.metrics({"train/loss": step / 2, "train/grad_norm": step * 2.0}, step)
            if step % 50 == 0:
                run.tags({"at": str(step)})
