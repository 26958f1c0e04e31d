"""What methods share that learn from written answers and compare the model with a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_llm import component
from mlops_llm.models.load import Files
from mlops_llm.train.needs import Held
from mlops_llm.train.reference import Reference, against, held, refuse_base, refuse_dropout, shared
from mlops_llm.train.written import Written

if TYPE_CHECKING:
    from mlops_llm.train.config import Train
    from mlops_llm.train.job import Job


class Compared(Written):
    """A base of dataclasses with these two settings."""

    reference: Reference
    precompute: bool
    """The reference is asked once before the training, where all weights are trained."""

    def check(self, settings: Train) -> None:
        """Check the reference and that no dropout is wanted.

        Raises:
            UserError: no adapter is trained that could be left off; or there is to be dropout.
        """
        refuse_base(self.reference, settings.peft.trains_adapter)
        refuse_dropout(settings.peft, component.name_of(self))

    def holds(self, settings: Train, files: Files) -> Sequence[Held]:
        """The reference, unless it was asked before."""
        return held(settings, files, self.reference, copied=not self.precompute)

    def lighter(self) -> Mapping[str, Any]:
        """The reference asked before the training."""
        return {} if self.precompute else {"algo.precompute=true": replace(self, precompute=True)}  # type: ignore[type-var]

    def built(self, job: Job, trainer: type, settings: Any, train: Any, validation: Any) -> Any:
        """Build a TRL trainer over rows that are tokenized and cut already.

        Args:
            job: what is trained.
            trainer: TRL's class.
            settings: its arguments.
            train: rows as it wants them once they are prepared.
            validation: likewise, or None.
        """

        class Prepared(trainer):  # type: ignore[misc]
            """TRL's trainer, which would tokenize the rows."""

            def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
                return dataset

        beside = Path(job.arguments["output_dir"]) / "reference"
        return against(
            job,
            self.reference,
            lambda reference: Prepared(
                model=job.model,
                ref_model=reference,
                args=settings,
                train_dataset=shared(train, beside),
                eval_dataset=shared(validation, beside),
                processing_class=job.tokenizer,
            ),
            copied=not settings.precompute_ref_log_probs,
        )
