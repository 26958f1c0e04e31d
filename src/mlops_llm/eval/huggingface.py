"""Our metrics as the library evaluate takes them."""

from __future__ import annotations

from typing import Any

from mlops_llm import component
from mlops_llm.errors import UserError, need
from mlops_llm.eval.metric import Item, Metric, Need


def as_evaluate(name: str, **settings: Any) -> Any:
    """A metric of ours as an `evaluate.Metric`, alone or in `evaluate.combine([...])`; it needs no network.

    Its `compute(predictions=[...], references=[...])` gives the values of `Scores.total`. A reference is a text or a list of
    texts; of the metric `label` it is the class.

    Args:
        name: of the metric, such as `bleu`.
        settings: its settings, such as `n=2`.

    Raises:
        UserError: there is no such metric or setting, evaluate is not installed, or the metric needs more than texts.
    """
    need("evaluate", "eval")
    import evaluate

    from datasets import Features, Sequence, Value

    component.load("mlops_llm.eval.metrics")
    metric: Metric = component.build("metric", name, settings)
    is_measured = metric.needs is Need.nothing and metric.higher_is_better is not True
    if is_measured or metric.needs.is_likelihood:
        told = "how answers were generated" if is_measured else "how likely the model finds a text"
        raise UserError(f"'{name}' needs to know {told}, which evaluate does not tell", remedy="take another metric")
    text = Value("string")
    forms: dict[Need, list[dict[str, Any]]] = {
        Need.nothing: [{}],
        Need.label: [{"references": text}],
        Need.reference: [{"references": Sequence(text)}, {"references": text}],
    }

    def _info(self: Any) -> Any:
        features = [Features({"predictions": text, **form}) for form in forms[metric.needs]]
        return evaluate.MetricInfo(
            description=type(metric).__doc__ or "", citation="", inputs_description="", features=features
        )

    def _compute(self: Any, predictions: list[str], references: list[Any] | None = None) -> dict[str, float]:
        given = references if references is not None else [None] * len(predictions)
        pairs = zip(predictions, given, strict=True)
        return dict(metric.score([_item(answer, known, metric.needs) for answer, known in pairs]).total)

    return type(name, (evaluate.Metric,), {"_info": _info, "_compute": _compute})(keep_in_memory=True)


def _item(answer: str, known: Any, wanted: Need) -> Item:
    if wanted is Need.reference:
        return Item(answer, [known] if isinstance(known, str) else list(known))
    return Item(answer, label=known) if wanted is Need.label else Item(answer)
