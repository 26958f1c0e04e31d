"""`python -m mlops_llm.data`."""

import sys

from mlops_llm.data.config import Data, Work
from mlops_llm.entry import Stage, launch
from mlops_llm.record import NullRun, Result, Run


def _prepare(settings: Data) -> Work | Result:
    work: Work = settings.op.prepare(settings)
    return work if settings.op.records else work(NullRun())


def _records(settings: Data) -> bool:
    return bool(settings.op.records)


def _work(work: Work | Result, run: Run) -> Result:
    return work if isinstance(work, Result) else work(run)


STAGE = Stage(
    name="data",
    schema=Data,
    prepare=_prepare,
    work=_work,
    packages=("mlops_llm.data.ops",),
    examples=(
        "python -m mlops_llm.data op=list",
        "python -m mlops_llm.data op=preview dataset=sales_sft op.rows=2",
        "python -m mlops_llm.data op=dedup_exact dataset=sales_sft",
    ),
    folder="",
    resumes=False,
    records=_records,
)

if __name__ == "__main__":
    sys.exit(launch(STAGE))
