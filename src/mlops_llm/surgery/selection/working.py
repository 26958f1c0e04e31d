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
from mlops_llm.record import Grid, Registration, Result, Run
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.selection import freeing
from mlops_llm.surgery.selection.freeing import Freeing
from mlops_llm.surgery.selection.rows import Rows, rows
from mlops_llm.surgery.selection.rules import HELD_OUT, LOSS, RULES, Choice, Order, Rule, choose
from mlops_llm.tracking.store import Store

ACCURACIES = ("eval/mean_token_accuracy", "eval/rewards/accuracies")
"""What trainings call the accuracy on held-out rows."""
_TOLD = ("train/", "eval/", "score/", "reward/")
"""How numbers begin by which a checkpoint may be chosen."""
_BESIDE = ("_low", "_high", "_unseen")
"""How numbers end that stand beside a score."""


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
    asked: str
    """Digest of the rows that scores are of; empty takes those that most checkpoints were asked."""
    missing: Mapping[str, Plan]
    """Checkpoint -> its evaluation, which the record does not have."""

    def work(self, run: Run) -> Result:
        """Evaluate what is missing, choose, and say what the others occupy.

        Raises:
            UserError: an evaluation cannot be made, or no checkpoint can be chosen.
        """
        self._evaluate(run)
        found = rows(self.store, str(self.request.run), self.asked, self.by)
        choice = self.choice(found)
        assert choice.chosen
        if choice.unjudged:
            console.warn(f"{_unjudged(choice)}: they were not judged; op.evaluate=true dataset=REF metric=[..] scores them")
        plan = freeing.freeing(self.store, found.checkpoints, choice.chosen.name)
        gone = freeing.delete(self.store, plan) if self.delete_others else []
        run.tags({"selected": f"runs:/{found.run.name}/{choice.chosen.name}", "selected.why": "; ".join(choice.reasons)})
        grid = self._grid(found, choice, plan)
        run.artifact("selection.json", {name: [row[at] for row in grid.rows] for at, name in enumerate(grid.columns)})
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
        made = choose(found.candidates, wish, by, found.higher, avoid_overfit=self.avoid_overfit, test=found.test)
        if made.chosen is None:
            raise RequestError(*self._nothing(found, made, by))
        if self.delete_others and made.unjudged:
            remedy = "score them first: op.evaluate=true dataset=REF metric=[..]"
            raise RequestError(f"would delete what was not judged: {_unjudged(made)}", "op.delete_others", remedy)
        return made

    def _nothing(self, found: Rows, made: Choice, by: Sequence[str]) -> tuple[str, str, str]:
        known = sorted({name for each in found.candidates for name in each.values if name.startswith(_TOLD)})
        known = [name for name in known if not name.endswith(_BESIDE)]
        unknown = next((name for name in by if name not in known), None)
        if found.candidates and unknown:
            remedy = f"one of: {', '.join(known)}; or op.evaluate=true dataset=REF metric=[..]"
            return f"no checkpoint has '{unknown}'{near(unknown, known)}", "op.by", remedy
        whys = "; ".join(f"{name} {why}" for name, why in made.left_out.items()) or "it has none"
        return f"no checkpoint of run '{found.run.name}' can be chosen: {whys}", "run", "take another run"

    def _grid(self, found: Rows, choice: Choice, plan: Freeing) -> Grid:
        """All checkpoints: step, losses, accuracy, scores, overfit, and what was made of each."""
        known = {name for each in found.candidates for name in each.values}
        wanted = dict.fromkeys((LOSS, HELD_OUT, *ACCURACIES, *self.by, *sorted(n for n in known if n.startswith("score/"))))
        shown = [name for name in wanted if name in known and not name.endswith(_BESIDE)]
        fates = {each.row.name: each for each in plan.fates}
        lines = []
        for each in found.candidates:
            fate = fates.get(each.name)
            said = "chosen" if each is choice.chosen else choice.left_out.get(each.name, "")
            kept = "" if fate is None else f"stays: {fate.kept}" if fate.kept else console.size(fate.bytes)
            numbers = [console.number(each.values[name]) if name in each.values else "-" for name in shown]
            lines.append([each.name, each.step, *numbers, "overfit" if each.overfit else "", said, kept])
        return Grid(f"checkpoints of {found.run.name}", ["checkpoint", "step", *shown, "mark", "choice", "to free"], lines)

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


def _unjudged(choice: Choice) -> str:
    return "; ".join(f"{name} {choice.left_out[name]}" for name in choice.unjudged)


def refuse_running(found: Rows) -> None:
    """See that nobody writes checkpoints of the run any more.

    Raises:
        UserError: it is running.
    """
    if found.run.status == "RUNNING":
        raise UserError(f"run '{found.run.name}' is running", "op.delete_others", "wait for its end")
