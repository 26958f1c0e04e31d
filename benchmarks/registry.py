"""`op=list` of the registry, and a selection, in a record of 1,000 runs with 10 checkpoints each.

Beside them stands MLflow's own client, asked for the same in a process of its own: the registered models, their versions, the
checkpoints and runs behind them; and of a selection the run, its checkpoints and its history. Start-up is the same command in
a record of one run. Rows are written into the database directly, since MLflow itself would take minutes.

Wanted: below 3 s beyond start-up, and at most 1.2 of MLflow's raw query.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from stats import alternate, compare, database, fresh, process, scratch, summary

from mlops_llm.console import grid

METRICS = ("train/loss", "eval/loss", "score/bleu", "score/bleu_low", "score/bleu_high", "score/exact_match", "overlap/share")
LIST = ["-m", "mlops_llm.registry", "op=list"]
SELECT = ["-m", "mlops_llm.surgery", "op=select", "run=run-0", "op.by=[eval/loss]"]
RAW = """
import json, sys, time
from mlflow import MlflowClient
client = MlflowClient("sqlite:///mlflow.db")
client.search_experiments(max_results=1)
began, cpu = time.perf_counter(), time.process_time()

def pages(page):
    token = None
    while True:
        found = page(token)
        yield from found
        token = found.token
        if not token:
            return

experiments = [each.experiment_id for each in client.search_experiments()]
if sys.argv[1] == "list":
    client.search_registered_models(max_results=1000)
    order = ["name ASC", "version_number DESC"]
    versions = list(client.search_model_versions(max_results=10_000, order_by=order))[: int(sys.argv[2])]
    ids = ", ".join(f"'{each.source.removeprefix('models:/')}'" for each in versions)
    query = f"model_id IN ({ids})"
    models = pages(lambda token: client.search_logged_models(experiments, query, max_results=1000, page_token=token))
    print(len(list(models)))
    runs = [each.run_id for each in versions][:200]  # as many as the list reads
    for first in range(0, len(runs), 100):
        listed = ", ".join(f"'{each}'" for each in runs[first : first + 100])
        client.search_runs(experiments, f"attributes.run_id IN ({listed})", max_results=100)
else:
    (run,) = client.search_runs(experiments, "attributes.run_name = 'run-0'")
    client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'", max_results=100)
    client.get_metric_history(run.info.run_id, "train/loss")
print(json.dumps({"query s": time.perf_counter() - began, "query CPU s": time.process_time() - cpu}))
"""
OURS = """
import json, sys, time
from mlops_llm import component
from mlops_llm.registry import listing
from mlops_llm.registry.policy import Policy
from mlops_llm.tracking import registered
from mlops_llm.tracking.store import connect
store = connect()
component.load("mlops_llm.eval.metrics")
began, cpu = time.perf_counter(), time.process_time()
if sys.argv[1] == "list":
    versions = registered.versions(store, "", int(sys.argv[2]))
    shown = listing.columns(versions, Policy(dataset="sales_eval"))
    print(len(listing.lines(store, versions, shown)))
else:
    from mlops_llm.surgery.selection.rows import rows
    began, cpu = time.perf_counter(), time.process_time()
    assert len(rows(store, "run-0", by=["eval/loss"]).candidates) == 10
print(json.dumps({"query s": time.perf_counter() - began, "query CPU s": time.process_time() - cpu}))
"""


TAGS = {
    "stage": "train",
    "project": "sales",
    "base": "tiny",
    "data.train.name": "sales_sft",
    "data.train.version": "v1.0",
    **{f"tag.{each}": "x" * 20 for each in range(30)},
}
PARAMS = {"choice.algo": "sft", **{f"setting.{each}": str(each) for each in range(60)}}
"""Of each run, about as many as a training leaves."""


class Tables:
    """Rows of MLflow's tables, by table."""

    def __init__(self, checkpoints: int) -> None:
        """Begin with a project and a registered model."""
        from mlflow.store.model_registry.dbmodels import models as registry
        from mlflow.store.tracking.dbmodels import models as tracking

        self.tracking, self.registry, self.checkpoints, self.now = tracking, registry, checkpoints, int(time.time() * 1000)
        self.rows: dict[Any, list[dict[str, Any]]] = {}
        times = {"creation_time": self.now, "workspace": "default"}
        place = {"artifact_location": "mlruns/1", "lifecycle_stage": "active"}
        self.put(tracking.SqlExperiment, experiment_id=1, name="sales", last_update_time=self.now, **times, **place)
        self.put(registry.SqlRegisteredModel, name="sales", last_updated_time=self.now, **times)

    def put(self, table: Any, **row: Any) -> None:
        """Add a row."""
        self.rows.setdefault(table, []).append(row)

    def run(self, number: int) -> None:
        """A run with its checkpoints, the last of which is a version."""
        run, own = f"{number:032x}", {"experiment_id": 1, "lifecycle_stage": "active"}
        times = {"start_time": self.now - number, "end_time": self.now, "status": "FINISHED"}
        about = {"artifact_uri": f"mlruns/1/{run}", "source_type": "LOCAL", "user_id": "me"}
        self.put(self.tracking.SqlRun, run_uuid=run, name=f"run-{number}", **own, **times, **about)
        for key, value in {"mlflow.runName": f"run-{number}", **TAGS}.items():
            self.put(self.tracking.SqlTag, key=key, value=value, run_uuid=run)
        for key, value in PARAMS.items():
            self.put(self.tracking.SqlParam, key=key, value=value, run_uuid=run)
        for step in range(1, self.checkpoints + 1):
            model = self.checkpoint(run, number, step)
        times = {"creation_time": self.now, "last_updated_time": self.now, "workspace": "default"}
        about = {"source": f"models:/{model}", "run_id": run, "current_stage": "None", "status": "READY"}
        self.put(self.registry.SqlModelVersion, name="sales", version=number + 1, **times, **about)

    def checkpoint(self, run: str, number: int, step: int) -> str:
        """A checkpoint with its numbers; return its id."""
        digits = number * self.checkpoints + step
        model, own = f"m-{digits:032x}", {"experiment_id": 1, "model_id": f"m-{digits:032x}"}
        times = {"creation_timestamp_ms": self.now, "last_updated_timestamp_ms": self.now, "lifecycle_stage": "active"}
        about = {"name": f"checkpoint-{step * 10}", "model_type": "checkpoint", "source_run_id": run, "status": 2}
        self.put(self.tracking.SqlLoggedModel, artifact_location=f"mlruns/1/models/{model}", **own, **times, **about)
        for key, value in {"digest.weights": f"{digits:064x}", "bytes": "270000000"}.items():
            self.put(self.tracking.SqlLoggedModelTag, tag_key=key, tag_value=value, **own)
        for key, value in {"step": str(step * 10), "base": "tiny", "algo": "sft", "peft": "full"}.items():
            self.put(self.tracking.SqlLoggedModelParam, param_key=key, param_value=value, **own)
        at = {"metric_timestamp_ms": self.now, "metric_step": step, "run_id": run}
        data = {"dataset_name": "sales_eval", "dataset_digest": "d" * 32}
        for place, name in enumerate(METRICS):
            value = step + place / 10
            self.put(self.tracking.SqlLoggedModelMetric, metric_name=name, metric_value=value, **own, **at, **data)
        loss = {"key": "train/loss", "value": 1.0 / step, "timestamp": self.now, "is_nan": False}
        self.put(self.tracking.SqlMetric, run_uuid=run, step=step * 10, **loss)
        return model


def fill(file: Path, runs: int, checkpoints: int) -> None:
    """Write runs with checkpoints into a database; the newest version is the champion."""
    from sqlalchemy import create_engine, insert
    from sqlalchemy.orm import Session

    tables = Tables(checkpoints)
    for number in range(runs):
        tables.run(number)
    alias = {"alias": "champion", "version": runs, "workspace": "default"}
    tables.put(tables.registry.SqlRegisteredModelAlias, name="sales", **alias)
    with Session(create_engine(f"sqlite:///{file}")) as session:
        for table, some in tables.rows.items():
            session.execute(insert(table), some)
        session.commit()


def asked(code: str, what: str, folder: Path, most: int) -> dict[str, float]:
    """Numbers of a query in a process of its own."""
    told = process([sys.executable, "-c", code, what, str(most)], folder).out.strip().splitlines()[-1]
    return dict(json.loads(told))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--checkpoints", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=7)
    given = parser.parse_args()
    with scratch() as folder, fresh(folder, database(folder)) as empty, fresh(folder, empty / "mlflow.db") as full:
        fill(empty / "mlflow.db", 1, given.checkpoints)
        fill(full / "mlflow.db", given.runs, given.checkpoints)
        for words in (LIST, [*LIST, f"op.rows={given.runs}"], SELECT):
            beyond(words, empty, full, given.pairs)
        for what, most in (("list", 20), ("list", given.runs), ("select", 0)):
            runs = {
                name: lambda code=code, what=what, most=most: asked(code, what, full, most)
                for name, code in {"MLflow": RAW, "ours": OURS}.items()
            }
            title = f"the query of {most} versions" if most else "the query of a selection"
            compare(title, alternate(given.pairs, runs), dict.fromkeys(("query s", "query CPU s"), "ratio at most 1.2"))


def beyond(words: list[str], empty: Path, full: Path, pairs: int) -> None:
    """Show what a command takes in a large record beyond what it takes in one of a single run."""
    process([sys.executable, *words], full)  # warms the disk cache
    both = [(process([sys.executable, *words], empty), process([sys.executable, *words], full)) for _ in range(pairs)]
    rows = []
    for name, wanted in (("seconds", "below 3 s"), ("cpu", "")):
        before = [getattr(one, name) for one, _ in both]
        more = [getattr(other, name) - getattr(one, name) for one, other in both]
        rows += [[f"start-up, {name}", *summary(before), ""], [f"beyond, {name}", *summary(more), wanted]]
    grid(" ".join(words[1:]), ["", "median", "least", "most", "wanted"], rows)


if __name__ == "__main__":
    main()
