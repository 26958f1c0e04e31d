"""How long one waits for an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from mlops_llm.component import component
from mlops_llm.eval.interval import Intervals, bootstrap
from mlops_llm.eval.metric import Item, Need, Ready, Scores

_SHARES = {"latency_p50": 50.0, "latency_p95": 95.0}
SIGNATURE = "seconds|load:no|answers of one batch:equal shares of its time|percentiles:linear"


@component("metric", "latency")
@dataclass
class Latency(Ready):
    """Seconds from a request to its whole answer: mean, median and 95th percentile (linear between two answers).

    Loading the model is not in it. Values compare where machine, engine, batch size and concurrency are the same: of answers
    in one batch (engine=hf) each has its share of the batch's time.
    """

    names: ClassVar[tuple[str, ...]] = ("latency_mean", *_SHARES)
    higher_is_better: ClassVar[bool | None] = False
    most: ClassVar[float | None] = None
    needs: ClassVar[Need] = Need.nothing

    def score(self, items: Sequence[Item]) -> Scores:
        """Seconds of each answer, their mean and percentiles.

        Raises:
            UserError: there are no answers.
        """
        self.check(items)
        import numpy

        seconds = numpy.array([item.seconds for item in items])
        of = {name: partial(_percentile, seconds, share) for name, share in _SHARES.items()}
        total = {"latency_mean": float(seconds.mean())} | {name: each() for name, each in of.items()}
        several = of if len(items) > 1 else {}
        intervals = Intervals({name: partial(bootstrap, len(items), each) for name, each in several.items()})
        return Scores(total, {"latency_mean": seconds.tolist()}, SIGNATURE, intervals)


def _percentile(seconds: Any, share: float, places: Any = slice(None)) -> float:
    import numpy

    return float(numpy.percentile(seconds[places], share))
