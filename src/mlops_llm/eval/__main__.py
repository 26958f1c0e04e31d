"""`python -m mlops_llm.eval`."""

import sys

from mlops_llm.entry import Stage, launch
from mlops_llm.eval.config import PACKAGES, Eval, Work
from mlops_llm.record import Result, Run


def _prepare(settings: Eval) -> Work:
    work: Work = settings.op.prepare(settings)
    return work


def _work(work: Work, run: Run) -> Result:
    return work(run)


STAGE = Stage(
    name="eval",
    schema=Eval,
    prepare=_prepare,
    work=_work,
    packages=PACKAGES,
    examples=(
        "python -m mlops_llm.eval model=models:/sales@challenger dataset=sales_eval metric=[bleu,rouge,exact_match]",
        "python -m mlops_llm.eval model=runs:/RUN/best dataset=sales_eval sample=20 seed=0",
        "python -m mlops_llm.eval model=smollm2 benchmark=[gsm8k] benchmarks.data=DIR limit=50",
    ),
)

if __name__ == "__main__":
    sys.exit(launch(STAGE))
