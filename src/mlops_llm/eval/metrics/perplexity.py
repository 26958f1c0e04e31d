"""How well the model foresees the reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, ClassVar

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.eval.interval import Intervals, bootstrap
from mlops_llm.eval.metric import Item, Likelihood, Need, Ready, Scores, Sums


class Of(Enum):
    """What text counts."""

    reference = "reference"
    whole = "whole"


@component("metric", "perplexity")
@dataclass
class Perplexity(Ready):
    """Perplexity, exp(-sum of log-probabilities / tokens), and bits per byte, -sum of log2-probabilities / bytes in UTF-8.

    Totals are of all tokens together, not means over rows, so that long rows weigh more. Perplexities of models with other
    tokenizers do not compare; bits per byte do. Both are of the first reference, which the model is given, not asked for.
    """

    names: ClassVar[tuple[str, ...]] = ("perplexity", "bits_per_byte")
    higher_is_better: ClassVar[bool | None] = False
    most: ClassVar[float | None] = None

    of: Of = Of.reference
    """What text counts: the reference alone, given the prompt, or the whole, prompt and reference together."""

    @property
    def needs(self) -> Need:
        """Likelihoods of the text that counts."""
        return Need.whole if self.of is Of.whole else Need.likelihood

    def score(self, items: Sequence[Item]) -> Scores:
        """Both values of each row and of all together, with intervals.

        Raises:
            UserError: there are no rows, or the likelihood of one is not known.
        """
        self.check(items)
        import numpy

        known = [self._likelihood(item, place, len(items)) for place, item in enumerate(items, 1)]
        losses = numpy.array([-math.fsum(each.logprobs) for each in known])
        lengths = {
            "perplexity": numpy.array([len(each.logprobs) for each in known], dtype=float),
            "bits_per_byte": numpy.array([each.bytes for each in known], dtype=float),
        }
        total, single, intervals, sums = dict[str, float](), dict[str, list[float]](), dict[str, Any](), dict[str, Sums]()
        for name, length in lengths.items():
            shown = _exp if name == "perplexity" else _bits
            total[name] = shown(_ratio(losses, length))
            single[name] = [shown(float(each)) for each in losses / length]
            sums[name] = Sums(numpy.stack([losses, length], 1), partial(_of_sums, shown))
            if len(items) > 1:
                intervals[name] = partial(_interval, shown, losses, length)
        return Scores(total, single, f"of:{self.of.name}|weighted:tokens,bytes", Intervals(intervals), sums=sums)

    def _likelihood(self, item: Item, place: int, count: int) -> Likelihood:
        found = item.whole if self.of is Of.whole else item.wanted
        if found is None or not len(found.logprobs) or not found.bytes:
            what = "is not known" if found is None else "is that of no token"
            raise UserError(f"the likelihood of row {place} of {count} {what}", remedy="leave the row out")
        return found


def _ratio(losses: Any, lengths: Any, places: Any = slice(None)) -> float:
    return float(losses[places].sum() / lengths[places].sum())


def _of_sums(shown: Callable[[float], float], added: Any) -> float:
    return shown(float(added[0] / added[1]))


def _interval(shown: Callable[[float], float], losses: Any, lengths: Any) -> tuple[float, float]:
    low, high = bootstrap(len(losses), partial(_ratio, losses, lengths))
    return shown(low), shown(high)


def _exp(nats: float) -> float:
    return math.inf if nats > 709 else math.exp(nats)


def _bits(nats: float) -> float:
    return nats / math.log(2)
