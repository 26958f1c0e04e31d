"""Settings of the evaluation stage, and what its operations are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Optional, Protocol

from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import Read
from mlops_llm.errors import UserError
from mlops_llm.eval.overlap import Overlap
from mlops_llm.inference.engine import Care, Sampling
from mlops_llm.launch.place import Place
from mlops_llm.models.load import ModelLoad
from mlops_llm.record import Result, Run

PACKAGES = (
    "mlops_llm.eval.ops",
    "mlops_llm.eval.metrics",
    "mlops_llm.eval.judges",
    "mlops_llm.inference.engines",
)
Work = Callable[[Run], Result]
"""What is left to do once a request is known to be sound."""


class Operation(Protocol):
    """An operation of the stage: a component of the group `op`."""

    def prepare(self, request: Eval) -> Work:
        """Check the request and read what is cheap to read; a `UserError` from here leaves no run."""
        ...


class Cache(Enum):
    """What becomes of answers that were given before."""

    on = "on"
    """They are used."""
    off = "off"
    """They are neither used nor kept."""
    refresh = "refresh"
    """All are given anew, and kept."""


@dataclass
class Publish:
    """What of the answers enters the record."""

    rows: int = 200
    """Answers that are traces in MLflow's evaluation view, at most; 0 makes none. The table has all of them."""

    def __post_init__(self) -> None:
        """Check the range."""
        if self.rows < 0:
            raise UserError(f"is {self.rows}", "publish.rows", "give a number from 0")


@dataclass
class Benchmarks:
    """How standard benchmarks are run."""

    data: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Folder with the benchmarks' files; null takes registered datasets of their names, then the hub."""
    few_shot: Optional[int] = None  # noqa: UP045
    """Worked examples before each question; null keeps the task's own number."""
    chat_template: bool = False
    """Questions are put as a user's turn in the model's chat template, as lm-eval's apply_chat_template does."""
    system: str = ""
    """System prompt, where the chat template is used."""
    allow_code: bool = False
    """Run the programs that a model wrote (humaneval). They are held back, but not jailed."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.few_shot is not None and self.few_shot < 0:
            raise UserError(f"is {self.few_shot}", "benchmarks.few_shot", "give a number from 0, or null")
        if self.system and not self.chat_template:
            raise UserError("is given, but no chat template is used", "benchmarks.system", "benchmarks.chat_template=true")


@dataclass
class Eval:
    """Score a model's answers; every score is recorded with checkpoint and dataset version."""

    op: Any = "???"
    """What to do."""
    model: str = "tiny"
    """Model to ask: tiny, smollm2, a folder, a hub id, models:/NAME@ALIAS, runs:/RUN/checkpoint-STEP (also /best, /last)."""
    models: list[str] = field(default_factory=list)
    """Models to set side by side (op=compare); with op=score they are scored one after the other."""
    run: Optional[str] = None  # noqa: UP045
    """Run of an evaluation (id or name) to report on."""
    dataset: Optional[str] = None  # noqa: UP045
    """Rows to ask: the name of a dataset, NAME@LABEL, or a path."""
    kind: Optional[Kind] = None  # noqa: UP045
    """What the rows are for; null tells it from their fields."""
    metric: dict[str, Any] = field(default_factory=dict)
    """How answers are scored, several: metric=[bleu,rouge]."""
    judge: Any = None
    """Model that rates the answers: rubric_zh, rubric_en."""
    benchmark: list[str] = field(default_factory=list)
    """Standard benchmarks: gsm8k, mmlu, humaneval, truthfulqa, another task of lm-eval, or a folder of tasks."""
    benchmarks: Benchmarks = field(default_factory=Benchmarks)
    engine: Any = "???"
    """What answers: hf is transformers in this process, vllm an engine, openai a running server."""
    sampling: Sampling = field(default_factory=Sampling)
    care: Care = field(default_factory=Care)
    limit: Optional[int] = None  # noqa: UP045
    """Rows, or items of each benchmark, from the first on; null is all."""
    sample: Optional[int] = None  # noqa: UP045
    """Rows drawn at random by the seed; null is all."""
    cache: Cache = Cache.on
    """on takes answers that the same weights gave before; refresh asks anew and keeps them, off does neither."""
    save_outputs: bool = True
    """Keep prompts, answers and comments in the record and the run's folder; false keeps only numbers there."""
    overlap: Overlap = field(default_factory=Overlap)
    publish: Publish = field(default_factory=Publish)
    model_load: ModelLoad = field(default_factory=ModelLoad)
    read: Read = field(default_factory=Read)
    launch: Place = field(default_factory=Place)
    """Where the command runs: local is here and now, queue puts it into this machine's queue."""
    project: Optional[str] = None  # noqa: UP045
    """MLflow experiment; null is that of the run that made the model, so that both compare in one view, else default."""
    run_name: Optional[str] = None  # noqa: UP045
    """Unique name of the run; null takes the stage's name and four hex digits."""
    resume: Optional[str] = None  # noqa: UP045
    """Run (id or name) to go on with, in the same run and with its settings; no answer is asked for twice."""
    output: Optional[str] = None  # noqa: UP045
    """Folder of the run's files; null is outputs/RUN_NAME."""
    seed: int = 0
    """Seed of what is drawn at random: rows, and answers."""

    def __post_init__(self) -> None:
        """Check what no single field can."""
        if not 0 <= self.seed < 2**32:
            raise UserError(f"is {self.seed}", "seed", "give a whole number from 0 to 4294967295")
        for name in ("limit", "sample"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"is {value}", name, "give a whole number from 1, or null")
        if self.limit and self.sample:
            raise UserError("is given beside limit", "sample", "give one of them")
