"""`python -m mlops_llm.eval`."""

import re
import sys

from mlops_llm.component import name_of
from mlops_llm.entry import Stage, launch
from mlops_llm.errors import UserError
from mlops_llm.eval.config import PACKAGES, Eval, Work
from mlops_llm.record import Result, Run

DEFAULT = "default"


def _prepare(settings: Eval) -> Work:
    if settings.run and name_of(settings.op) != "report":
        raise UserError("names a run, which only op=report reads", "run", "leave it out; the run's own name is run_name=")
    work: Work = settings.op.prepare(settings)
    return work


def _work(work: Work, run: Run) -> Result:
    return work(run)


def _foresee(settings: Eval) -> None:
    """See that there is a model of this name."""
    if settings.engine.local:
        from mlops_llm.models.ref import resolve

        resolve(settings.model)


def _home(settings: Eval) -> str:
    """The project that is named, else what the operation says, else that of the run that is reported or made the model."""
    if settings.project:
        return settings.project
    if hasattr(settings.op, "home") and (home := str(settings.op.home(settings))):
        return home
    from mlops_llm.models.ref import resolve
    from mlops_llm.tracking.ledger import find_run
    from mlops_llm.tracking.store import connect

    if settings.run:
        return find_run(connect(), settings.run).project or DEFAULT
    if not settings.engine.local:
        return DEFAULT
    run = next((run for each in settings.models or [settings.model] if (run := resolve(each).run)), "")
    return find_run(connect(), run).project if run else DEFAULT


def _arranged(words: list[str]) -> list[str]:
    """The command with what some operations call otherwise: `output=rate.xlsx` is a file, which lies in no run's folder."""
    if "op=human_export" not in words:
        return _one_by_one(words)
    return [f"op.file={word[7:]}" if re.fullmatch(r"output=.*\.(xlsx|csv)", word, re.IGNORECASE) else word for word in words]


def _one_by_one(words: list[str]) -> list[str]:
    """`models=[A,B]` scores one model after the other: a sweep over `model`, whose parent run compares them."""
    given = next((word for word in words if word.startswith("models=[") and word.endswith("]")), None)
    others = [word for word in words if word != given]
    if given is None or any(word.startswith("op=") and word != "op=score" for word in words):
        return words
    flag = [] if {"-m", "--multirun"} & {*words} else ["-m"]
    return [*flag, *others, f"model={given.removeprefix('models=[').removesuffix(']')}"]


STAGE = Stage(
    name="eval",
    schema=Eval,
    prepare=_prepare,
    work=_work,
    foresee=_foresee,
    home=_home,
    arrange=_arranged,
    packages=PACKAGES,
    instead="give its command again: answers that are kept are not asked for twice, what failed is asked anew",
    examples=(
        "python -m mlops_llm.eval model=models:/sales@challenger dataset=sales_eval metric=[bleu,rouge,exact_match]",
        "python -m mlops_llm.eval model=runs:/RUN/best dataset=sales_eval sample=20 seed=0",
        "python -m mlops_llm.eval models=[tiny,models:/sales@challenger] dataset=sales_eval",
        "python -m mlops_llm.eval op=compare models=[tiny,models:/sales@challenger] dataset=sales_eval metric=[bleu,rouge]",
        "python -m mlops_llm.eval op=human_export models=[tiny,models:/sales@challenger] dataset=sales_eval output=rate.xlsx",
        "python -m mlops_llm.eval op=explain models=[runs:/RUN/best,runs:/OTHER/best] dataset=sales_eval",
        "python -m mlops_llm.eval op=report run=RUN op.lang=en",
        "python -m mlops_llm.eval model=smollm2 benchmark=[gsm8k] benchmarks.data=DIR limit=50",
    ),
)

if __name__ == "__main__":
    sys.exit(launch(STAGE))
