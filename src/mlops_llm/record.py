"""What work writes down, whoever keeps it: the `Run` protocol and the values that pass through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mlops_llm.errors import UserError


@dataclass(frozen=True)
class DatasetInput:
    """A dataset as one run used it."""

    name: str
    """The dataset's name."""
    version: str
    """Version label, or the path when the file is not a registered version."""
    source: str
    """Path or address of the file."""
    context: str
    """`training`, `validation` or `evaluation` (whose answers are scored)."""
    rows: int
    """Rows used."""
    digests: Mapping[str, str]
    """`raw`, `canonical` and `seen`: SHA-256 in hex."""


@dataclass(frozen=True)
class Checkpoint:
    """The weights at one step, as the record knows them."""

    name: str
    """`checkpoint-<step>`."""
    step: int
    folder: Path
    """Where the inference files are."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """`digest.weights`, `digest.template`, `bytes`, ..."""
    model: str = ""
    """Its LoggedModel id, when it is in the record already."""


@dataclass(frozen=True)
class Answer:
    """A model's answer with what is known of it."""

    place: int
    """Number of the question in its run, from 0."""
    prompt: str
    text: str
    """Empty where there is none."""
    references: Sequence[str] = ()
    """Good answers."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Name -> finite value."""
    judged: Sequence[str] = ()
    """Names of those scores that a model gave."""
    comment: str = ""
    """What that model said; where none did, why the scores are so."""
    failure: Sequence[str] | None = None
    """Class and cause, where there is no answer or no rating."""
    seconds: float = 0.0
    tokens: int = 0
    """Length of the answer."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What else is known of the question."""


@dataclass(frozen=True)
class Registration:
    """A checkpoint's entry into the model registry."""

    checkpoint: str
    """Name of the checkpoint within its run."""
    model: str
    """Registered model's name."""
    alias: str
    description: str
    """Why this checkpoint was taken."""
    run: str = ""
    """Id of the run that made it; empty of the one that registers it."""


@dataclass(frozen=True)
class Grid:
    """A table with columns, as a person reads it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Result:
    """What a piece of work ends with."""

    title: str
    table: Mapping[str, Any]
    """Label -> value, as a person reads it; nothing is shown for an empty one."""
    values: Mapping[str, Any]
    """What `result.json` holds besides the table."""
    shown: Sequence[Grid | str] = ()
    """More for a person's eyes, before the table: grids, or lines as they are (with rich's markup for colours)."""
    failed: bool = False
    """The work was done and says no, such as a check that found errors: the exit code is 1."""
    broken: UserError | None = None
    """Parts of the work failed though the rest was done: the run is FAILED, for this reason."""
    code: int = 0
    """Exit code of the process that did the work elsewhere; 0 leaves it to `failed`."""
    best: Registration | None = None
    """The checkpoint to register; in a multirun the parent registers only the best job's."""
    score: float | None = None
    """What jobs of a multirun are compared by."""
    higher_is_better: bool = False
    score_name: str = ""


class Run(Protocol):
    """Where work writes its record; one open run, never a global one."""

    @property
    def name(self) -> str:
        """Unique name of the run."""
        ...

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings; a key is written once."""
        ...

    def tags(self, values: Mapping[str, Any]) -> None:
        """Record searchable facts; a later value replaces an earlier one."""
        ...

    def metrics(
        self, values: Mapping[str, float], step: int, checkpoint: Checkpoint | None = None, dataset: str | None = None
    ) -> None:
        """Record numbers at a step; with `checkpoint` they are attached to it, with `dataset` (context) to that too."""
        ...

    def input(self, dataset: DatasetInput) -> None:
        """Record a dataset that the run reads."""
        ...

    def artifact(self, name: str, content: str | Path | Mapping[str, list[Any]]) -> None:
        """Keep a text, a file, or a table (columns -> values, name ending in .json) under `name`."""
        ...

    def checkpoint(self, checkpoint: Checkpoint, params: Mapping[str, Any]) -> None:
        """Publish the files in `checkpoint.folder` as a checkpoint; it is listed as unfinished until all are there."""
        ...

    def uses(self, checkpoint: Checkpoint) -> None:
        """Name weights that the run reads, of another run or from elsewhere; numbers can be attached to them from then on."""
        ...

    def forget(self, checkpoint: Checkpoint) -> bool:
        """Drop a checkpoint's files unless the registry names it; its metrics stay. Return whether it was dropped."""
        ...

    def figure(self, name: str, figure: Any) -> None:
        """Keep a matplotlib figure as a picture."""
        ...

    def answers(self, answers: Sequence[Answer], checkpoint: Checkpoint | None = None) -> None:
        """Show answers one by one, each with its scores, also at the checkpoint that gave them."""
        ...

    def register(self, entry: Registration, of_run: str = "") -> None:
        """Enter a checkpoint of this run, or of another (by its id), into the model registry."""
        ...

    def child(self, name: str, settings: Mapping[str, Any]) -> AbstractContextManager[Run]:
        """Open the run of one of several things that this one does, with its settings but for `settings` (dotted keys)."""
        ...


class NullRun:
    """Keeps nothing: the default in a notebook."""

    name = "unrecorded"

    def params(self, values: Mapping[str, Any]) -> None:
        """Keep nothing."""

    def tags(self, values: Mapping[str, Any]) -> None:
        """Keep nothing."""

    def metrics(
        self, values: Mapping[str, float], step: int, checkpoint: Checkpoint | None = None, dataset: str | None = None
    ) -> None:
        """Keep nothing."""

    def input(self, dataset: DatasetInput) -> None:
        """Keep nothing."""

    def artifact(self, name: str, content: str | Path | Mapping[str, list[Any]]) -> None:
        """Keep nothing."""

    def checkpoint(self, checkpoint: Checkpoint, params: Mapping[str, Any]) -> None:
        """Keep nothing."""

    def uses(self, checkpoint: Checkpoint) -> None:
        """Keep nothing."""

    def forget(self, checkpoint: Checkpoint) -> bool:
        """Nothing else keeps the files, so they may go."""
        return True

    def figure(self, name: str, figure: Any) -> None:
        """Keep nothing."""

    def answers(self, answers: Sequence[Answer], checkpoint: Checkpoint | None = None) -> None:
        """Keep nothing."""

    def register(self, entry: Registration, of_run: str = "") -> None:
        """Keep nothing."""

    @contextmanager
    def child(self, name: str, settings: Mapping[str, Any]) -> Iterator[NullRun]:
        """Keep nothing of it."""
        yield self


@dataclass
class MemoryRun:
    """Keeps everything in lists and dicts, for tests and notebooks."""

    name: str = "memory"
    kept_params: dict[str, Any] = field(default_factory=dict)
    kept_tags: dict[str, Any] = field(default_factory=dict)
    kept_metrics: list[tuple[str, float, int, str | None, str | None]] = field(default_factory=list)
    inputs: list[DatasetInput] = field(default_factory=list)
    artifacts: dict[str, Any] = field(default_factory=dict)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    used: list[Checkpoint] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    kept_answers: dict[str | None, list[Answer]] = field(default_factory=dict)
    registered: list[Registration] = field(default_factory=list)
    children: dict[str, MemoryRun] = field(default_factory=dict)

    def params(self, values: Mapping[str, Any]) -> None:
        """Keep the values."""
        self.kept_params.update(values)

    def tags(self, values: Mapping[str, Any]) -> None:
        """Keep the values."""
        self.kept_tags.update(values)

    def metrics(
        self, values: Mapping[str, float], step: int, checkpoint: Checkpoint | None = None, dataset: str | None = None
    ) -> None:
        """Keep (key, value, step, checkpoint name, dataset context)."""
        owner = checkpoint.name if checkpoint else None
        self.kept_metrics += [(key, value, step, owner, dataset) for key, value in values.items()]

    def input(self, dataset: DatasetInput) -> None:
        """Keep the input."""
        self.inputs.append(dataset)

    def artifact(self, name: str, content: str | Path | Mapping[str, list[Any]]) -> None:
        """Keep the content."""
        self.artifacts[name] = content

    def checkpoint(self, checkpoint: Checkpoint, params: Mapping[str, Any]) -> None:
        """Keep the checkpoint."""
        self.checkpoints.append(checkpoint)

    def uses(self, checkpoint: Checkpoint) -> None:
        """Keep the name."""
        self.used.append(checkpoint)

    def forget(self, checkpoint: Checkpoint) -> bool:
        """Drop the checkpoint, if it is kept."""
        self.checkpoints = [each for each in self.checkpoints if each.name != checkpoint.name]
        return True

    def figure(self, name: str, figure: Any) -> None:
        """Keep the figure."""
        self.figures[name] = figure

    def answers(self, answers: Sequence[Answer], checkpoint: Checkpoint | None = None) -> None:
        """Keep the answers under the checkpoint's name; those to the same questions replace earlier ones."""
        name = checkpoint.name if checkpoint else None
        kept = {each.place: each for each in [*self.kept_answers.get(name, []), *answers]}
        self.kept_answers[name] = list(kept.values())

    def register(self, entry: Registration, of_run: str = "") -> None:
        """Keep the entry."""
        self.registered.append(entry)

    @contextmanager
    def child(self, name: str, settings: Mapping[str, Any]) -> Iterator[MemoryRun]:
        """Keep it under its name."""
        yield self.children.setdefault(name, MemoryRun(f"{self.name}-{name}", dict(settings)))
