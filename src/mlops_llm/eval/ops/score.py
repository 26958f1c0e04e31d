"""`op=score`."""

from __future__ import annotations

from dataclasses import dataclass

from mlops_llm.component import component
from mlops_llm.eval.config import Eval, Work


@component("op", "score")
@dataclass
class ScoreAnswers:
    """Ask a model, score its answers by metrics and a judge, run benchmarks."""

    def prepare(self, request: Eval) -> Work:
        """Check everything that needs no weights."""
        from mlops_llm.eval.evaluation import evaluate
        from mlops_llm.eval.plan import prepare

        plan = prepare(request)
        return lambda run: evaluate(plan, run)
