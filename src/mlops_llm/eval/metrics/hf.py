"""A metric of the library evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Optional

from mlops_llm.component import component
from mlops_llm.errors import UserError, first_line, need
from mlops_llm.eval.metric import Item, Need, Ready, Scores, check


@component("metric", "hf")
@dataclass
class Hf(Ready):
    """A metric of the Hugging Face hub, or of a folder, as `evaluate.load` finds it. It is code, which is run if you say so.

    It is given answers, and all references where it takes several, else the first ones.
    """

    needs: ClassVar[Need] = Need.reference
    most: ClassVar[float | None] = None

    name: str = ""
    """Name on the hub, such as meteor or ORG/NAME, or a folder."""
    value: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Which value of its result; null takes the one that is called like it, or the only one."""
    higher_is_better: bool = True
    """Whether larger values are better."""
    trust_remote_code: bool = False
    """Whether its code may be run; without that no such metric can be loaded."""
    settings: Any = None
    """Settings of its computation, such as {lang:zh}."""

    @property
    def names(self) -> tuple[str, ...]:
        """`hf_` and the last part of its name, with the value where one is chosen; none without a name."""
        short = Path(self.name).stem
        return (f"hf_{short}" + (f"_{self.value}" if self.value else ""),) if short else ()

    def check(self, items: Sequence[Item]) -> None:
        """Load it, and see that each row has a reference.

        Raises:
            UserError: it cannot be loaded, such as without a network, or a row has no reference.
        """
        if not self.name:
            raise UserError("is empty", "metric.hf.name", "name one, such as metric.hf.name=meteor, or a folder")
        if not self.trust_remote_code:
            what = f"'{self.name}' is Python code from elsewhere, which is not run"
            raise UserError(what, "metric.hf.name", "read it, and if you trust it: metric.hf.trust_remote_code=true")
        check(items, self.needs)
        _loaded(self.name)

    def score(self, items: Sequence[Item]) -> Scores:
        """Its value over all answers, and of each where it tells them (their mean is the total then).

        Raises:
            UserError: it cannot be loaded, or cannot score these answers.
        """
        self.check(items)
        import evaluate

        from datasets import Value

        module, (name,) = _loaded(self.name), self.names
        options = module.features if isinstance(module.features, list) else [module.features]
        lists = any(not isinstance(option["references"], Value) for option in options if "references" in option)
        references = [list(item.references) if lists else item.references[0] for item in items]
        try:
            result = module.compute(
                predictions=[item.answer for item in items], references=references, **dict(self.settings or {})
            )
        except Exception as error:  # someone else's code, which may raise anything
            raise UserError(f"'{self.name}' cannot score the answers ({first_line(error)})", "metric.hf.name") from error
        found = self._chosen(result or {})
        signature = f"evaluate:{evaluate.__version__}|module:{module.name}|code:{str(module._hash)[:12]}"
        signature += f"|value:{self.value or ''}|settings:{dict(self.settings or {})}"
        if isinstance(found, float):
            return Scores({name: found}, {}, signature)
        if len(found) != len(items):
            what = f"'{self.value or name}' are {len(found)} numbers of {len(items)} answers"
            raise UserError(what, "metric.hf.value", "choose another value")
        return Scores({name: sum(found) / len(found)}, {name: found}, signature)

    def _chosen(self, result: dict[str, Any]) -> float | list[float]:
        told = {key: each for key, value in result.items() if (each := _numbers(value)) is not None}
        short = self.value or Path(self.name).stem
        if short not in told and (self.value or len(told) != 1):
            what = f"gives no number '{self.value}'" if self.value else "gives several values"
            raise UserError(f"'{self.name}' {what}", "metric.hf.value", f"choose one of: {', '.join(told) or 'none'}")
        return told[short] if short in told else next(iter(told.values()))


def _numbers(value: Any) -> float | list[float] | None:
    """A number, or a list of numbers, as Python's own; None of anything else."""
    import numpy

    array = numpy.asarray(value)
    if array.dtype.kind not in "iufb" or array.ndim > 1:
        return None
    return float(array) if array.ndim == 0 else [float(each) for each in array]


@lru_cache(maxsize=8)
def _loaded(name: str) -> Any:
    need("evaluate", "eval")
    import evaluate
    from huggingface_hub import constants

    before = evaluate.config.HF_EVALUATE_OFFLINE
    evaluate.config.HF_EVALUATE_OFFLINE = before or constants.HF_HUB_OFFLINE  # it does not look at HF_HUB_OFFLINE itself
    try:
        return evaluate.load(name, keep_in_memory=True)
    except OSError as error:
        hub = "" if Path(name).exists() else "; it is looked for on the hub, which needs a network"
        offline = " (HF_HUB_OFFLINE is set)" if hub and evaluate.config.HF_EVALUATE_OFFLINE else ""
        what = f"'{name}' cannot be loaded{hub}{offline}"
        raise UserError(what, "metric.hf.name", "check the name and the connection, or give a folder with NAME.py") from error
    except Exception as error:  # someone else's code, which may raise anything
        raise UserError(f"'{name}' cannot be loaded ({first_line(error)})", "metric.hf.name", "take another") from error
    finally:
        evaluate.config.HF_EVALUATE_OFFLINE = before
