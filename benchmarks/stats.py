"""What the benchmarks share: runs as processes of their own, alternating pairs, medians and ratios with their interval."""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mlops_llm.console import grid

RESAMPLES = 10_000


class Timed(NamedTuple):
    """A process, measured from outside."""

    began: float
    """Unix time just before it was started."""
    seconds: float
    peak_mb: float
    code: int
    out: str
    err: str
    cpu: float
    """Seconds of processor time, which a busy machine stretches less than those on the clock."""


def process(command: Sequence[str], folder: Path, want: int = 0) -> Timed:
    """Run a command in a folder to its end and measure it; any other exit code than `want` ends the benchmark."""
    variables = dict(os.environ)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "HYDRA_FULL_ERROR"):
        variables.pop(name, None)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began, clock = time.time(), time.perf_counter()
        child = subprocess.Popen(command, cwd=folder, env=variables, stdout=out, stderr=err, text=True)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - clock
        child.returncode = code = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        said, errors = out.read(), err.read()
    if code != want:
        raise SystemExit(f"exit code {code} from {' '.join(command)}\n{said[-2000:]}\n{errors[-4000:]}")
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return Timed(began, seconds, peak, code, said, errors, usage.ru_utime + usage.ru_stime)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for all runs of a benchmark, removed at its end."""
    with tempfile.TemporaryDirectory(prefix="mlops_llm-bench-") as folder:
        yield Path(folder)


def database(folder: Path) -> Path:
    """Create an empty MLflow database as a first run creates it; runs get copies of it."""
    place = folder / "database"
    place.mkdir()
    process([sys.executable, "-c", "from mlops_llm.tracking.store import connect; connect()"], place)
    return place / "mlflow.db"


@contextmanager
def fresh(folder: Path, existing: Path | None = None) -> Iterator[Path]:
    """An empty folder for one run, with a copy of an existing database; removed afterwards."""
    place = Path(tempfile.mkdtemp(prefix="run-", dir=folder))
    if existing:
        shutil.copy(existing, place / "mlflow.db")
    try:
        yield place
    finally:
        shutil.rmtree(place)


Run = Callable[[], dict[str, float]]


def alternate(pairs: int, runs: Mapping[str, Run]) -> dict[str, list[dict[str, float]]]:
    """Run A B, B A, A B, ...: what changes slowly on the machine meets both sides alike."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for pair in range(pairs):
        order = list(runs) if pair % 2 == 0 else list(runs)[::-1]
        for name in order:
            numbers = runs[name]()
            found[name].append(numbers)
            shown = "  ".join(f"{key} {value:.2f}" for key, value in numbers.items())
            print(f"pair {pair + 1}/{pairs}  {name:<8} {shown}", flush=True)
    return found


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of the median: pairs drawn with replacement, percentiles of their medians."""
    draw = random.Random(seed)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES) - 1]


def compare(title: str, found: Mapping[str, list[dict[str, float]]], wanted: Mapping[str, str]) -> None:
    """Print what was measured of two sides: medians, and ratio and difference pair by pair with their intervals.

    Args:
        title: above the table.
        found: of `alternate`; the first side is the yardstick, the second is ours.
        wanted: measure -> what the project promises of it.
    """
    (base, before), (ours, after) = found.items()
    rows = []
    for key in before[0]:
        pairs = [(one[key], two[key]) for one, two in zip(before, after, strict=True)]
        ratios, differences = [b / a for a, b in pairs], [b - a for a, b in pairs]
        rows.append([
            key,
            f"{statistics.median(a for a, _ in pairs):.2f}", f"{statistics.median(b for _, b in pairs):.2f}",
            f"{statistics.median(ratios):.3f}", "{:.3f} to {:.3f}".format(*interval(ratios)),
            f"{statistics.median(differences):+.2f}", "{:+.2f} to {:+.2f}".format(*interval(differences)),
            wanted.get(key, ""),
        ])  # fmt: skip
    columns = ["", base, ours, "ratio", "95 % interval", "difference", "95 % interval", "wanted"]
    grid(f"{title}; {len(before)} pairs, medians", columns, rows)


def summary(values: Sequence[float]) -> list[str]:
    """Median, least and most of values."""
    return [f"{statistics.median(values):.3f}", f"{min(values):.3f}", f"{max(values):.3f}"]
