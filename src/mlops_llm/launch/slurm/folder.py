"""The folder of a job, which the machine that sent it and the nodes have in common."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlops_llm.files import write_text
from mlops_llm.launch.place import Command, command_of


@dataclass(frozen=True)
class Sheet:
    """What the nodes must know of a job. No secret is in it."""

    command: Command
    tries: int
    grace: float
    host: str
    """The machine that sent it."""
    python: str
    """What starts Python on a node, as a line of shell."""


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    starts: int = 0
    idle: int = 0
    """Starts in a row that came to nothing."""
    note: str = ""
    """What happened last."""
    over: bool = False
    code: int = 0
    """Exit code, once it is over."""


@dataclass(frozen=True)
class JobFolder:
    """The files of a job."""

    path: Path
    sheet_file: Path = field(init=False)

    def __post_init__(self) -> None:
        """Name the file of what does not change."""
        object.__setattr__(self, "sheet_file", self.path / "job.json")

    @property
    def script(self) -> Path:
        """What sbatch was given."""
        return self.path / "job.sh"

    @property
    def code(self) -> Path:
        """Exit code of the command's last process, while nobody has judged it yet."""
        return self.path / "code"

    @property
    def saved(self) -> Path:
        """What the command says it saved when it was told to stop."""
        return self.path / "saved"

    @property
    def cancel(self) -> Path:
        """Is there where somebody wants the job to end for good."""
        return self.path / "cancel"

    def unknown_since(self, now: float) -> float:
        """When SLURM was found not to know the job: `now` where nobody has noted that yet. Seconds since 1970.

        Raises:
            OSError: the folder is gone, or cannot be written.
        """
        file = self._unknown
        if not file.is_file():
            file.write_text(str(now))  # a folder that is gone is not to come back
        return float(file.read_text() or now)

    def is_known(self) -> None:
        """Strike that SLURM does not know the job."""
        self._unknown.unlink(missing_ok=True)

    @property
    def _unknown(self) -> Path:
        return self.path / "unknown"

    def log(self, job: str) -> Path:
        """What the command prints on the first node, as submitit names it."""
        return self.path / f"{job}_0_log.out"

    def write(self, sheet: Sheet) -> None:
        """Write down what does not change."""
        write_text(self.sheet_file, json.dumps(asdict(sheet), default=lambda choice: choice.name, ensure_ascii=False, indent=1))

    def sheet(self) -> Sheet:
        """What does not change."""
        values = json.loads(self.sheet_file.read_text("utf-8"))
        return Sheet(**{**values, "command": command_of(values["command"])})

    def progress(self) -> Progress:
        """How far it is."""
        return Progress(**self._read("progress.json"))

    def note(self, progress: Progress) -> None:
        """Write down how far it is."""
        write_text(self.path / "progress.json", json.dumps(asdict(progress), ensure_ascii=False))

    def start(self) -> dict[str, Any]:
        """Command line and variables of the next start, as the first node has found them."""
        return self._read("start.json")

    def begin(self, argv: list[str], variables: dict[str, str]) -> None:
        """Write down command line and variables of the next start."""
        write_text(self.path / "start.json", json.dumps({"argv": argv, "variables": variables}, ensure_ascii=False))

    def _read(self, name: str) -> dict[str, Any]:
        file = self.path / name
        found: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        return found
