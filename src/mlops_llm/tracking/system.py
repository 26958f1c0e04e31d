"""What the machine does during a run: processor, memory, disk, network, GPUs, as MLflow's own monitors read them."""

from __future__ import annotations

import threading
import time
from typing import Any

from mlops_llm.tracking.run import MlflowRun

FIRST, PAUSE = 2.0, 10.0
"""Seconds before the first reading, and between two."""


def watch(run: MlflowRun, began: float, stop: threading.Event) -> None:
    """Record readings as metrics `system/…` until `stop` is set.

    Args:
        run: the run.
        began: seconds since 1970 at which it began; a reading's step is the seconds since then, so that a resumed run goes on.
        stop: ends it.
    """
    monitors = _monitors()
    pause = FIRST
    while not stop.wait(pause):
        pause = PAUSE
        values: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            values |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        try:
            run.metrics(values, int(time.time() - began))
        except Exception:
            return  # the work's own writes meet the same trouble, and tell it


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    found = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    found[0].collect_metrics()  # the processor's share is that since the reading before
    found[0].clear_metrics()
    try:
        found.append(GPUMonitor())
    except Exception:
        return found  # no GPU, or no package that reads one
    return found
