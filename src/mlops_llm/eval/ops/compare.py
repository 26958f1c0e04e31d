"""`op=compare`."""

from __future__ import annotations

from dataclasses import dataclass

from mlops_llm.component import component
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

    def prepare(self, request: Eval) -> Work:
        """Check the models, and that all can be asked the same rows."""
        from mlops_llm.errors import UserError
        from mlops_llm.eval.comparison_record import compare
        from mlops_llm.eval.several import plans

        if not request.engine.local:
            what = "one server answers, whatever models are named"
            raise UserError(what, "engine", "take engine=hf or engine=vllm, which open the models themselves")
        if self.measure and not request.dataset:
            raise UserError("asks rows of a dataset, and none is named", "op.measure", "give dataset=REF, or leave it out")
        found = plans(request)
        return lambda run: compare(found, run, self.lang, measure=self.measure)
