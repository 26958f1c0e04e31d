"""`python -m mlops_llm.registry`."""

import re
import sys

from mlops_llm.entry import Stage, launch
from mlops_llm.record import NullRun, Result, Run
from mlops_llm.registry.config import PACKAGES, Registry, Work

DEFAULT = "default"


def _prepare(settings: Registry) -> Work | Result:
    work: Work = settings.op.prepare(settings)
    return work if settings.op.records else work(NullRun())


def _records(settings: Registry) -> bool:
    return bool(settings.op.records)


def _work(work: Work | Result, run: Run) -> Result:
    return work if isinstance(work, Result) else work(run)


def _home(settings: Registry) -> str:
    """The project that is named, else that of the run that made the model."""
    if settings.project or not (settings.name or settings.model or settings.run):
        return settings.project or DEFAULT
    from mlops_llm.registry.subject import maker
    from mlops_llm.tracking.ledger import find_run
    from mlops_llm.tracking.store import connect

    run = settings.run or maker(settings)
    return find_run(connect(), run).project or DEFAULT if run else DEFAULT


def _arranged(words: list[str]) -> list[str]:
    """The command with the policy as the group that it is: `op.policy=default` means `policy=default`."""
    return [re.sub(r"^op\.policy(?=[.=])", "policy", word) for word in words]


STAGE = Stage(
    name="registry",
    schema=Registry,
    prepare=_prepare,
    work=_work,
    home=_home,
    arrange=_arranged,
    records=_records,
    packages=PACKAGES,
    resumes=False,
    examples=(
        "python -m mlops_llm.registry op=list",
        "python -m mlops_llm.registry op=promote name=sales version=7 op.policy=default op.evaluate=true",
        "python -m mlops_llm.registry op=rollback name=sales op.reason='it answers in English'",
        "python -m mlops_llm.registry op=show name=sales",
        "python -m mlops_llm.registry op=lineage model=models:/sales@champion",
        "python -m mlops_llm.registry op=card model=models:/sales@champion",
        "python -m mlops_llm.registry op=deploy model=models:/sales@champion op.folder=deployed",
        "python -m mlops_llm.registry op=verify model=deployed",
        "python -m mlops_llm.registry op=reproduce run=RUN op.steps=20",
        "python -m mlops_llm.registry op=export_runs op.runs=[RUN] op.file=run.tar",
        "python -m mlops_llm.registry op=import_runs op.file=run.tar",
        "python -m mlops_llm.registry op=gc op.budget=20GB",
        "python -m mlops_llm.registry op=serve model=models:/sales@champion op.follow=true op.api_key_env=SALES_KEY",
        "python -m mlops_llm.registry op=doctor",
    ),
)

if __name__ == "__main__":
    sys.exit(launch(STAGE))
