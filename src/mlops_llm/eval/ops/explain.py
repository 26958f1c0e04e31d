"""`op=explain`."""

from __future__ import annotations

from dataclasses import dataclass

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.eval.config import Eval, Work
from mlops_llm.eval.lang import Lang


@component("op", "explain")
@dataclass
class Explain:
    """Why two models differ: settings, code, environment, training rows and template, then their answers (dataset=REF)."""

    lang: Lang = Lang.zh
    """Language of the conclusion, where answers are compared."""

    def prepare(self, request: Eval) -> Work:
        """Find both models, and check that they can be asked where rows are named."""
        from mlops_llm.eval.explanation import explain
        from mlops_llm.eval.several import plans
        from mlops_llm.models.ref import resolve

        if len(request.models) != 2:
            raise UserError(f"names {len(request.models)} models, two are wanted", "models", "name them: models=[A,B]")
        if not request.engine.local:
            what = "one server answers, whatever models are named"
            raise UserError(what, "engine", "take engine=hf or engine=vllm, which open the models themselves")
        given = (name for name in ("metric", "judge", "limit", "sample") if getattr(request, name))
        if not (request.dataset or request.benchmark) and (name := next(given, None)):
            raise UserError("is for answers, and no rows to ask are named", name, "add dataset=REF, or leave it out")
        places = [resolve(each) for each in request.models]
        found = plans(request) if request.dataset or request.benchmark else []
        return lambda run: explain(places, found, run, self.lang)
