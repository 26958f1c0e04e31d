"""`python -m mlops_llm.surgery`."""

import sys
from collections.abc import Iterable

from mlops_llm.component import name_of
from mlops_llm.entry import Stage, launch
from mlops_llm.record import Result, Run
from mlops_llm.surgery.config import PACKAGES, Surgery
from mlops_llm.surgery.operation import Work

DEFAULT = "default"


def _prepare(settings: Surgery) -> Work | Result:
    work: Work | Result = settings.op.prepare(settings)
    return work


def _work(work: Work, run: Run) -> Result:
    return work(run)


def _home(settings: Surgery) -> str:
    """The project that is named, else that of the run that made the first model, of a batch that its jobs name."""
    if settings.project:
        return settings.project
    from mlops_llm.models.ref import resolve
    from mlops_llm.tracking.ledger import find_run
    from mlops_llm.tracking.store import connect

    if settings.run:
        return find_run(connect(), settings.run).project or DEFAULT
    named = [*([settings.model] if settings.model else []), *settings.models]
    named += settings.op.models() if name_of(settings.op) == "batch" else []
    run = next((run for each in named if (run := resolve(each).run)), "")
    return find_run(connect(), run).project if run else DEFAULT


def _variables(settings: Surgery) -> Iterable[str]:
    """Those that the jobs of a batch name."""
    return settings.op.variables() if name_of(settings.op) == "batch" else ()


STAGE = Stage(
    name="surgery",
    schema=Surgery,
    prepare=_prepare,
    work=_work,
    home=_home,
    variables=_variables,
    packages=PACKAGES,
    folder="folder",
    instead="the checkpoint is there: runs:/{run}/last",
    examples=(
        "python -m mlops_llm.surgery op=merge_slerp models=[runs:/SFT/best,runs:/DPO/best] op.t=0.4 output=merged",
        "python -m mlops_llm.surgery op=merge_linear models=[A,B] op.weights=[0.6,0.4] output=merged op.dry_run=true",
        "python -m mlops_llm.surgery op=merge_ties models=[A,B] base=tiny op.density=0.8 name=sales",
        "python -m mlops_llm.surgery op=sweep models=[A,B] op.method=merge_slerp op.points=11 dataset=sales_eval metric=[bleu]",
        "python -m mlops_llm.surgery op=select run=RUN op.by=[eval/loss,score/bleu]",
        "python -m mlops_llm.surgery op=average models=[runs:/RUN/checkpoint-60,runs:/RUN/checkpoint-80]",
        "python -m mlops_llm.surgery op=merge_lora model=runs:/RUN/best output=whole",
        "python -m mlops_llm.surgery op=prune_ffn model=runs:/RUN/best op.ratio=0.2 op.calibration=sales_sft output=narrow",
        "python -m mlops_llm.surgery op=quantize_int8 model=runs:/RUN/best output=int8 dataset=sales_eval",
        "python -m mlops_llm.surgery op=export_gguf model=runs:/RUN/best op.type=q8_0 output=gguf",
        "python -m mlops_llm.surgery op=batch op.file=jobs.yaml",
    ),
)

if __name__ == "__main__":
    sys.exit(launch(STAGE))
