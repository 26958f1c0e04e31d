"""`op=select`."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlops_llm.component import component, near
from mlops_llm.errors import UserError
from mlops_llm.eval.plan import Plan
from mlops_llm.eval.plan import prepare as evaluation
from mlops_llm.eval.recording import PREFIX, named
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.operation import Work
from mlops_llm.surgery.selection.rows import Rows, rows
from mlops_llm.surgery.selection.rules import HELD_OUT, RULES, Rule
from mlops_llm.surgery.selection.working import Selecting, enough_to_test, refuse_running
from mlops_llm.surgery.sweep.asking import scores_of
from mlops_llm.tracking.store import connect


@component("op", "select")
@dataclass
class Select:
    """Choose a checkpoint of a training by its numbers, with reasons; name=NAME registers it."""

    by: list[str] = field(default_factory=lambda: [HELD_OUT])
    """Numbers that count: eval/loss, score/bleu; of several the least sum of ranks is taken."""
    rule: Rule = Rule.best
    """best by op.by, lowest_loss, best_validation, latest, or the earliest that a paired test cannot tell from the best."""
    avoid_overfit: bool = True
    """Leave out checkpoints that the training marked as overfit, as long as others are there."""
    evaluate: bool = False
    """First evaluate checkpoints that lack a score, on dataset=REF by metric=[..] or judge=."""
    alias: str = "challenger"
    """Alias that the chosen one gets in the registry, with name=NAME."""
    delete_others: bool = False
    """Delete the files of the others; their numbers stay. Nothing that an alias points to, or was made of, is deleted."""

    def __post_init__(self) -> None:
        """Check what no single field can."""
        if not self.by:
            raise UserError("is empty", "op.by", "name numbers: op.by=[eval/loss]")
        twice = next((each for each in self.by if self.by.count(each) > 1), None)
        if twice:
            raise UserError(f"names {twice} twice", "op.by", "name each once")
        if self.alias == "champion":
            raise UserError("is moved by the registry's policy only", "op.alias", "take another: op.alias=challenger")
        if not self.alias or not self.alias.replace("-", "").replace("_", "").isalnum():
            raise UserError(f"'{self.alias}' is no alias", "op.alias", "take letters, digits, - and _")

    def prepare(self, request: Surgery) -> Work:
        """Read the training's checkpoints; see that one can be chosen, or what is missing can be evaluated."""
        if not request.run:
            raise UserError("names no training", "run", "give run=RUN, its id or name")
        if request.model or request.models:
            raise UserError("is given beside run", "model" if request.model else "models", "leave it out")
        store = connect()
        found = rows(store, request.run, by=self.by)
        if not found.checkpoints:
            raise UserError(f"run '{found.run.name}' has no checkpoints", "run", "take a training")
        if self.delete_others:
            refuse_running(found)
        missing = dict[str, Plan]()
        if self.evaluate:
            found, missing = self._missing(found, request)
        elif request.dataset and (asked := self._rows(found, request)):
            found = rows(store, request.run, asked)
        selecting = Selecting(
            request, store, self.rule, tuple(self.by), self.avoid_overfit, self.alias, self.delete_others, found, missing
        )
        if not missing:
            selecting.choice(found)
        return selecting.work

    def _rows(self, found: Rows, request: Surgery) -> str:
        plan = evaluation(request.evaluation(_ref(found, self._there(found)[0]), "."))
        return plan.questions.as_input().digests["canonical"] if plan.questions else ""

    def _there(self, found: Rows) -> list[str]:
        there = [each.name for each in found.candidates if not each.gone]
        if not there:
            raise UserError(f"run '{found.run.name}' has no whole checkpoint", "run", "take another run or resume it")
        return there

    def _missing(self, found: Rows, request: Surgery) -> tuple[Rows, dict[str, Plan]]:
        """The checkpoints with what the record knows by the wanted rows, and the evaluations that are to be made.

        Raises:
            UserError: nothing is wanted that an evaluation tells, or it would not tell it.
        """
        by = self.by if RULES[self.rule].by is None else RULES[self.rule].by or ()
        wanted = [each for each in by if each.startswith(PREFIX)]
        if not wanted:
            what = f"evaluates, and {', '.join(by) or self.rule.name} is no score of an evaluation"
            raise UserError(what, "op.evaluate", "name one: op.by=[eval/loss,score/bleu]")
        if not request.dataset:
            raise UserError("names no rows", "dataset", "give dataset=REF")
        names = self._there(found)
        first = evaluation(request.evaluation(_ref(found, names[0]), "."))
        known = [named(each) for each in scores_of(first)]
        for each in wanted:
            if known and each not in known:
                raise UserError(
                    f"'{each}' will be none of the scores{near(each, known)}", "op.by", f"one of: {', '.join(known)}"
                )
        assert first.questions
        if self.rule is Rule.earliest:
            enough_to_test(len(first.questions.rows))
        asked = first.questions.as_input().digests["canonical"]
        there = rows(connect(), found.run.id, asked)
        have = {
            each.name
            for each in there.candidates
            if all(name in each.values for name in wanted) and each.name in there.evaluations
        }
        lacking = [name for name in names if name not in have]
        others = {name: evaluation(request.evaluation(_ref(found, name), "."), first) for name in lacking if name != names[0]}
        return there, {name: first if name == names[0] else others[name] for name in lacking}


def _ref(found: Rows, name: str) -> str:
    return f"runs:/{found.run.name}/{name}"
