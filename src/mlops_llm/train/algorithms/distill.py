"""Knowledge distillation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from mlops_llm.component import component
from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import Source
from mlops_llm.errors import UserError
from mlops_llm.models.load import Files
from mlops_llm.models.template import IGNORED, Encoded
from mlops_llm.train import examples, ranks
from mlops_llm.train.needs import Held, number_bytes
from mlops_llm.train.written import Written

if TYPE_CHECKING:
    from mlops_llm.train.config import Train
    from mlops_llm.train.job import Job
    from mlops_llm.train.teacher import Present, Top


@component("algo", "distill")
@dataclass
class Distill(Written):
    """Knowledge distillation (Hinton et al. 2015, arXiv:1503.02531): a student learns a teacher's distribution and the labels.

    Loss: soft_weight T^2 KL(teacher || student) at temperature T + hard_weight cross entropy. `eval/loss` is the cross entropy
    of the labels alone, so that it compares with a training without a teacher.
    """

    kinds: ClassVar[tuple[Kind, ...]] = (Kind.sft,)
    best_metric: ClassVar[str] = "eval/loss"
    telling: ClassVar[tuple[str, ...]] = ()
    rewarded: ClassVar[bool] = False
    leaves_out: ClassVar[str] = "nothing of their answer remained within algo.max_tokens"
    distributed: ClassVar[tuple[str, ...]] = ("ddp",)

    teacher: str = "tiny"
    """Ref of the teacher, whose vocabulary must be the student's."""
    temperature: float = 2.0
    """Both distributions are softened by it: the higher, the more the unlikely tokens count."""
    soft_weight: float = 0.5
    """Factor of the teacher's part of the loss."""
    hard_weight: float = 0.5
    """Factor of the labels' part of the loss."""
    top_k: Optional[int] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Ask the teacher once before the training and keep its k likeliest tokens on disk (teacher/), all others as one; null
    keeps the teacher in memory and asks it at each step."""
    max_tokens: int = 512
    """Longer rows are cut at the end, counted and reported."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.teacher:
            raise UserError("names no teacher", "algo.teacher", "give a ref, such as models:/sales@champion")
        if not 0 < self.temperature < math.inf:
            raise UserError(f"is {self.temperature}", "algo.temperature", "give a number above 0, such as 2")
        for name in ("soft_weight", "hard_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"is {getattr(self, name)}", f"algo.{name}", "give 0, or a number above it")
        if not self.soft_weight:
            raise UserError("is 0, which needs no teacher", "algo.soft_weight", "take algo=sft, or a number above 0")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"is {self.top_k}", "algo.top_k", "give a whole number from 1, or null")
        if self.max_tokens < 2:
            raise UserError(f"is {self.max_tokens}", "algo.max_tokens", "give a number from 2")
        self._present: Any = None

    def evaluated(self, settings: Train) -> Sequence[str]:
        """The loss alone."""
        return ["eval/loss"]

    @property
    def loss_name(self) -> str:
        """Of training rows that of both parts, of held-out ones the labels' alone."""
        return "training: teacher and labels; held out: cross entropy, nats a token"

    def resumed(self, folder: Path) -> None:
        """Take the teacher that the run began with."""
        from mlops_llm.train.companion import pinned

        self.teacher = pinned(folder, "teacher", self.teacher)

    def check(self, settings: Train) -> None:
        """See that the teacher is there and speaks the student's vocabulary; of a resumed run it was seen when it began.

        Raises:
            UserError: it does not.
        """
        if settings.resume:
            return
        from mlops_llm.models import load
        from mlops_llm.models.ref import resolve
        from mlops_llm.train import teacher

        student = load.tokenizer_of(load.inspect(resolve(settings.model), settings.model_load))
        words = int(teacher.inspect(self.teacher, student).config.get("vocab_size", 0))
        if self.top_k is not None and words and self.top_k > words:
            raise UserError(f"is {self.top_k}, and the vocabulary has {words} tokens", "algo.top_k", f"give at most {words}")

    def encode(self, tokenizer: Any, source: Source, rows: list[int]) -> list[Encoded]:
        """Tokenize rows as the model sees them.

        Raises:
            UserError: a row is not a conversation, or no row keeps a trained token.
        """
        return examples.conversations(tokenizer, source, rows, self.max_tokens)

    def sequences(self, encoded: Sequence[Encoded]) -> list[int]:
        """Length in tokens of each sequence that a forward pass sees."""
        return [min(len(one.ids), self.max_tokens) for one in encoded]

    def holds(self, settings: Train, files: Files) -> Sequence[Held]:
        """The teacher, as it is loaded, and what it says where it is asked before: ids and log-probabilities, 4 bytes each."""
        from mlops_llm.train import teacher

        size, bytes_each, top = teacher.files(self.teacher).parameters, number_bytes(settings), self.top_k
        return [Held("teacher", size, self.teacher, bytes_each, aside=top is not None, written=8 * (top or 0))]

    def lighter(self) -> Mapping[str, Any]:
        """The teacher asked before the training, and for no more than its 64 likeliest tokens."""
        return {} if self.top_k and self.top_k <= 64 else {"algo.top_k=64": replace(self, top_k=64)}

    def trainer(self, job: Job) -> Any:
        """Build a trainer whose loss looks at the teacher.

        Raises:
            UserError: the run began with another teacher.
        """
        from trl import SFTConfig

        from mlops_llm.train.student import Student

        settings = job.config(
            SFTConfig,
            max_length=self.max_tokens,
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
        )
        return Student(
            self._teacher(job),
            self.temperature,
            self.soft_weight,
            self.hard_weight,
            model=job.model,
            args=settings,
            train_dataset=_dataset(job.train),
            eval_dataset=_dataset(job.validation) if job.validation else None,
            processing_class=job.tokenizer,
            data_collator=lambda rows: _batch(rows, job.tokenizer.pad_token_id),
        )

    def _teacher(self, job: Job) -> Present | Top:
        """The teacher, or what it said of the training rows."""
        from mlops_llm.train import teacher
        from mlops_llm.train.companion import companion

        folder = Path(job.arguments["output_dir"])
        master = companion(folder, "teacher", self.teacher)
        files = teacher.inspect(master.place.ref, job.tokenizer)
        job.run.tags({"teacher": self.teacher, "digest.teacher": master.digest})
        model = teacher.loaded(files, job.load, job.model.device)
        if self.top_k is None:
            self._present = model
            return teacher.Present(model)
        batch = int(job.arguments["per_device_train_batch_size"])
        with ranks.first_before_others():
            return teacher.written(folder / "teacher", model, job.train, self.top_k, self.temperature, batch)

    def conclude(self, job: Job) -> dict[str, str]:
        """How far the student came, on the held-out rows."""
        from mlops_llm.train import teacher
        from mlops_llm.train.companion import companion

        if not job.validation:
            return {}
        if self._present is None:
            which = companion(Path(job.arguments["output_dir"]), "teacher", self.teacher)
            files = teacher.inspect(which.place.ref, job.tokenizer)
            self._present = teacher.loaded(files, job.load, job.model.device)
        master = teacher.mark(self._present, job.validation)
        student = teacher.mark(job.model, job.validation)
        job.run.metrics({"distill/teacher_loss": master.loss, "distill/student_loss": student.loss}, 0)
        return teacher.compared(student, master)


def _dataset(encoded: Sequence[Encoded]) -> Any:
    from datasets import Dataset

    columns = {"input_ids": [one.ids for one in encoded], "labels": [one.labels for one in encoded]}
    return Dataset.from_dict({**columns, "place": list(range(len(encoded)))})


def _batch(rows: Sequence[dict[str, Any]], pad: int) -> dict[str, Any]:
    """Rows as tensors, padded at the end."""
    import torch

    length = max(len(row["input_ids"]) for row in rows)

    def padded(values: Sequence[Sequence[int]], filler: int) -> Any:
        return torch.tensor([[*each, *[filler] * (length - len(each))] for each in values])

    return {
        "input_ids": padded([row["input_ids"] for row in rows], pad),
        "attention_mask": padded([[1] * len(row["input_ids"]) for row in rows], 0),
        "labels": padded([row["labels"] for row in rows], IGNORED),
        "place": torch.tensor([row["place"] for row in rows]),
    }
