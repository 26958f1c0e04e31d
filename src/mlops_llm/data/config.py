"""Settings of the data stage, and what its operations are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Optional, Protocol

from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import Read
from mlops_llm.errors import UserError
from mlops_llm.launch.place import Place
from mlops_llm.record import Result, Run

Work = Callable[[Run], Result]
"""What is left to do once a request is known to be sound."""


class Operation(Protocol):
    """An operation on datasets: a component of the group `op`."""

    records: ClassVar[bool]
    """It changes or measures something, and leaves a run."""

    def prepare(self, request: Data) -> Work:
        """Check the request and read what is cheap to read; a `UserError` from here leaves no run."""
        ...


@dataclass
class Data:
    """List, check, clean and version datasets; versions and measurements are recorded in MLflow."""

    op: Any = "???"
    """What to do."""
    dataset: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """A dataset: the name of a file in datasets/, NAME@LABEL, NAME@DIGEST, a path, a folder of shards, hf:ORG/NAME."""
    name: Optional[str] = None  # noqa: UP045
    """Name of the dataset that comes out; null takes that of the file (with an ending such as _dedup)."""
    kind: Optional[Kind] = None  # noqa: UP045
    """What the rows are for; null tells it from their fields."""
    output: Optional[str] = None  # noqa: UP045
    """File to write (op=export)."""
    read: Read = field(default_factory=Read)
    launch: Place = field(default_factory=Place)
    """Where the command runs: local is here and now, queue puts it into this machine's queue."""
    project: str = "default"
    """MLflow experiment of the runs; versions are kept in the experiment datasets/NAME."""
    run_name: Optional[str] = None  # noqa: UP045
    """Unique name of the run; null takes the stage's name and four hex digits."""
    resume: Optional[str] = None  # noqa: UP045
    """Not for data: an operation is simply typed again."""
    seed: int = 0
    """Seed of what is drawn at random."""

    def wanted(self) -> str:
        """The dataset ref.

        Raises:
            UserError: none was given.
        """
        if not self.dataset:
            raise UserError("names no dataset", "dataset", "give one: dataset=NAME, dataset=NAME@LABEL or dataset=FILE")
        return self.dataset
