"""A run in MLflow: opened, adopted, resumed, written and closed."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.files import writable, write_text
from mlops_llm.record import Checkpoint, DatasetInput, Registration
from mlops_llm.tracking import environment, ledger
from mlops_llm.tracking.deliver import deliver, local_path
from mlops_llm.tracking.outbox import Outbox, deliver_left_over
from mlops_llm.tracking.secrets import mask
from mlops_llm.tracking.store import Store, connect, is_away

LONGEST_PARAM = 6000
"""MLflow cuts longer values silently; ours are cut with a mark, and config.yaml has them whole."""
LONGEST_TAG = 5000
"""Longer tags are refused by MLflow."""
_WHOLE = "; whole in config.yaml"
_HEARTBEAT = 30.0
SILENCE = 120.0
"""Seconds without a heartbeat after which a run of another machine or container is taken to be dead."""
_DIGEST_CHARACTERS = 32
PARENT = "MLOPS_LLM_PARENT_RUN"
"""Variable by which the jobs of a multirun, in whatever process, find their parent."""


@dataclass(frozen=True)
class Opening:
    """What is known of a run before it starts."""

    stage: str
    project: str
    name: str
    output: Path
    """Folder of this run's files."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Flat settings: dotted key -> value."""
    config_yaml: str = ""
    overrides: tuple[str, ...] = ()
    seed: int | None = None
    storage: str = "auto"
    """How checkpoints are kept: auto, hardlink, reference, upload."""
    resume: str = ""
    """Id of the run to go on with."""
    parent: str = ""
    """Id of the multirun's parent."""


class MlflowRun:
    """`record.Run` on MLflow. Writes survive an absent server (see outbox)."""

    def __init__(self, store: Store, run: str, experiment: str, opening: Opening) -> None:
        """Wrap a run that exists."""
        self._store, self._opening = store, opening
        self.id, self._experiment = run, experiment
        self._outbox = Outbox(store, run)
        self._inputs: dict[str, DatasetInput] = {}
        self._logged: dict[str, set[int]] = {}
        self._tables: list[str] = []
        self._held: dict[str, list[list[Any]]] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Unique name of the run."""
        return self._opening.name

    @property
    def link(self) -> str:
        """Its page in the MLflow UI."""
        return self._store.link(self._experiment, self.id)

    def hint(self) -> str:
        """How to start the UI when no server runs; empty for a server."""
        return self._store.hint()

    @property
    def waiting(self) -> bool:
        """Whether writes wait on disk for the server."""
        return self._outbox.waiting

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings; too long ones are cut with a mark."""
        self._put({"do": "params", "values": {key: _cut(str(value), LONGEST_PARAM, _WHOLE) for key, value in values.items()}})

    def tags(self, values: Mapping[str, Any]) -> None:
        """Record searchable facts."""
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
        self._put({"do": "tags", "values": {key: _cut(text, LONGEST_TAG) for key, text in texts.items()}})

    def metrics(
        self, values: Mapping[str, float], step: int, checkpoint: Checkpoint | None = None, dataset: str | None = None
    ) -> None:
        """Record finite numbers in one write; on a resumed run a step that is there already is not written twice.

        With `checkpoint` the numbers are attached to it when it is published (see `checkpoint`).
        """
        now = int(time.time() * 1000)
        data = self._inputs.get(dataset or "")
        labels = [data.name, data.digests["canonical"][:_DIGEST_CHARACTERS]] if data else [None, None]
        name = checkpoint.name if checkpoint else None
        rows = [
            [key, float(value), now, step, name, *labels]
            for key, value in values.items()
            if math.isfinite(value) and not self._is_logged(key, step)
        ]
        if name:
            self._held.setdefault(name, []).extend(rows)
        elif rows:
            self._put({"do": "metrics", "rows": rows})

    def input(self, dataset: DatasetInput) -> None:
        """Record a dataset with our digests: MLflow's own digest cannot see chat data."""
        self._inputs[dataset.context] = dataset
        prefix = {"training": "data.train", "validation": "data.validation"}.get(dataset.context, "data")
        facts = {"name": dataset.name, "version": dataset.version, "rows": str(dataset.rows)}
        facts |= {f"digest.{kind}": value for kind, value in dataset.digests.items()}
        self._put(
            {
                "do": "input",
                "name": dataset.name,
                "digest": dataset.digests["canonical"][:_DIGEST_CHARACTERS],
                "source": json.dumps({"uri": dataset.source}),
                "profile": json.dumps({"num_rows": dataset.rows}),
                "context": dataset.context,
                "tags": facts,
            }
        )
        self.tags({f"{prefix}.{key}": value for key, value in facts.items()})

    def artifact(self, name: str, content: str | Path | Mapping[str, list[Any]]) -> None:
        """Keep a text, a file or a table; texts and tables also stand in the run's own folder."""
        if isinstance(content, Path):
            path = content
        else:
            path = self._opening.output / "artifacts" / name
            if not isinstance(content, str):
                columns = list(content)
                rows = [list(row) for row in zip(*content.values(), strict=True)]
                content = json.dumps({"columns": columns, "data": rows}, ensure_ascii=False)
                self._tables.append(name)
                shown = [{"path": table, "type": "table"} for table in self._tables]
                self.tags({"mlflow.loggedArtifacts": json.dumps(shown)})
            write_text(path, content)
        if path.exists():
            self._put({"do": "artifact", "name": name, "path": str(path)})

    def figure(self, name: str, figure: Any) -> None:
        """Keep a matplotlib figure as a PNG picture."""
        path = writable((self._opening.output / "artifacts" / name).parent) / Path(name).name
        figure.savefig(path, dpi=110, bbox_inches="tight")
        self._put({"do": "artifact", "name": name, "path": str(path)})

    def checkpoint(self, checkpoint: Checkpoint, params: Mapping[str, Any]) -> None:
        """Publish a checkpoint as one LoggedModel, PENDING until its files and numbers are there."""
        self._put(
            {
                "do": "checkpoint",
                "name": checkpoint.name,
                "step": checkpoint.step,
                "folder": str(checkpoint.folder.absolute()),
                "storage": self._opening.storage,
                "params": {key: str(value) for key, value in params.items()},
                "tags": dict(checkpoint.tags),
                "rows": self._held.pop(checkpoint.name, []),
            }
        )

    def forget(self, checkpoint: Checkpoint) -> bool:
        """Remove a checkpoint's files unless the registry names it or a write of it still waits; its numbers stay."""
        if self._outbox.waiting or not self._store.reachable():
            return False
        model = ledger.find_checkpoint(self._store, self.id, checkpoint.name)
        if model is None:
            return True
        if ledger.is_registered(self._store, model.model_id):
            return False
        if model.tags.get("checkpoint.storage") == "upload":
            return True  # the server keeps its own copy
        place = local_path(model.artifact_location)
        for file in place.iterdir() if place and place.is_dir() else ():
            file.unlink()
        self._store.client.set_logged_model_tags(model.model_id, {"checkpoint.files": ledger.REMOVED})
        return True

    def register(self, entry: Registration, of_run: str = "") -> None:
        """Enter a checkpoint of this run, or of another, into the model registry."""
        self._put(
            {
                "do": "register",
                "run": of_run or self.id,
                "checkpoint": entry.checkpoint,
                "model": entry.model,
                "alias": entry.alias,
                "description": entry.description,
            }
        )

    def finish(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED, waiting a moment for a server that is away."""
        self._put({"do": "finish", "status": status, "time": int(time.time() * 1000)})
        self._outbox.flush(patience=10.0)

    def _put(self, write: dict[str, Any]) -> None:
        with self._lock:
            self._outbox.put(write)

    def _is_logged(self, key: str, step: int) -> bool:
        if not self._opening.resume:
            return False
        if key not in self._logged:
            try:
                self._logged[key] = {metric.step for metric in ledger.history(self._store, self.id, key)}
            except Exception as error:
                if not is_away(error):
                    raise
                return False  # the write will wait too, and its delivery looks for what is there
        return step in self._logged[key]


@contextmanager
def open_run(opening: Opening) -> Iterator[MlflowRun]:
    """Open a run, mark it by how the block ends, and close it.

    A block that ends by `KeyboardInterrupt` (Ctrl-C, SIGTERM) leaves KILLED, by any other exception FAILED.

    Raises:
        UserError: the tracking server does not answer, or the name is taken.
    """
    store = connect()
    settle(store)
    experiment, run = _resumed(store, opening) if opening.resume else _created(store, opening)
    opened = MlflowRun(store, run, experiment, opening)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(store, run, stop), daemon=True)
    beat.start()
    status = "FAILED"
    try:
        _describe(opened, opening)
        yield opened
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except Exception as error:
        opened.tags({"run.error": mask(str(error))[:1000] or type(error).__name__})
        raise
    finally:
        stop.set()
        opened.finish(status)


def settle(store: Store) -> None:
    """Bring the record up to date: what dead processes left is delivered, and their runs no longer count as running."""
    deliver_left_over(store)
    for run in ledger.running_here(store, environment.host()):
        if not lives(run):
            store.client.set_tag(run.id, "run.error", "its process ended without a word; found dead at a later start")
            deliver(store, run.id, {"do": "finish", "status": "KILLED", "time": int(time.time() * 1000)}, again=True)


def lives(run: ledger.RunRow) -> bool:
    """Whether the process of a run that the record calls running is there: looked up here, elsewhere told by its heartbeat."""
    if run.tags.get("run.host") == environment.host():
        return environment.lives(run.tags.get("run.process", ""))
    return time.time() - float(run.tags.get("run.heartbeat", "0")) < SILENCE


def recorded_text(store: Store, run: str, name: str) -> str:
    """Read a text artifact of a run.

    Raises:
        UserError: the run has no such artifact.
    """
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        try:
            return Path(store.client.download_artifacts(run, name, folder)).read_text("utf-8")
        except Exception as error:
            raise UserError(f"run {run} has no readable {name}", remedy="start a new run") from error


def _created(store: Store, opening: Opening) -> tuple[str, str]:
    """Create the run, or adopt the one that `mlflow run` opened; its name is unique in the whole store."""
    tags = {
        "stage": opening.stage,
        "project": opening.project,
        "output": str(opening.output.absolute()),
        "folder": str(Path.cwd()),
        **environment.process_tags(),
    }
    if opening.parent:
        tags["mlflow.parentRunId"] = opening.parent
    adopted = "" if opening.parent else os.environ.get("MLFLOW_RUN_ID", "")
    _refuse_taken(opening.name, [run for run in ledger.named(store, opening.name) if run.id != adopted])
    if adopted:
        _check_adopted(store, adopted)
        for key, value in tags.items():
            store.client.set_tag(adopted, key, value)
        store.client.update_run(adopted, status="RUNNING", name=opening.name)
        experiment = str(store.client.get_run(adopted).info.experiment_id)
        lies = store.client.get_experiment(experiment).name
        if lies != opening.project:
            remedy = f"mlflow run … --experiment-name {opening.project}"
            console.warn(f"this run lies in the experiment '{lies}', where it was opened, not in '{opening.project}': {remedy}")
        return experiment, adopted
    experiment = store.experiment(opening.project)
    run = store.client.create_run(experiment, run_name=opening.name, tags=tags).info.run_id
    same = ledger.named(store, opening.name)
    if same and same[0].id != run:
        # Two processes took the name at once: the later gives way.
        store.client.delete_run(run)
        _refuse_taken(opening.name, [each for each in same if each.id != run])
    return experiment, str(run)


def _check_adopted(store: Store, run: str) -> None:
    remedy = "unset it; only `mlflow run` sets it rightly"
    try:
        row = ledger.find_run(store, run)
    except UserError as error:
        raise UserError(error.what, "MLFLOW_RUN_ID", remedy) from error
    if row.status == "FINISHED":
        raise UserError(f"run '{row.name}' is finished", "MLFLOW_RUN_ID", remedy)


def _resumed(store: Store, opening: Opening) -> tuple[str, str]:
    run = store.client.get_run(opening.resume)
    for key, value in environment.process_tags().items():
        store.client.set_tag(opening.resume, key, value)
    store.client.update_run(opening.resume, status="RUNNING")
    if "run.error" in run.data.tags:
        store.client.delete_tag(opening.resume, "run.error")
    return str(run.info.experiment_id), opening.resume


class NameTakenError(UserError):
    """Another run has the name."""

    def __init__(self, name: str, other: ledger.RunRow) -> None:
        """Say who has it, and the ways out."""
        goes_on = "" if other.status == "FINISHED" else f", or go on with it: resume={name}"
        super().__init__(f"'{name}' is taken by {other.status.lower()} run {other.id}", "run_name", f"choose another{goes_on}")
        self.name = name


def _refuse_taken(name: str, others: list[ledger.RunRow]) -> None:
    if others:
        raise NameTakenError(name, others[0])


def _describe(run: MlflowRun, opening: Opening) -> None:
    command = environment.argv_of(opening.stage, list(opening.overrides))
    state = environment.describe(command)
    if opening.resume:
        # The state that the run began from stays; what is another now stands beside it.
        before = connect().client.get_run(run.id).data.tags
        ignored = ("command", "mlflow.source.name", "mlflow.source.type", "mlflow.user")
        other = {key: value for key, value in state.tags.items() if key not in ignored and before.get(key) != value}
        if other:
            console.warn(f"code, packages or machine changed since the run began: {', '.join(sorted(other))}")
        run.tags({"resumed": "true", **{f"resume.{key}": value for key, value in other.items()}})
        return
    run.params(opening.config)
    run.tags(state.tags | ({"seed": str(opening.seed)} if opening.seed is not None else {}))
    if opening.config_yaml:
        run.artifact("config.yaml", opening.config_yaml)
    run.artifact("environment/packages.txt", state.packages)
    run.artifact("environment/overrides.txt", "\n".join(opening.overrides) + "\n")
    for name, patch in state.patches.items():
        run.artifact(f"environment/{name}.patch", patch)


def _beat(store: Store, run: str, stop: threading.Event) -> None:
    while not stop.wait(_HEARTBEAT):
        try:
            if store.reachable():
                store.client.set_tag(run, "run.heartbeat", str(int(time.time())))
        except Exception as error:
            if not is_away(error):
                raise


def _cut(text: str, longest: int, where: str = "") -> str:
    mark = f" … (cut{where})"
    return text if len(text) <= longest else text[: longest - len(mark)] + mark
