"""Settings of the surgery stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import Read
from mlops_llm.errors import UserError
from mlops_llm.eval.config import Benchmarks, Cache, Eval
from mlops_llm.inference.engine import Care, Sampling
from mlops_llm.launch.place import Place
from mlops_llm.models.load import Dtype, ModelLoad

PACKAGES = (
    "mlops_llm.surgery.ops",
    "mlops_llm.eval.metrics",
    "mlops_llm.eval.judges",
    "mlops_llm.inference.engines",
)


@dataclass
class Then:
    """What follows once the new checkpoint is there."""

    evaluate: bool = False
    """Score it, and the models that it was made of, on dataset=REF by metric=[…], judge=… and benchmark=[…]."""


@dataclass
class Making:
    """Settings of what is made, and of what."""

    op: Any = "???"
    """What to do."""
    model: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Model of an operation that takes one: tiny, smollm2, a folder, a hub id, models:/NAME@ALIAS, runs:/RUN/best."""
    models: list[str] = field(default_factory=list)
    """Models of an operation that takes several."""
    base: Optional[str] = None  # noqa: UP045
    """What the models were trained from, where the method needs it; of an adapter, what it is merged into."""
    run: Optional[str] = None  # noqa: UP045
    """Training (id or name) whose checkpoints are taken."""
    output: Optional[str] = None  # noqa: UP045
    """Folder of the new checkpoint, which must not exist; null is a folder in the run's own."""
    dtype: Dtype = Dtype.auto
    """Number format of the new weights; auto is that of the first model. Arithmetic is in float32 whatever it is."""
    shard_mb: int = 4000
    """Most megabytes (10^6 bytes) of a file of weights; a larger model has several."""
    name: Optional[str] = None  # noqa: UP045
    """Register the new checkpoint as a version of this model, with the alias challenger."""
    then: Then = field(default_factory=Then)


@dataclass
class Scoring:
    """Settings of how models are scored: those of the evaluation room, by the same names."""

    dataset: Optional[str] = None  # noqa: UP045
    """Rows to score models on: the name of a dataset, NAME@LABEL, or a path."""
    kind: Optional[Kind] = None  # noqa: UP045
    """What rows are for, those to score on and those to calibrate by; null tells it from their fields."""
    metric: dict[str, Any] = field(default_factory=dict)
    """How answers are scored, several: metric=[bleu,rouge]."""
    judge: Any = None
    """Model that rates the answers: rubric_zh, rubric_en."""
    benchmark: list[str] = field(default_factory=list)
    """Standard benchmarks: gsm8k, mmlu, humaneval, truthfulqa, another task of lm-eval, or a folder of tasks."""
    benchmarks: Benchmarks = field(default_factory=Benchmarks)
    engine: Any = "???"
    """What answers: hf is transformers in this process, vllm an engine."""
    sampling: Sampling = field(default_factory=Sampling)
    care: Care = field(default_factory=Care)
    limit: Optional[int] = None  # noqa: UP045
    """Rows to score on, from the first on; null is all."""
    sample: Optional[int] = None  # noqa: UP045
    """Rows to score on, drawn at random by the seed; null is all."""
    cache: Cache = Cache.on
    """on takes answers that the same weights gave before; refresh asks anew and keeps them, off does neither."""


@dataclass
class Running:
    """Settings of the run: how files are read, where it runs, what the record calls it."""

    model_load: ModelLoad = field(default_factory=ModelLoad)
    read: Read = field(default_factory=Read)
    launch: Place = field(default_factory=Place)
    """Where the command runs: local is here and now, queue puts it into this machine's queue."""
    project: Optional[str] = None  # noqa: UP045
    """MLflow experiment; null is that of the run that made the first model, else default."""
    run_name: Optional[str] = None  # noqa: UP045
    """Unique name of the run; null takes the stage's name and four hex digits."""
    folder: Optional[str] = None  # noqa: UP045
    """Folder of the run's files: log, result, pictures; null is outputs/RUN_NAME."""
    resume: Optional[str] = None  # noqa: UP045
    """Run (id or name) that was stopped, to go on with in the same run and with its settings."""
    seed: int = 0
    """Seed of what is drawn at random."""


@dataclass
class Surgery(Running, Scoring, Making):
    """Make one new checkpoint of others: merge, average, quantize, prune, export; each with a recipe and a certificate."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.seed < 2**32:
            raise UserError(f"is {self.seed}", "seed", "give a whole number from 0 to 4294967295")
        if self.shard_mb < 1:
            raise UserError(f"is {self.shard_mb}", "shard_mb", "give a whole number of megabytes from 1")
        for name in ("limit", "sample"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"is {value}", name, "give a whole number from 1, or null")

    @property
    def one(self) -> str:
        """The model of an operation that takes one.

        Raises:
            UserError: there is none, or there are several.
        """
        named = [*([self.model] if self.model else []), *self.models]
        if len(named) != 1:
            what = f"{len(named)} models are named, and the operation takes one" if named else "names no model"
            raise UserError(what, "model", "give model=REF")
        return named[0]

    def evaluation(self, model: str, output: str) -> Eval:
        """The same questions and metrics as the evaluation room wants them, for one model.

        Args:
            model: ref of the model that is asked.
            output: folder where its answers are kept as they come.
        """
        return Eval(
            op=None,
            model=model,
            dataset=self.dataset,
            kind=self.kind,
            metric=self.metric,
            judge=self.judge,
            benchmark=self.benchmark,
            benchmarks=self.benchmarks,
            engine=self.engine,
            sampling=self.sampling,
            care=self.care,
            limit=self.limit,
            sample=self.sample,
            cache=self.cache,
            model_load=self.model_load,
            read=self.read,
            seed=self.seed,
            output=output,
        )
