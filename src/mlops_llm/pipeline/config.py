"""Settings of the pipeline stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Optional

from mlops_llm.errors import UserError
from mlops_llm.launch.place import Place

ROOMS = ("data", "train", "eval", "surgery", "registry")
"""Whose commands a stage may be."""


class Op(Enum):
    """What to do."""

    run = "run"
    plan = "plan"


class Otherwise(Enum):
    """What becomes of a stage whose condition does not hold."""

    skip = "skip"
    """It is left out, and hands on the model that it was given."""
    end = "end"
    """The pipeline ends there."""


class Method(Enum):
    """How settings to try are chosen."""

    none = "none"
    """The stage is done once, with its own settings."""
    optuna = "optuna"
    """Optuna's tree of Parzen estimators (Bergstra et al. 2011) proposes each next try by what came out before."""


def _none() -> dict[str, Any]:
    """No entries; groups of components have `dict` itself as their factory, by which the command line tells them."""
    return {}


@dataclass
class Search:
    """Tries of a stage with several settings; the best one is handed on, and registered where the stage registers."""

    method: Method = Method.none
    """none does the stage once, optuna searches; on the command line stages.NAME.search=optuna."""
    over: dict[str, Any] = field(default_factory=_none)
    """Setting -> [LOW, HIGH] of numbers, or the choices: {trainer.learning_rate: [1e-4, 1e-2], peft: [none, lora]}."""
    tries: int = 10
    """How many."""
    by: str = "eval/loss"
    """Number that counts, as the stage's run tells it while it runs; the best value that it had."""
    prune: bool = True
    """Give a try up that is worse than the median of the others at the same step."""


@dataclass
class Stage:
    """One command of a pipeline."""

    command: str = ""
    """Without `python -m mlops_llm.`: `train +experiment=sft_sales`. In it `stage:NAME/best` stands for what another stage
    makes, and `server:NAME/PATH` for a server of the flow."""
    overrides: list[str] = field(default_factory=list)
    """More settings, which win over those of `command`; on the command line stages.NAME.SETTING=VALUE."""
    needs: list[str] = field(default_factory=list)
    """Stages that come before it."""
    when: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """What must hold for it to be done: `stage:b/score/bleu > stage:a/score/bleu`, `${values.peft} == lora`."""
    otherwise: Otherwise = Otherwise.skip
    """skip leaves it out where `when` does not hold, and it hands on the model that it was given; end ends the pipeline."""
    retries: int = 0
    """How often it is tried again after it failed."""
    always: bool = False
    """Do it also where its inputs are those of a finished one: what it does depends on more, such as the registry."""
    decides: bool = False
    """Its no is an answer, as a policy's, and no failure: what needs it is left out, and the pipeline ends well."""
    search: Search = field(default_factory=Search)
    """Tries of it with several settings."""


@dataclass
class Server:
    """A program that runs as long as a stage that names it."""

    command: str = ""
    """Its command, in which {port} stands for a free port and python for this one."""
    ready: str = ""
    """Path that answers, whatever it says, once the server is there: /health."""
    patience: float = 60.0
    """Seconds until it must be there."""


@dataclass
class Pipeline:
    """Carry out the stages of a flow, each the ordinary command in a process and a run of its own; nothing is done twice."""

    op: Op = Op.run
    """run carries the stages out; plan shows them with the time and the disk that they took before."""
    values: dict[str, Any] = field(default_factory=_none)
    """What stages share, as ${values.NAME}; on the command line NAME=VALUE: model=smollm2."""
    stages: dict[str, Stage] = field(default_factory=_none)
    """The flow: a name and the command of each stage."""
    servers: dict[str, Server] = field(default_factory=_none)
    """Programs that the flow starts for stages, and stops."""
    score: Optional[str] = None  # noqa: UP045
    """Number of evaluations by which models are set in order at the end, such as score/bleu; null takes the first that they
    have in common."""
    launch: Place = field(default_factory=Place)
    """Where the pipeline runs: local is here and now, queue puts it into this machine's queue."""
    project: str = "default"
    """MLflow experiment, also of all stages."""
    run_name: Optional[str] = None  # noqa: UP045
    """Unique name of the run; null takes the experiment's name and four hex digits."""
    resume: Optional[str] = None  # noqa: UP045
    """Run (id or name) that was stopped, to go on with in the same run; a new run of the same command also goes on."""
    output: Optional[str] = None  # noqa: UP045
    """Folder of the run's files, with those of its stages; null is outputs/RUN_NAME."""
    seed: int = 0
    """Seed of all stages that do not name one."""

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 <= self.seed < 2**32:
            raise UserError(f"is {self.seed}", "seed", "give a whole number from 0 to 4294967295")
