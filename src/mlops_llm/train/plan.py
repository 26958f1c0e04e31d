"""Everything that can be checked before step 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mlops_llm import component, console, digest
from mlops_llm.data.kinds import FIELDS
from mlops_llm.data.read import Source
from mlops_llm.data.ref import open_dataset
from mlops_llm.data.split import hold_out
from mlops_llm.data.structure import kind_of_most, turns
from mlops_llm.data.validate import HEAD
from mlops_llm.errors import UserError
from mlops_llm.eval.questions import Questions
from mlops_llm.eval.rendering import prompted
from mlops_llm.files import writable
from mlops_llm.models import load, packed, template
from mlops_llm.models.load import Files, Task
from mlops_llm.record import DatasetInput, Result
from mlops_llm.train import deciding, history, launcher, machine, preflight, resuming, scoring, used
from mlops_llm.train.config import Op, Train
from mlops_llm.train.history import Correction
from mlops_llm.train.rewarding import rewardable
from mlops_llm.train.rounds import check_round, check_window
from mlops_llm.train.samplers.hf import Hf


@dataclass(frozen=True)
class Part:
    """Rows of one side, as the model sees them."""

    source: Source
    rows: list[int]
    encoded: list[Any]
    """Examples of the rows, as the algorithm sees them."""
    context: str

    @property
    def left_out(self) -> int:
        """Rows of which nothing remained."""
        return len(set(self.rows) - {one.place for one in self.encoded})

    @property
    def said(self) -> str:
        """How many rows there are, and how many examples they make where that differs."""
        more = f" ({len(self.encoded)} examples)" if len(self.encoded) > len(self.rows) else ""
        return f"{len(self.rows) - self.left_out} rows{more}"

    def as_input(self) -> DatasetInput:
        """The part as the record names it."""
        kept = [self.source.rows[row] for row in self.rows]
        digests = {
            "raw": self.source.raw,
            "canonical": digest.canonical(kept),
            "seen": digest.seen((one.ids, one.labels) for one in self.encoded),
        }
        return DatasetInput(self.source.name, self.source.version, str(self.source.path), self.context, len(kept), digests)


@dataclass(frozen=True)
class Plan:
    """A training that is known to be able to start."""

    settings: Train
    files: Files
    tokenizer: Any
    template_source: str
    train: Part
    validation: Part | None
    estimate: preflight.Estimate
    resume_from: Path | None
    questions: Questions | None = None
    """What is asked while training, where answers are scored."""
    folder: Path = field(default_factory=Path.cwd)
    """Where its relative paths mean what they say."""
    used: Mapping[str, str] = field(default_factory=dict)
    """Settings that hold otherwise than they were given, by name."""

    @property
    def trained_tokens(self) -> int:
        """Tokens that one pass over the training part learns."""
        return sum(one.trained for one in self.train.encoded)

    def facts(self) -> dict[str, Any]:
        """What a person wants to know before the start."""
        cut = [one for part in (self.train, self.validation) if part for one in part.encoded if one.cut]
        lengths = [one.trained or len(one.ids) for one in self.train.encoded]
        head = "" if self.files.task is self.settings.algo.task else ", its head new"
        counted = "prompt tokens" if self.settings.algo.rewarded else "trained tokens"
        start = self.settings.peft.told(self.files)
        return {
            "model": f"{self.settings.model} ({_millions(self.files.parameters)} parameters{head}, "
            f"{_millions(self.estimate.trained)} of them trained)",
            **({"its adapter": start} if start else {}),
            "dataset": f"{self.train.source.name}: {self.train.said} to train on"
            + (f", {len(self.validation.rows) - self.validation.left_out} held out" if self.validation else ", none held out"),
            **self._answered(),
            counted: f"{sum(lengths)} (a row: min {min(lengths)}, mean {sum(lengths) / len(lengths):.0f}, max {max(lengths)})",
            "rows cut short": f"{len(cut)} ({sum(one.cut for one in cut)} tokens dropped)" if cut else "0",
            "chat template": self.template_source,
            **self.settings.distributed.facts(self.settings),
            **self.estimate.facts(),
        }

    def _answered(self) -> dict[str, str]:
        how = self.settings.evaluate
        if self.questions is None:
            return {}
        asked = f"{len(self.questions.asked)} to {self.questions.source.name}"
        return {"answers scored": f"{asked}, every {how.every} steps ({', '.join(how.metric)})"}


class Known(NamedTuple):
    """What the process that started this one has found."""

    correction: Correction
    """How it corrected the predicted needs, which fit."""
    start: str
    """Ref of the very start model."""


def prepare(settings: Train, known: Known | None = None) -> Plan | Result:
    """Check a training from end to end without training; for `op=plan` say what would happen.

    Args:
        settings: of the training.
        known: what another process has checked already, where one did.

    Raises:
        UserError: model, dataset, template or machine do not allow it; the first bad row is named.
    """
    asked_for = component.plain(settings)
    _check(settings, known)
    settings.output = str(writable(Path(settings.output or f"outputs/{settings.run_name or 'unnamed'}")))
    task = settings.algo.task
    files = load.inspect(resuming.start(settings, known), settings.model_load, task, fresh=task is Task.reward)
    packed.refuse(files)
    settings.peft = settings.peft.starting(files)
    source, train_rows, held, held_rows = _divided(settings)
    tokenizer = load.tokenizer_of(files)
    how = template.ensure(tokenizer, settings.model)
    _warn_of_tools(tokenizer, source)
    train = Part(source, train_rows, _encoded(settings, tokenizer, source, train_rows), "training")
    validation = None
    if held_rows:
        encoded = _encoded(settings, tokenizer, held, held_rows)
        validation = Part(held, held_rows, encoded, "validation")
        _warn_of_shared(train, validation)
    window = files.config.get("max_position_embeddings")
    if settings.algo.rewarded:
        check_round(settings, len(train.encoded))
        check_window(settings.algo, [*train.encoded, *(validation.encoded if validation else ())], window)
    asked = scoring.prepare(settings, tokenizer, window, validation)
    _warn_of_learned(train, asked, settings, tokenizer)
    _refuse_blind(settings, validation, asked)
    last = resuming.last(settings, train, validation, asked, known)
    case = _case(settings, files, train, validation, resuming.step_of(last), known)
    found, taken = preflight.estimate(case), used.changed(asked_for, component.plain(settings))
    plan = Plan(settings, files, tokenizer, how, train, validation, found, last, asked, used=taken)
    settings.ema.check(plan.estimate.steps)
    if known is None:
        preflight.refuse_impossible(case, plan.estimate)
    return Result("plan", plan.facts() | launcher.dry(settings), {}) if settings.op is Op.plan else plan


def _check(settings: Train, known: Known | None) -> None:
    """See that the settings fit each other, before anything is opened."""
    _check_rewards(settings)
    settings.distributed.check(settings)
    if settings.op is Op.fit:
        settings.distributed.require()
    if settings.resume:
        for one in (settings.algo, *settings.reward.values()):
            one.resumed(Path(str(settings.output)))
    if known is None:  # else another process has seen that they fit, and moved what did not
        settings.algo.check(settings)
    settings.best.metric = settings.best.metric or settings.algo.best_metric
    scoring.check(settings)
    deciding.check(settings)


def _divided(settings: Train) -> tuple[Source, list[int], Source, list[int]]:
    """What to train on and what is held out, each with the places of its rows."""
    source = open_dataset(settings.dataset, settings.read)
    if settings.validation:
        held = open_dataset(settings.validation, settings.read)
        return source, list(range(len(source.rows))), held, list(range(len(held.rows)))
    train_rows, held_rows = hold_out(source, settings.holdout)
    if not train_rows:
        raise UserError("leaves no row to train on", "holdout", "lower it or give more rows")
    return source, train_rows, source, held_rows


def _refuse_blind(settings: Train, validation: Part | None, asked: Questions | None) -> None:
    """See that a rule which stops the training has something to look at.

    Raises:
        UserError: it has not.
    """
    for name, wanted in (("stop", settings.overfit.stop), ("patience", settings.overfit.patience)):
        if wanted and validation is None and (asked is None or settings.best.metric not in settings.evaluate.scores()):
            remedy = "hold rows out (holdout=0.1, validation=REF), or score answers: evaluate.every=50 best.metric=score/bleu"
            raise UserError("is given, and no evaluation tells when to stop", f"overfit.{name}", remedy)


def _case(
    settings: Train, files: Files, train: Part, validation: Part | None, done: int, known: Known | None
) -> preflight.Case:
    """What the needs of a training depend on, as they are on this machine."""
    there = machine.here()
    sort = settings.distributed.sort(there.name)
    correction = known.correction if known else history.correction(history.recorded(sort), *history.names(settings))
    held_out = len(validation.encoded) if validation else 0
    disk = preflight.disk_there(settings)
    return preflight.Case(settings, files, train.encoded, held_out, there, disk, correction, done)


def _encoded(settings: Train, tokenizer: Any, source: Source, rows: list[int]) -> list[Any]:
    """The algorithm's examples of some rows.

    Raises:
        UserError: the rows are of a kind that it cannot learn from, and those that can are named; or a row is broken.
    """
    try:
        made = list(settings.algo.encode(tokenizer, source, rows))
        return rewardable(settings.reward, made, source.path.name) if settings.algo.rewarded else made
    except UserError:
        told = kind_of_most(islice(source.rows, HEAD))
        if told is None or told in settings.algo.kinds:
            raise
        table = component.groups()["algo"]
        mine = component.name_of(settings.algo)
        fitting = [f"algo={name}" for name, cls in table.items() if told in cls.kinds]  # type: ignore[attr-defined]
        wanted = " or ".join(f"{kind.name} ({', '.join(FIELDS[kind])})" for kind in settings.algo.kinds)
        raise UserError(
            f"holds rows of kind {told.name}, and algo={mine} learns from {wanted}",
            source.path.name,
            f"take {' or '.join(fitting) or 'another algorithm'}, or another dataset",
        ) from None


def _warn_of_tools(tokenizer: Any, source: Source) -> None:
    """Say so where the model will not see tools that the rows have."""
    with_tools = sum(1 for row in source.rows if row.get("tools") or any(turn.get("tool_calls") for _, turn in turns(row)))
    if with_tools and not template.shows_tools(tokenizer):
        console.warn(
            f"{source.name}: {with_tools} rows have tools or calls of them, which the model's chat template does not show: "
            "it learns without them; take a model whose template knows tools"
        )


def _check_rewards(settings: Train) -> None:
    table = component.groups()
    mine = component.name_of(settings.algo)
    if settings.algo.rewarded and not settings.reward:
        there = ", ".join(table.get("reward", {}))
        raise UserError(f"algo={mine} learns from rewards, and none is named", "reward", f"give one or more of: {there}")
    if settings.reward and not any(reward.weight for reward in settings.reward.values()):
        names = " and ".join(f"reward.{name}.weight" for name in settings.reward)
        raise UserError("is 0, so that nothing is learned", names, "give one another weight; 0 only watches a reward")
    rewarded = " or ".join(f"algo={name}" for name, cls in table["algo"].items() if cls.rewarded)  # type: ignore[attr-defined]
    if settings.reward and not settings.algo.rewarded:
        raise UserError(f"algo={mine} samples no answers that could be rewarded", "reward", f"take {rewarded}")
    if settings.rollout not in (Hf(), "???") and not settings.algo.rewarded:  # a notebook may leave it out
        raise UserError(f"algo={mine} samples no answers", "rollout", f"leave it out, or take {rewarded}")


def _warn_of_shared(train: Part, validation: Part) -> None:
    """Say so where held-out rows are trained on: the held-out loss then tells nothing of new rows."""
    learned = {hash(tuple(one.ids)) for one in train.encoded}
    shared = sum(hash(tuple(one.ids)) in learned for one in validation.encoded)
    if shared:
        console.warn(
            f"{shared} of {len(validation.encoded)} held-out rows of {validation.source.path} are also trained on: "
            "their loss tells nothing of new rows"
        )


def _warn_of_learned(train: Part, asked: Questions | None, settings: Train, tokenizer: Any) -> None:
    """Say so where questions are also trained on; of held-out rows it has been said."""
    if asked is None or not settings.evaluate.dataset:
        return
    ids = [tuple(tokenizer(prompted(tokenizer, one), add_special_tokens=False)["input_ids"]) for one in asked.asked]
    learned = {(length, hash(tuple(one.ids[:length]))) for length in set(map(len, ids)) for one in train.encoded}
    shared = sum((len(each), hash(each)) in learned for each in ids)
    if shared:
        console.warn(
            f"{shared} of {len(ids)} questions of {asked.source.path} are also trained on: "
            "their scores tell nothing of new ones"
        )


def warn_of_cuts(plan: Plan) -> None:
    """Say which rows the model does not see whole."""
    for part in (plan.train, plan.validation):
        if part is None:
            continue
        cut = sum(1 for one in part.encoded if one.cut)
        said = [f"{cut} rows were cut at algo.max_tokens"] if cut else []
        if part.left_out:
            said.append(f"{part.left_out} rows were left out: {plan.settings.algo.leaves_out}")
        if said:
            console.warn(f"{part.context}: {'; '.join(said)}")


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count:,}"
