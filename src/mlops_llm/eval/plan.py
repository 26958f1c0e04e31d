"""What is to be evaluated, checked before anything is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlops_llm import console, digest
from mlops_llm.component import name_of
from mlops_llm.data.kinds import Kind, infer
from mlops_llm.data.ref import open_dataset
from mlops_llm.data.split import drawn_order
from mlops_llm.data.tokens import lengths
from mlops_llm.errors import UserError
from mlops_llm.eval import method
from mlops_llm.eval.config import Cache, Eval
from mlops_llm.eval.metric import Item, Metric, Need
from mlops_llm.eval.prompts import prompted
from mlops_llm.eval.questions import Question, Questions, question
from mlops_llm.eval.subject import Subject, subject
from mlops_llm.inference.cache import Answers, key
from mlops_llm.inference.engine import Request, Sampling

if TYPE_CHECKING:
    from mlops_llm.eval.benchmarks.tasks import Wanted

_SHOWN = 3


@dataclass(frozen=True)
class Plan:
    """An evaluation that can be carried out."""

    settings: Eval
    subject: Subject | None
    """None where a server elsewhere answers."""
    questions: Questions | None
    """None where only benchmarks are run."""
    metrics: dict[str, Metric]
    sampling: Sampling
    """As asked, with no more new tokens than the model has room for."""
    requests: tuple[Request, ...] = ()
    benchmarks: tuple[Wanted, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """What the model is called, for a person."""
        return self.settings.model if self.subject else f"{self.settings.model} at {name_of(self.settings.engine)}"

    @property
    def answers(self) -> bool:
        """Whether answers are sampled: a likelihood needs none."""
        rated = self.settings.judge is not None
        return bool(self.questions) and (rated or any(one.needs is not Need.likelihood for one in self.metrics.values()))

    def keys(self) -> list[str] | None:
        """Of each answer in the cache: all that it depends on; None where the weights are not known."""
        if self.subject is None:
            return None
        sampling = {"max_new_tokens": self.sampling.max_new_tokens, "stop": self.sampling.stop}
        if not self.sampling.greedy:
            sampling |= {"temperature": self.sampling.temperature, "top_p": self.sampling.top_p}
        facts = {
            "weights": self.subject.digest,
            "dtype": self.settings.model_load.dtype.name,
            "engine": self.settings.engine.family,
            "sampling": sampling,
        }
        return [key(text=one.text, seed=None if self.sampling.greedy else one.seed, **facts) for one in self.requests]


def prepare(settings: Eval) -> Plan:
    """Check a request and read what it needs: the model's files but not its weights, the rows, the prompts.

    Raises:
        UserError: something does not fit; one line says what.
    """
    settings.engine.check()
    if settings.judge is not None:
        settings.judge.check()
    if not settings.dataset and not settings.benchmark:
        raise UserError("names no rows", "dataset", "give dataset=REF, or benchmark=[gsm8k]")
    if not settings.dataset and (settings.metric or settings.judge):
        chosen = "metric" if settings.metric else "judge"
        raise UserError("is given, but there are no rows to score", chosen, "name them: dataset=REF")
    metrics = dict(settings.metric)
    _refuse_unlikely(settings, metrics)
    benchmarks = _benchmarks(settings)
    found = subject(settings.model, settings.model_load) if settings.engine.local else None
    warned = found.warnings if found else ()
    if not settings.dataset:
        return Plan(settings, found, None, metrics, settings.sampling, (), benchmarks, warned)
    questions = _questions(settings)
    metrics = metrics or _defaults(settings, questions)
    _check_needs(questions, metrics)
    if settings.judge is not None and settings.judge.needs_reference:
        _refuse_lacking(questions, [bool(one.references) for one in questions.asked], "reference", "judge")
    requests = _requests(settings, questions, found)
    sampling, short = _room(settings, requests, found)
    plan = Plan(settings, found, questions, metrics, sampling, requests, benchmarks, (*warned, *short))
    if settings.judge is not None and not _is_known(plan):
        settings.judge.reach()
    return plan


def _benchmarks(settings: Eval) -> tuple[Wanted, ...]:
    if not settings.benchmark:
        return ()
    from mlops_llm.eval.benchmarks import tasks

    return tuple(tasks.check(settings))


def _is_known(plan: Plan) -> bool:
    """Whether every answer was given before, so that nothing may be left to ask, not even of a judge."""
    keys = plan.keys() if plan.settings.cache is Cache.on else None
    if keys is None:
        return False
    answers = Answers()
    try:
        return all(answers.get(each) for each in keys)
    finally:
        answers.close()


def _refuse_unlikely(settings: Eval, metrics: dict[str, Metric]) -> None:
    unlikely = [name for name, one in metrics.items() if one.needs is Need.likelihood]
    if unlikely and not settings.engine.local:
        remedy = "take engine=hf or engine=vllm, or leave it out"
        raise UserError("needs the model's likelihoods, which a chat server does not tell", f"metric.{unlikely[0]}", remedy)


def _questions(settings: Eval) -> Questions:
    source = open_dataset(str(settings.dataset), settings.read)
    count = len(source.rows)
    for name in ("limit", "sample"):
        wanted = getattr(settings, name)
        if wanted and wanted > count:
            raise UserError(f"is {wanted}, there are {count} rows", name, f"give a number up to {count}")
    places = list(range(count))[: settings.limit]
    if settings.sample:
        places = sorted(drawn_order(source.rows, settings.seed)[: settings.sample])
    rows = [(source.rows[place], source.where(place)) for place in places]
    asked = [question(row, settings.kind or infer(row) or Kind.eval, where) for row, where in rows]
    return Questions(source, places, asked)


def _defaults(settings: Eval, questions: Questions) -> dict[str, Metric]:
    """Metrics that fit the rows, where none is named."""
    from mlops_llm import component

    if settings.judge is not None:
        return {}
    told = method.of(questions.source)
    if told.metrics:
        console.say(f"scored by {', '.join(told.metrics)}, as the dataset says (choose others: metric=[...])")
        return told.metrics
    if told.judge:
        console.warn("the dataset is to be rated by a judge: judge=rubric_zh or judge=rubric_en; none is named")
    asked = questions.asked
    if all(one.references for one in asked):
        # A row without a reference has its label for one.
        names = ["label"] if all(one.references == (one.label,) for one in asked) else ["exact_match", "bleu", "rouge"]
    else:
        remedy = "name what scores them: judge=rubric_zh, or metric=[perplexity] where they have references"
        raise UserError("the rows have neither references nor labels", str(questions.source.path), remedy)
    console.say(f"scored by {', '.join(names)} (choose others: metric=[...])")
    return {name: component.build("metric", name) for name in names}


def _check_needs(questions: Questions, metrics: dict[str, Metric]) -> None:
    rows = [Item("", one.references, one.label) for one in questions.asked]
    for name, metric in metrics.items():
        if metric.needs is Need.nothing:
            metric.check(rows)
            continue
        field = "label" if metric.needs is Need.label else "reference"
        there = [one.label is not None if field == "label" else bool(one.references) for one in questions.asked]
        _refuse_lacking(questions, there, field, f"metric.{name}")
        metric.check(rows)


def _refuse_lacking(questions: Questions, there: Sequence[bool], field: str, where: str) -> None:
    lacking = [place for place, is_there in zip(questions.rows, there, strict=True) if not is_there]
    if lacking:
        shown = ", ".join(questions.source.where(place) for place in lacking[:_SHOWN])
        more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
        what = f"needs a '{field}', which {len(lacking)} of {len(questions.rows)} rows lack ({shown}{more})"
        raise UserError(what, where, f"add the field to the rows, or leave {where.rpartition('.')[2]} out")


def _requests(settings: Eval, questions: Questions, found: Subject | None) -> tuple[Request, ...]:
    made = []
    for number, (place, one) in enumerate(zip(questions.rows, questions.asked, strict=True)):
        where = questions.source.where(place)
        _refuse_pictures(one, where)
        seed = int(digest.text(f"{settings.seed}:{digest.row(questions.source.rows[place])}")[:7], 16)
        text = prompted(found.tokenizer, one, where) if found else ""
        made.append(Request(number, one.turns, text, seed, one.tools))
    return tuple(made)


def _refuse_pictures(one: Question, where: str) -> None:
    for turn in one.turns:
        if turn.get("content") is not None and not isinstance(turn["content"], str):
            raise UserError("holds more than text, which no engine here takes", where, "leave pictures out, or the row")


def _room(settings: Eval, requests: Sequence[Request], found: Subject | None) -> tuple[Sampling, tuple[str, ...]]:
    """The sampling, with as many new tokens as the longest prompt leaves room for.

    Raises:
        UserError: prompts leave none.
    """
    if found is None or found.window is None:
        return settings.sampling, ()
    counts = lengths(found.tokenizer, [one.text for one in requests])
    full = [each for each in counts if each >= found.window]
    if full:
        raise UserError(
            f"{len(full)} of {len(counts)} prompts (up to {max(full)} tokens) fill the model's {found.window} tokens",
            str(settings.dataset),
            "leave these rows out, or take a model with a larger window",
        )
    room = found.window - max(counts)
    if room >= settings.sampling.max_new_tokens:
        return settings.sampling, ()
    said = f"answers have room for {room} tokens, not {settings.sampling.max_new_tokens}: the model's window is {found.window}"
    console.warn(said)
    return replace(settings.sampling, max_new_tokens=room), (said,)
