"""The record as MLflow itself tells it: an independent look at what our commands wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow import MlflowClient


def client(folder: Path) -> MlflowClient:
    """MLflow's client on a folder's own database."""
    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def run_of(store: MlflowClient, name: str) -> Any:
    """The only run of this name."""
    everywhere = [each.experiment_id for each in store.search_experiments()]
    (run,) = store.search_runs(everywhere, f"attributes.run_name = '{name}'")
    return run


def checkpoints_of(store: MlflowClient, run: Any) -> dict[str, Any]:
    """Name -> LoggedModel of a run's checkpoints."""
    models = store.search_logged_models([run.info.experiment_id], filter_string=f"source_run_id = '{run.info.run_id}'")
    return {model.name: model for model in models}


def steps_of(store: MlflowClient, run: Any, key: str) -> list[int]:
    """Steps at which a metric was written, in the order of writing."""
    return [metric.step for metric in store.get_metric_history(run.info.run_id, key)]


def artifacts_of(store: MlflowClient, run: Any, folder: str | None = None) -> set[str]:
    """Paths of a run's artifacts."""
    found: set[str] = set()
    for item in store.list_artifacts(run.info.run_id, folder):
        found |= artifacts_of(store, run, item.path) if item.is_dir else {item.path}
    return found
