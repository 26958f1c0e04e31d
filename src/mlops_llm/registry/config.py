"""Settings of the registry stage, and what its operations are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Optional, Protocol

from mlops_llm.data.read import Read
from mlops_llm.errors import UserError
from mlops_llm.eval.config import Cache, Eval
from mlops_llm.inference.engine import Care, Sampling
from mlops_llm.launch.place import Place
from mlops_llm.models.load import ModelLoad
from mlops_llm.record import Result, Run

PACKAGES = (
    "mlops_llm.registry.ops",
    "mlops_llm.registry.policy",
    "mlops_llm.registry.hooks",
    "mlops_llm.eval.metrics",
    "mlops_llm.eval.judges",
    "mlops_llm.inference.engines",
)
Work = Callable[[Run], Result]
"""What is left to do once a request is known to be sound."""


class Operation(Protocol):
    """An operation of the stage: a component of the group `op`."""

    records: ClassVar[bool]
    """It changes or makes something, and leaves a run."""

    def prepare(self, request: Registry) -> Work:
        """Check the request and read what is cheap to read; a `UserError` from here leaves no run."""
        ...


@dataclass
class Registry:
    """Say what is registered, and let a policy decide what becomes the champion; every decision is recorded."""

    op: Any = "???"
    """What to do."""
    name: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Registered model."""
    version: Optional[str] = None  # noqa: UP045
    """One of its versions, by number or alias; null is that with the alias challenger."""
    model: Optional[str] = None  # noqa: UP045
    """A model by its ref, instead of a version: models:/NAME@ALIAS, runs:/RUN/best, a folder, a hub id."""
    run: Optional[str] = None  # noqa: UP045
    """Training to reproduce, by id or name."""
    policy: Any = "???"
    """What a version must show to become the champion, by name: default, not_worse, rated, or a file in ./conf/policy."""
    hook: dict[str, Any] = field(default_factory=dict)
    """Who is told of a new champion, several: hook=[command,webhook]."""
    metric: dict[str, Any] = field(default_factory=dict)
    """How answers are scored where evidence is computed (op.evaluate=true); none takes those that give the policy's scores."""
    judge: Any = None
    """Model that rates the answers, where the policy asks for ratings: rubric_zh, rubric_en."""
    engine: Any = "???"
    """What answers: hf is transformers in this process, vllm an engine."""
    sampling: Sampling = field(default_factory=Sampling)
    care: Care = field(default_factory=Care)
    cache: Cache = Cache.on
    """on takes answers that the same weights gave before; refresh asks anew and keeps them, off does neither."""
    model_load: ModelLoad = field(default_factory=ModelLoad)
    read: Read = field(default_factory=Read)
    launch: Place = field(default_factory=Place)
    """Where the command runs: local is here and now, queue puts it into this machine's queue."""
    project: Optional[str] = None  # noqa: UP045
    """MLflow experiment; null is that of the run that made the model, else default."""
    run_name: Optional[str] = None  # noqa: UP045
    """Unique name of the run; null takes the stage's name and four hex digits."""
    resume: Optional[str] = None  # noqa: UP045
    """Not for the registry: a command is simply typed again, and what was cut off is completed by the next one."""
    output: Optional[str] = None  # noqa: UP045
    """Folder of the run's files; null is outputs/RUN_NAME."""
    seed: int = 0
    """Seed of what is drawn at random: answers, and what tests draw."""

    def __post_init__(self) -> None:
        """Check what no single field can."""
        if not 0 <= self.seed < 2**32:
            raise UserError(f"is {self.seed}", "seed", "give a whole number from 0 to 4294967295")
        if self.version is not None and self.model is not None:
            raise UserError("is given beside version", "model", "give one of them")

    @property
    def registered(self) -> str:
        """The registered model's name.

        Raises:
            UserError: none was given.
        """
        if not self.name:
            raise UserError("names no registered model", "name", "give name=NAME; op=list shows them")
        if "'" in self.name:
            raise UserError("holds a quotation mark, which no name here has", "name", "give another")
        return self.name

    def evaluation(self, model: str, dataset: str, limit: int | None, metric: Mapping[str, Any], output: str) -> Eval:
        """The evaluation of a model that gives evidence, as the evaluation room wants it.

        Args:
            model: ref.
            dataset: ref of the rows.
            limit: rows from the first on; None is all.
            metric: metrics by name.
            output: folder where answers are kept as they come.
        """
        return Eval(
            op=None,
            model=model,
            dataset=dataset,
            metric=dict(metric),
            judge=self.judge,
            engine=self.engine,
            sampling=self.sampling,
            care=self.care,
            limit=limit,
            cache=self.cache,
            model_load=self.model_load,
            read=self.read,
            seed=self.seed,
            output=output,
        )
