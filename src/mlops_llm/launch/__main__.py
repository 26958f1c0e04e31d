"""`python -m mlops_llm.launch`."""

import sys

from mlops_llm.entry import Stage, launch
from mlops_llm.launch.config import PACKAGES, Launch
from mlops_llm.record import Result, Run


def _prepare(settings: Launch) -> Result:
    done: Result = settings.op.carry_out()
    return done


def _work(done: Result, run: Run) -> Result:
    return done


STAGE = Stage(
    name="launch",
    schema=Launch,
    prepare=_prepare,
    work=_work,
    packages=PACKAGES,
    examples=(
        "python -m mlops_llm.launch op=work op.workers=2",
        "python -m mlops_llm.launch op=list",
        "python -m mlops_llm.launch op=logs op.job=3 op.follow=true",
    ),
    folder="",
    resumes=False,
)

if __name__ == "__main__":
    sys.exit(launch(STAGE))
