"""`python -m mlops_llm.train`."""

import sys

from mlops_llm.entry import Stage, launch
from mlops_llm.train.config import PACKAGES, Op, Train


def _prepare(settings: Train) -> object:
    from mlops_llm.train.plan import prepare

    return prepare(settings)


def _records(settings: Train) -> bool:
    return settings.op is Op.fit


def _fit(plan, run):  # type: ignore[no-untyped-def]
    from mlops_llm.train.train import fit

    return fit(plan, run)


STAGE = Stage(
    name="train",
    schema=Train,
    prepare=_prepare,
    work=_fit,
    packages=PACKAGES,
    records=_records,
    examples=(
        "python -m mlops_llm.train +experiment=sft_sales",
        "python -m mlops_llm.train +experiment=sft_sales peft=lora trainer.max_steps=50 trainer.learning_rate=1e-3 seed=7",
        "python -m mlops_llm.train -m +experiment=sft_sales trainer.learning_rate=1e-4,1e-3 seed=1,2",
    ),
)

if __name__ == "__main__":
    sys.exit(launch(STAGE))
