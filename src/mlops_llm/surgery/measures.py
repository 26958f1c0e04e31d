"""What a new form of a model costs and gains: size, perplexity, scores, speed and memory here, beside the old one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.files import intended
from mlops_llm.inference.engine import Sampling
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.planning import Check, Source

if TYPE_CHECKING:
    from mlops_llm.eval.config import Eval
    from mlops_llm.eval.outcome import Score
    from mlops_llm.eval.plan import Plan
    from mlops_llm.eval.speed import Speed

ROWS = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Name three primary colors.", "The three primary colors are red, yellow and blue."),
    ("How many days are there in a week?", "There are seven days in a week."),
    ("What do bees make?", "Bees make honey from the nectar of flowers."),
    ("Translate 'good morning' into Spanish.", "'Good morning' in Spanish is 'buenos días'."),
    ("What is 7 plus 5?", "7 plus 5 is 12."),
    ("Why do leaves look green?", "Leaves look green because they contain chlorophyll, which reflects green light."),
    ("Write a sentence about the sea.", "The sea was calm, and the small boat moved slowly towards the shore."),
    ("你好，请问几天可以发货？", "您好，付款之后两天之内发货。"),
    ("这款产品可以退换吗？", "可以的，七天之内可以退货或者换货。"),
    ("中国的首都是哪里？", "中国的首都是北京。"),
    ("请推荐一种健康的早餐。", "推荐燕麦粥配鸡蛋和水果，营养均衡，做起来也简单。"),
)
"""Questions with answers on which perplexity is measured where no dataset is named."""
ASKED, TOKENS = 8, 32
"""Questions by which speed is measured, and tokens of each answer at most."""
_SLOWER, _FASTER = 0.95, 1.05
_STRANGE = 1000.0
"""Perplexity above which a model knows so little of the rows that a change of it is no loss of what it can."""


class Where(Enum):
    """What runs a model while its speed and memory are measured."""

    hf = "hf"
    """transformers."""
    vllm = "vllm"
    """vLLM, which takes minutes to start."""


@dataclass(frozen=True)
class Measures:
    """Measures a finished folder beside the model that it was made of."""

    source: Source
    request: Surgery
    where: Sequence[Where]
    most_loss: float
    """Most times by which perplexity may grow."""

    def check(self) -> None:
        """See that the rows that are named can be asked, before anything is done.

        Raises:
            UserError: they cannot.
        """
        if self.request.dataset:
            from mlops_llm.eval.plan import prepare

            prepare(self._asking(self.source.ref, self.request.dataset))

    def __call__(self, folder: Path) -> list[Check]:
        """Measure, the old form first."""
        found = list(self._sizes(folder))
        with tempfile.TemporaryDirectory(prefix="mlops_llm-measures-") as name:
            rows = self.request.dataset or str(_written(Path(name)))
            try:
                found += self._scores(folder, rows, Path(name))
            except UserError as error:
                found.append(Check("perplexity", error.what, False, str(error)))
            for each in self.where:
                try:
                    found += self._speed(folder, rows, each)
                except UserError as error:
                    found.append(Check(f"{each.name}_speed", error.what, None, f"not measured: {error}"))
        return found

    def _sizes(self, folder: Path) -> Iterator[Check]:
        before, after = (_bytes(each) for each in (self.source.files.whole.place.folder, folder))
        said = f"{console.size(after)} of weights, {console.size(before)} before ({after / before:.0%})"
        yield Check("size_ratio", after / before, None, said)

    def _scores(self, folder: Path, rows: str, work: Path) -> Iterator[Check]:
        before, after = (self._asked(ref, rows, work / name) for ref, name in ((self.source.ref, "old"), (str(folder), "new")))
        for name, old in before.items():
            new = after[name]
            if name == "perplexity":
                ratio = new.value / old.value
                said = f"{new.value:.4g}, {old.value:.4g} before ({ratio:.3f} times, at most {self.most_loss:g})"
                of = rows if self.request.dataset else shipped(old.value, f"{len(ROWS)} short questions", "dataset=REF")
                yield Check("perplexity_before", old.value, None, f"{old.value:.4g} on {of}")
                yield Check("perplexity", new.value, None, f"{new.value:.4g}")
                said += "" if self.request.dataset else f", on {of}"
                yield Check("perplexity_ratio", ratio, ratio <= self.most_loss, said)
            elif name != "bits_per_byte":
                yield Check(f"score_{name}", new.value, None, f"{new.value:.4g}, {old.value:.4g} before")

    def _asked(self, ref: str, rows: str, folder: Path) -> dict[str, Score]:
        from mlops_llm.eval.evaluation import carried_out

        outcome, _ = carried_out(_prepared(self._asking(ref, rows)), folder)
        return {each.name: each for each in outcome.scores}

    def _asking(self, ref: str, rows: str) -> Eval:
        from mlops_llm.eval.metrics.perplexity import Perplexity
        from mlops_llm.eval.overlap import Overlap

        metrics: dict[str, Any] = {**(self.request.metric if self.request.dataset else {})}
        metrics.setdefault("perplexity", Perplexity())
        asking = self.request.evaluation(ref, "")
        return replace(asking, dataset=rows, metric=metrics, judge=None, benchmark=[], overlap=Overlap(check=False))

    def _speed(self, folder: Path, rows: str, where: Where) -> Iterator[Check]:
        from mlops_llm import component
        from mlops_llm.eval.speed import measured

        component.load("mlops_llm.inference.engines")
        engine = component.build("engine", where.name)
        if component.name_of(self.request.engine) == where.name:
            engine = self.request.engine
        how = Sampling(batch_size=ASKED, max_new_tokens=TOKENS, temperature=0.0)
        refs = self.source.ref, str(folder)
        asked = [replace(self._asking(ref, rows), engine=engine, sampling=how, limit=None, sample=None) for ref in refs]
        # The process that measures opens a draft by what it is called now.
        before, after = measured([_first_of(_prepared(each), each.model) for each in asked])
        yield from _compared(where.name, before, after)


def _first_of(plan: Plan, model: str) -> Plan:
    """The plan with its first rows only."""
    return replace(plan, settings=replace(plan.settings, model=model, limit=min(ASKED, len(plan.requests))))


def _prepared(asking: Eval) -> Plan:
    """The plan of an evaluation; a draft is called what it is going to be."""
    from mlops_llm.eval.plan import prepare

    plan, folder = prepare(asking), Path(asking.model)
    called = asking.model if intended(folder) == folder else str(intended(folder))
    return replace(plan, settings=replace(plan.settings, model=called))


def _compared(where: str, before: Speed, after: Speed) -> Iterator[Check]:
    ratio = after.tokens / before.tokens
    verdict = "slower here" if ratio < _SLOWER else "faster here" if ratio > _FASTER else "as fast here"
    said = f"{verdict}: {after.tokens:.3g} tokens/s in {where}, {before.tokens:.3g} before ({ratio:.2f} times){_busy()}"
    if ratio < _SLOWER:
        console.warn(said)
    yield Check(f"{where}_speed", ratio, None, said)
    yield Check(f"{where}_tokens_per_second", after.tokens, None, f"{after.tokens:.3g}")
    memory = f"{console.size(after.memory)} at most in {where}, {console.size(before.memory)} before"
    yield Check(f"{where}_memory", after.memory, None, memory)


def _busy() -> str:
    """What is to be said of a speed that was measured beside other work."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    return f"; other work ran beside it ({load:.1f} processes on {cores} cores)" if load > cores + 1 else ""


def _written(folder: Path) -> Path:
    file = folder / "rows.jsonl"
    rows = (json.dumps({"prompt": prompt, "reference": answer}, ensure_ascii=False) for prompt, answer in ROWS)
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


def shipped(perplexity: float, rows: str, remedy: str) -> str:
    """Rows that ship, with what a perplexity on them is worth, for a person.

    Args:
        perplexity: of the model as it was.
        rows: what they are called.
        remedy: the setting that names others.
    """
    worth = ": so high a number says nothing of this model" if perplexity > _STRANGE else ""
    return f"{rows} that ship{worth} ({remedy} takes rows that it is for)"


def _bytes(folder: Path) -> int:
    return sum(each.stat().st_size for pattern in ("*.safetensors", "*.bin", "*.gguf") for each in folder.glob(pattern))
