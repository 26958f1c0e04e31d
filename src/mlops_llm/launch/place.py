"""What is handed over when a command is to run elsewhere than here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

from mlops_llm.tracking import secrets
from mlops_llm.tracking.store import address

PLACES = "mlops_llm.launch.places"
"""Where the components of the group `launch` are."""
JOB = "MLOPS_LLM_JOB"
"""Variable that tells a command that it was handed over before, and is to run here."""
CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
"""Variables by which a record's server knows who asks."""
_PASSED_ON = (
    "PYTHONPATH",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "MLOPS_LLM_CACHE",
)


class Again(Enum):
    """What becomes of a command whose process died in mid-work."""

    resume = "resume"
    """Its run goes on."""
    repeat = "repeat"
    """It runs once more: nothing half-written is left."""
    no = "no"
    """Nothing: it is for a person to say which of its parts go on."""


@dataclass(frozen=True)
class Command:
    """A command that was checked as far as is cheap, and the run that waits for it."""

    stage: str
    words: tuple[str, ...]
    """As they stand on the command line."""
    name: str
    """The run's name."""
    run: str
    """The run's id."""
    link: str
    """The run's page."""
    again: Again
    variables: tuple[str, ...] = ()
    """Environment variables that the command names and whose values it needs: keys."""
    folder: str = field(default_factory=lambda: str(Path.cwd()))
    """Where it was typed."""
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=lambda: passed_on(os.environ))
    """Variables that mean the same wherever it runs; none is a secret."""
    tracking: str = field(default_factory=lambda: secrets.mask_address(address()))
    """Address of the record, without user and password."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Its settings, flat; of a multirun those of its first job."""

    def lacks(self, here: Mapping[str, str]) -> list[str]:
        """Names of the variables that it needs and that do not travel with it: keys, and what lets it into its record.

        Args:
            here: the environment in which it was typed.
        """
        found = [*self.variables, *([] if "MLFLOW_TRACKING_URI" in self.environment else ["MLFLOW_TRACKING_URI"])]
        found += [name for name in CREDENTIALS if here.get(name) and self.tracking.startswith("http")]
        return list(dict.fromkeys(found))

    @property
    def adopts(self) -> bool:
        """Whether its process takes over a run that waits, rather than going on with one."""
        return not self.words[0].startswith("resume=")


def command_of(values: Mapping[str, Any]) -> Command:
    """The command that `asdict` took apart and JSON kept, its choices by name."""
    listed = {"words": tuple(values["words"]), "variables": tuple(values["variables"])}
    return Command(**{**values, **listed, "again": Again[values["again"]]})


@dataclass
class Place:
    """Where a command runs: the base of the group `launch`, and itself here and now."""

    here: ClassVar[bool] = True
    """In this process."""

    @property
    def keeps_runs(self) -> bool:
        """Whether the folders of its runs are there alone."""
        return False

    def send(self, command: Command) -> list[str]:
        """Hand a command over; return lines that say where it is and how it is watched.

        Raises:
            UserError: it cannot be handed over.
        """
        raise NotImplementedError(type(self).__name__)

    def attend(self, command: Command) -> int:
        """Stay with a command that was sent, where the settings ask for it; return the exit code of this one."""
        return 0


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that a command needs elsewhere too, and the record's address; what holds a secret is left out."""
    found = {name: environment[name] for name in _PASSED_ON if environment.get(name)}
    found["MLFLOW_TRACKING_URI"] = address()
    return {name: value for name, value in found.items() if secrets.mask(f"{name}={value}") == f"{name}={value}"}


def named_variables(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Environment variables that flat settings name: those of `…_env`."""
    return tuple(sorted({str(value) for key, value in values.items() if key.endswith("_env") and value}))


def is_about_launch(override: str) -> bool:
    """Whether an override says where the command runs, rather than what it does."""
    key = override.lstrip("+~").partition("=")[0].partition("@")[0]
    return key == "launch" or key.startswith("launch.")


def without_launch(overrides: Iterable[str]) -> list[str]:
    """Overrides that say what a command does."""
    return [each for each in overrides if not is_about_launch(each)]
