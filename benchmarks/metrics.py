"""10,000 logged metrics through our record against MLflow's own `log_batch`, in alternating pairs.

1,000 calls of 10 metrics each, `MlflowRun.metrics` against `MlflowClient.log_batch`, into a database of their own as ours is
created (SQLite in WAL mode), each side in its own process. Only the calls are timed; the rows are counted afterwards.

(Not called `logging.py`: a script's own folder comes first in the search for modules, and every library imports `logging`.)
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import time
from pathlib import Path

from stats import Run, alternate, compare, database, fresh, process, scratch

NAMES = [f"train/metric_{number}" for number in range(10)]


def ours(calls: int) -> float:
    from mlops_llm.tracking.opening import open_run
    from mlops_llm.tracking.run import Opening

    with open_run(Opening(stage="train", project="bench", name="bench", output=Path.cwd() / "outputs" / "bench")) as run:
        begun = time.perf_counter()
        for step in range(calls):
            run.metrics(dict.fromkeys(NAMES, step * 0.5), step)
        return time.perf_counter() - begun


def mlflow(calls: int) -> float:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}")
    run = client.create_run(client.create_experiment("bench")).info.run_id
    begun = time.perf_counter()
    for step in range(calls):
        now = int(time.time() * 1000)
        client.log_batch(run, metrics=[Metric(name, step * 0.5, now, step) for name in NAMES])
    return time.perf_counter() - begun


SIDES = {"mlflow": mlflow, "ours": ours}


def side(name: str, calls: int, existing: Path, folder: Path) -> Run:
    """One side, ready to run in its own process."""

    def run() -> dict[str, float]:
        with fresh(folder, existing) as here:
            timed = process([sys.executable, __file__, "--side", name, "--calls", str(calls)], here)
            seconds = json.loads(timed.out.strip().splitlines()[-1])
            (kept,) = sqlite3.connect(here / "mlflow.db").execute("SELECT count(*) FROM metrics").fetchone()
            return {"logging s": seconds, "metrics kept": kept}

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        print(json.dumps(SIDES[asked.side](asked.calls)))
        return
    with scratch() as folder:
        existing = database(folder)
        found = alternate(asked.pairs, {name: side(name, asked.calls, existing, folder) for name in SIDES})
        compare(f"{asked.calls * len(NAMES):,} metrics", found, {"logging s": "ratio at most 1.5"})


if __name__ == "__main__":
    main()
