"""A run in MLflow, as work writes it."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlops_llm.files import writable, write_text
from mlops_llm.record import Answer, Checkpoint, DatasetInput, Registration
from mlops_llm.tracking import checkpoints, evaluations, forgetting, ledger, models
from mlops_llm.tracking.outbox import Outbox
from mlops_llm.tracking.store import Store, is_away

LONGEST_PARAM = 6000
"""MLflow cuts longer values silently; ours are cut with a mark, and config.yaml has them whole."""
LONGEST_TAG = 5000
"""Longer tags are refused by MLflow."""
_WHOLE = "; whole in config.yaml"
_DIGEST_CHARACTERS = 32
_TOGETHER = 1.0
"""Seconds in which numbers wait for more, so that steps of milliseconds share one write of a database; other writes end it."""


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
    tags: Mapping[str, str] = field(default_factory=dict)
    """More that is known of it from its first moment on."""


class MlflowRun:
    """`record.Run` on MLflow. Writes survive an absent server (see outbox)."""

    def __init__(self, store: Store, run: str, experiment: str, opening: Opening) -> None:
        """Wrap a run that exists."""
        self._store, self._opening = store, opening
        self.id, self._experiment = run, experiment
        self._outbox = Outbox(store, run)
        self._inputs: dict[str, DatasetInput] = {}
        self._logged: dict[str, set[int]] = {}
        self._used: dict[str, str] = {}
        self._tables: list[str] = []
        self._held: dict[str, list[list[Any]]] = {}
        self._late: list[list[Any]] = []
        self._told = -math.inf
        self._cut_off = False
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
        """Record finite numbers; on a resumed run a step that is there already is not written twice.

        Numbers that follow within a second share a write, which comes with the next of another kind at the latest. With
        `checkpoint` the numbers are attached to it when it is published (see `checkpoint`), at once where it is only used
        (see `uses`).
        """
        now = int(time.time() * 1000)
        data = self._inputs.get(dataset or "")
        labels = [data.name, data.digests["canonical"][:_DIGEST_CHARACTERS]] if data else [None, None]
        name = checkpoint.name if checkpoint else None
        owner = self._used.get(name or "", name)
        rows = [
            [key, float(value), now, step, owner, *labels]
            for key, value in values.items()
            if math.isfinite(value) and not self._is_logged(key, step)
        ]
        if name and owner == name:
            self._held.setdefault(name, []).extend(rows)
        elif rows:
            with self._lock:
                self._late += rows
                if time.monotonic() - self._told >= _TOGETHER:
                    self._tell()

    def input(self, dataset: DatasetInput) -> None:
        """Record a dataset with our digests: MLflow's own digest cannot see chat data."""
        self._inputs[dataset.context] = dataset
        prefixes = {"training": "data.train", "validation": "data.validation", "evaluation": "data.evaluation"}
        prefix = prefixes.get(dataset.context, "data")
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
                self._list_table(name)
            write_text(path, content, "backslashreplace")
        if path.exists():
            self._put({"do": "artifact", "name": name, "path": str(path)})

    def figure(self, name: str, figure: Any) -> None:
        """Keep a matplotlib figure as a PNG picture."""
        path = writable((self._opening.output / "artifacts" / name).parent) / Path(name).name
        figure.savefig(path, dpi=110, bbox_inches="tight")
        self._put({"do": "artifact", "name": name, "path": str(path)})

    def answers(self, answers: Sequence[Answer], checkpoint: Checkpoint | None = None) -> None:
        """Show answers as traces of this run, and of the checkpoint; to the same question there is one trace in a run."""
        name, now = checkpoint.name if checkpoint else "", int(time.time() * 1000)
        rows = [evaluations.row(each) for each in answers]
        for first in range(0, len(rows), evaluations.TOGETHER):
            some = rows[first : first + evaluations.TOGETHER]
            self._put({"do": "answers", "rows": some, "checkpoint": self._used.get(name, name), "time": now})

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

    def uses(self, checkpoint: Checkpoint) -> None:
        """Name weights that the run reads; those from outside the record enter it as a reference, once for each digest."""
        model = checkpoint.model or models.entered(self._store, self._experiment, checkpoint)
        self._used[checkpoint.name] = model
        self._put({"do": "uses", "model": model})

    def forget(self, checkpoint: Checkpoint) -> bool:
        """Remove a checkpoint's files unless the registry names it or a write of it still waits; its numbers stay."""
        if self._outbox.waiting or not self._store.reachable():
            return False
        model = checkpoints.find(self._store, self.id, checkpoint.name)
        if model is None:
            return True
        return forgetting.forget(self._store, model.model_id)

    @contextmanager
    def child(self, name: str, settings: Mapping[str, Any]) -> Iterator[MlflowRun]:
        """Open a run nested in this one; where this one is resumed, one that had begun goes on."""
        from mlops_llm.tracking.opening import open_run

        own, full = self._opening, f"{self.name}-{name}"
        begun = [each for each in ledger.named(self._store, full) if each.tags.get("mlflow.parentRunId") == self.id]
        inner = replace(
            own,
            name=full,
            output=own.output / name,
            config={**own.config, **settings},
            config_yaml="",
            resume=begun[0].id if begun else "",
            parent=self.id,
        )
        with open_run(inner) as run:
            yield run

    def register(self, entry: Registration, of_run: str = "") -> None:
        """Enter a checkpoint of this run, or of another, into the model registry."""
        self._put(
            {
                "do": "register",
                "run": entry.run or of_run or self.id,
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
            self._tell()
            self._outbox.put(write)

    def _tell(self) -> None:
        """Write the numbers that wait; the lock is held."""
        if self._late:
            rows, self._late = self._late, []
            try:
                self._outbox.put({"do": "metrics", "rows": rows} | ({"unsure": True} if self._cut_off else {}))
            except KeyboardInterrupt:
                # In the middle of it: whether they arrived is not known, so the next write looks.
                self._late, self._cut_off = rows + self._late, True
                raise
            self._told, self._cut_off = time.monotonic(), False

    def _list_table(self, name: str) -> None:
        """Name a table to MLflow's page, beside those of the run so far."""
        if self._opening.resume and not self._tables:
            self._tables = self._earlier_tables()
        if name not in self._tables:
            self._tables.append(name)
        self.tags({"mlflow.loggedArtifacts": listed(self._tables)})

    def _earlier_tables(self) -> list[str]:
        try:
            text = self._store.client.get_run(self.id).data.tags.get("mlflow.loggedArtifacts", "[]")
        except Exception as error:
            if not is_away(error):
                raise
            return []
        return [each["path"] for each in json.loads(text) if each["type"] == "table"]

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


def listed(tables: Sequence[str]) -> str:
    """Tables as MLflow's page wants them named; the oldest are left out where the tag would be too long."""
    shown = [{"path": table, "type": "table"} for table in tables]
    while len(text := json.dumps(shown)) > LONGEST_TAG:
        shown = shown[1:]
    return text


def _cut(text: str, longest: int, where: str = "") -> str:
    mark = f" … (cut{where})"
    return text if len(text) <= longest else text[: longest - len(mark)] + mark
