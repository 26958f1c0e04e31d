"""`op=compare`."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.eval.config import Eval, Work
from mlops_llm.eval.lang import Lang


@component("op", "compare")
@dataclass
class Compare:
    """Set models side by side on the same rows: which differences are more than chance, and what they come to."""

    lang: Lang = Lang.zh
    """Language of the conclusion."""
    measure: bool = False
    """Measure speed and memory anew: 20 prompts, three times, each model in a process of its own."""
    runs: list[str] = field(default_factory=list)
    """Evaluations (runs, by name or id) to compare by the answers that they hold, instead of models: nothing is asked."""
    common: bool = False
    """With runs, where they are of different rows: compare those that all of them asked."""

    def __post_init__(self) -> None:
        """Check that evaluations are named where they are meant."""
        if self.common and not self.runs:
            raise UserError("is for evaluations of the record", "op.common", "name them: op.runs=[A,B]")
        if len(self.runs) == 1:
            raise UserError("names one evaluation", "op.runs", "name two or more: op.runs=[A,B]")

    def prepare(self, request: Eval) -> Work:
        """Check the models, and that all can be asked the same rows; or read the evaluations."""
        if self.runs:
            return self._of_runs(request)
        from mlops_llm.eval.comparing import compare
        from mlops_llm.eval.several import plans

        if not request.engine.local:
            what = "one server answers, whatever models are named"
            raise UserError(
                what,
                "engine",
                "evaluate each server by itself, then op=compare op.runs=[A,B]; or take engine=hf or engine=vllm",
            )
        if self.measure and not request.dataset:
            raise UserError("asks rows of a dataset, and none is named", "op.measure", "give dataset=REF, or leave it out")
        found = plans(request)
        return lambda run: compare(found, run, self.lang, measure=self.measure)

    def home(self, request: Eval) -> str:
        """The project of the first evaluation, where evaluations are named."""
        if not self.runs:
            return ""
        from mlops_llm.tracking.ledger import find_run
        from mlops_llm.tracking.store import connect

        return find_run(connect(), self.runs[0]).project

    def _of_runs(self, request: Eval) -> Work:
        from mlops_llm.eval.comparing import compare_runs
        from mlops_llm.eval.recorded import read, side_by_side
        from mlops_llm.tracking.store import connect

        given = {
            name: getattr(request, name) for name in ("models", "dataset", "benchmark", "metric", "judge", "limit", "sample")
        }
        other = next((name for name, value in (given | {"op.measure": self.measure}).items() if value), None)
        if other:
            raise UserError("is given beside evaluations, which tell it", other, "leave it out, or leave op.runs out")
        found = read(connect(), self.runs)
        compared = side_by_side(found, common=self.common, seed=request.seed)
        return lambda run: compare_runs(found, compared, run, self.lang)
