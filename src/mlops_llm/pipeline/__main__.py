"""`python -m mlops_llm.pipeline`."""

import importlib
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from mlops_llm.entry import Stage, launch
from mlops_llm.entry.arguments import quoted, split
from mlops_llm.entry.composing import Composed, compose
from mlops_llm.pipeline.arranged import arranged
from mlops_llm.pipeline.config import ROOMS, Op, Pipeline
from mlops_llm.pipeline.flow import Flow
from mlops_llm.record import Result, Run


def _composed(room: str, words: Sequence[str]) -> Composed:
    """Check a command of another stage; this one's own choices are put back afterwards."""
    from mlops_llm.entry import config

    try:
        return compose(importlib.import_module(f"mlops_llm.{room}.__main__").STAGE, words)
    finally:
        config.register(STAGE.name, STAGE.schema, STAGE.packages)


def _rooms() -> list[str]:
    return [each for each in ROOMS if find_spec(f"mlops_llm.{each}")]


def _variables(settings: Pipeline) -> set[str]:
    from mlops_llm.pipeline import flow

    return flow.variables(settings, _composed, _rooms())


def _prepare(settings: Pipeline) -> Flow | Result:
    from mlops_llm.pipeline import flow, plan

    found = flow.checked(settings, _composed, _rooms())
    return plan.shown(found) if settings.op is Op.plan else found


def _work(found: Flow, run: Run) -> Result:
    from mlops_llm.pipeline.running import carried_out

    return carried_out(found, run)


def _records(settings: Pipeline) -> bool:
    return settings.op is Op.run


STAGE = Stage(
    name="pipeline",
    schema=Pipeline,
    prepare=_prepare,
    work=_work,
    records=_records,
    variables=_variables,
    arrange=lambda words: arranged(words, split, quoted),
    instead="give its command again: what is done is not done twice",
    examples=(
        "python -m mlops_llm.pipeline +experiment=rlhf_short",
        "python -m mlops_llm.pipeline +experiment=rlhf_short op=plan",
        "python -m mlops_llm.pipeline +experiment=rlhf_short model=smollm2 stages.sft.trainer.max_steps=50",
    ),
)

if __name__ == "__main__":
    sys.exit(launch(STAGE))
