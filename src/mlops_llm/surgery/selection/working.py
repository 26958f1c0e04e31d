"""A selection from its rows to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlops_llm import console
from mlops_llm.component import near
from mlops_llm.errors import RequestError, UserError
from mlops_llm.eval import evaluation, recording
from mlops_llm.eval.plan import Plan
from mlops_llm.eval.significance import least
from mlops_llm.record import Grid, Registration, Result, Run
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.selection import freeing, showing
from mlops_llm.surgery.selection.freeing import Freeing
from mlops_llm.surgery.selection.rows import Rows, rows
from mlops_llm.surgery.selection.rules import RULES, Choice, Order, Rule, choose
from mlops_llm.tracking.store import Store

_TOLD = ("train/", "eval/", "score/", "reward/")
"""How numbers begin by which a checkpoint may be chosen."""


@dataclass(frozen=True)
class Selecting:
    """A selection that can be carried out."""

    request: Surgery
    store: Store
    rule: Rule
    by: tuple[str, ...]
    avoid_overfit: bool
    alias: str
    delete_others: bool
    found: Rows
    """The checkpoints with what the record knows of them."""
    missing: Mapping[str, Plan]
    """Checkpoint -> its evaluation, which the record does not have."""

    def work(self, run: Run) -> Result:
        """Evaluate what is missing, choose, and say what the others occupy.

        Raises:
            UserError: an evaluation cannot be made, or no checkpoint can be chosen.
        """
        self._evaluate(run)
        found = rows(self.store, self.found.run.id, self.found.asked, self.by) if self.missing else self.found
        choice = self.choice(found)
        assert choice.chosen
        if choice.unjudged:
            console.warn(f"{_unjudged(choice)}: they were not judged; op.evaluate=true dataset=REF metric=[..] scores them")
        plan = freeing.freeing(self.store, found.checkpoints, choice.chosen.name)
        gone = freeing.delete(self.store, plan) if self.delete_others else []
        run.tags({"selected": f"runs:/{found.run.name}/{choice.chosen.name}", "selected.why": "; ".join(choice.reasons)})
        by = (*(RULES[self.rule].by or ()), *self.by)
        run.artifact(showing.TABLE, showing.columns(found, choice, plan, by))
        grid = showing.table(found, choice, plan, by, console.width())
        return self._result(found, choice, plan, gone, grid)

    def _evaluate(self, run: Run) -> None:
        folder = Path(self.request.folder or ".")
        for number, (name, plan) in enumerate(self.missing.items(), 1):
            console.detail(f"evaluating {name} ({number} of {len(self.missing)})")
            plan = replace(plan, settings=replace(plan.settings, output=str(folder / name)))
            outcome, taken = evaluation.carried_out(plan, folder / name)
            with run.child(name, {"choice.op": "score", "model": plan.settings.model}) as inner:
                recording.inputs(plan, inner)
                recording.result(plan, outcome, replace(taken, peak=0, gpu=None), inner, pictures=False)
                inner.tags({"stage": "eval"})

    def choice(self, found: Rows) -> Choice:
        """Choose.

        Raises:
            UserError: no checkpoint can be chosen, or the rule needs what is not known.
        """
        wish = RULES[self.rule]
        by = self.by if wish.by is None else wish.by
        if wish.order is Order.earliest and not found.tests(by[0]):
            remedy = "name a score of an evaluation: op.by=[score/bleu] op.evaluate=true dataset=REF"
            raise RequestError(f"{by[0]} is not known sample by sample, so nothing can be tested", "op.by", remedy)
        if wish.order is Order.earliest:
            enough_to_test(found.samples(by[0]))
        made = choose(found.candidates, wish, by, found.higher, avoid_overfit=self.avoid_overfit, test=found.test)
        if made.chosen is None:
            raise RequestError(*self._nothing(found, made, by))
        if self.delete_others and made.unjudged:
            remedy = "score them first: op.evaluate=true dataset=REF metric=[..]"
            raise RequestError(f"would delete what was not judged: {_unjudged(made)}", "op.delete_others", remedy)
        return made

    def _nothing(self, found: Rows, made: Choice, by: Sequence[str]) -> tuple[str, str, str]:
        known = sorted({name for each in found.candidates for name in each.values if name.startswith(_TOLD)})
        known = [name for name in known if not name.endswith(recording.BESIDE)]
        unknown = next((name for name in by if name not in known), None)
        if found.candidates and unknown:
            remedy = f"one of: {', '.join(known)}; or op.evaluate=true dataset=REF metric=[..]"
            where = " on the rows that most were asked" if unknown.startswith("score/") and found.asked else ""
            return f"no checkpoint has '{unknown}'{near(unknown, known)}{where}", "op.by", remedy
        whys = "; ".join(f"{name} {why}" for name, why in made.left_out.items()) or "it has none"
        return f"no checkpoint of run '{found.run.name}' can be chosen: {whys}", "run", "take another run"

    def _result(self, found: Rows, choice: Choice, plan: Freeing, gone: Sequence[str], grid: Grid) -> Result:
        chosen, request = choice.chosen, self.request
        assert chosen
        ref = f"runs:/{found.run.name}/{chosen.name}"
        why = "; ".join(choice.reasons)
        names = ", ".join(each.row.name for each in plan.going) or "none"
        size = console.size(plan.bytes)
        table: dict[str, Any] = {
            "chosen": ref,
            "rule": self.rule.name,
            **{f"because {number}" if number > 1 else "because": each for number, each in enumerate(choice.reasons, 1)},
            "evaluated now": ", ".join(self.missing) or None,
            "registered": f"{request.name} (alias {self.alias})" if request.name else None,
            "others": f"{', '.join(gone)}: deleted, {size} freed" if gone else f"deleting {names} would free {size}",
        }
        stay = [f"{each.row.name}: {each.kept}" for each in plan.fates if each.kept]
        table |= {f"stays {number}" if number > 1 else "stays": each for number, each in enumerate(stay, 1)}
        if plan.going and not self.delete_others and not choice.unjudged:
            table["to delete them"] = "the same command with op.delete_others=true"
        row = next(each for each in found.checkpoints if each.name == chosen.name)
        return Result(
            f"select: {ref}",
            {name: value for name, value in table.items() if value is not None},
            {
                "ref": ref,
                "model": row.id,
                "step": chosen.step,
                "reasons": list(choice.reasons),
                "left_out": dict(choice.left_out),
                "free_bytes": plan.bytes,
                "may_go": [each.row.name for each in plan.going],
                "stay": {each.row.name: each.kept for each in plan.fates if each.kept},
                "deleted": list(gone),
            },
            [grid],
            best=Registration(chosen.name, request.name, self.alias, why, found.run.id) if request.name else None,
        )


def enough_to_test(samples: int | None) -> None:
    """See that the rule of the earliest does not choose blindly.

    Raises:
        UserError: with so few samples no difference is significant, however large it is, so that it would take any first one.
    """
    if samples is not None and samples < least():
        what = f"tests by {samples} samples, of which no difference is significant, however large it is"
        raise RequestError(what, "op.rule", f"evaluate on {least()} rows or more: op.evaluate=true dataset=REF")


def _unjudged(choice: Choice) -> str:
    return "; ".join(f"{name} {choice.left_out[name]}" for name in choice.unjudged)


def refuse_running(found: Rows) -> None:
    """See that nobody writes checkpoints of the run any more.

    Raises:
        UserError: it is running.
    """
    if found.run.status == "RUNNING":
        raise UserError(f"run '{found.run.name}' is running", "op.delete_others", "wait for its end")
