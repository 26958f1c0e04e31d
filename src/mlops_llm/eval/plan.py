"""What is to be evaluated, checked before anything is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from mlops_llm import console, digest
from mlops_llm.component import plain
from mlops_llm.data.kinds import Kind, infer
from mlops_llm.data.ref import open_dataset
from mlops_llm.data.split import drawn_order
from mlops_llm.data.tokens import lengths
from mlops_llm.errors import UserError
from mlops_llm.eval import method
from mlops_llm.eval.config import Cache, Eval
from mlops_llm.eval.judge import Judge, Rated, conversation
from mlops_llm.eval.metric import Item, Metric, Need
from mlops_llm.eval.questions import Question, Questions, question
from mlops_llm.eval.rendering import answered, prompted
from mlops_llm.eval.subject import Subject, subject
from mlops_llm.inference.cache import Answers, key
from mlops_llm.inference.engine import Request
from mlops_llm.models import load

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
    requests: tuple[Request, ...] = ()
    benchmarks: tuple[Wanted, ...] = ()
    warnings: tuple[str, ...] = ()
    ability: str = ""
    """What the dataset says that it asks for."""

    @property
    def model(self) -> str:
        """What the model is called, for a person."""
        if self.subject:
            return self.settings.model
        server = self.settings.engine.decisive
        return f"{server['model'] or 'the first model'} at {server['base_url']}"

    @property
    def answers(self) -> bool:
        """Whether answers are sampled: a likelihood needs none."""
        rated = self.settings.judge is not None
        return bool(self.questions) and (rated or not all(one.needs.is_likelihood for one in self.metrics.values()))

    @property
    def cache(self) -> Cache:
        """Which use of the cache is made: of a server nobody knows whether it has the same weights tomorrow."""
        return self.settings.cache if self.subject else Cache.off

    @cached_property
    def identity(self) -> str:
        """Digest of all that its scores depend on besides the machine; empty of a server, of which nobody knows its weights."""
        if self.subject is None:
            return ""
        settings, questions = self.settings, self.questions
        facts = {name: plain(getattr(settings, name)) for name in ("seed", "save_outputs", "overlap")}
        facts |= {
            "model": self.subject.digest,
            "answers": self.keys(),
            "metrics": {n: plain(m) for n, m in self.metrics.items()},
        }
        facts |= {"rows": questions.as_input().digests["canonical"] if questions else None}
        facts |= {"judge": settings.judge.version() if settings.judge is not None else None}
        facts |= {"benchmarks": [[each.name, each.facts(settings)] for each in self.benchmarks]}
        return digest.row(facts)

    def keys(self) -> list[str]:
        """Of each answer: a digest of all that it depends on, as far as it is known here."""
        sampling = {"max_new_tokens": self.settings.sampling.max_new_tokens, "stop": self.settings.sampling.stop}
        if not self.settings.sampling.greedy:
            sampling |= {"temperature": self.settings.sampling.temperature, "top_p": self.settings.sampling.top_p}
        facts = {
            "weights": self.subject.digest if self.subject else None,
            "dtype": load.dtype_of(self.settings.model_load.dtype).name,
            "engine": [self.settings.engine.family, self.settings.engine.decisive],
            "sampling": sampling,
        }
        is_greedy, asked = self.settings.sampling.greedy, []
        for one in self.requests:
            text = one.text or [list(one.messages), list(one.tools or ())]  # only a server knows the template
            asked.append(key(text=text, seed=None if is_greedy else one.seed, **facts))
        return asked


def prepare(settings: Eval, like: Plan | None = None) -> Plan:
    """Check a request and read what it needs: the rows, the model's files but not its weights, the prompts.

    Args:
        settings: the request.
        like: the plan of another model with the same settings otherwise, whose rows are taken as they were read.

    Raises:
        UserError: something does not fit; one line says what.
    """
    _check(settings)
    wanted = like or _wanted(settings)
    found = subject(settings.model, settings.model_load) if settings.engine.local else None
    warned, questions, metrics = found.warnings if found else (), wanted.questions, wanted.metrics
    if questions is None:
        return replace(wanted, settings=settings, subject=found, warnings=warned)
    if found and found.template_source != "own":
        _refuse_conversations(questions, settings.model)
    requests = _requests(settings, questions, found)
    plan = replace(wanted, settings=settings, subject=found, requests=requests, warnings=warned)
    if plan.answers:
        plan = replace(plan, warnings=(*warned, *_check_room(settings, requests, found)))
    if found and any(one.needs.is_likelihood for one in metrics.values()):
        _check_references(questions, found)
    if settings.judge is not None and not _is_judged(plan, settings.judge):
        settings.judge.reach()
    return plan


def _check(settings: Eval) -> None:
    """See that engine and judge can be asked, and that rows are named for what is wanted of them."""
    settings.engine.check()
    if settings.judge is not None:
        settings.judge.check()
    if not settings.dataset and not settings.benchmark:
        raise UserError("names no rows", "dataset", "give dataset=REF, or benchmark=[gsm8k]")
    if not settings.dataset and (settings.metric or settings.judge):
        chosen = "metric" if settings.metric else "judge"
        raise UserError("is given, but there are no rows to score", chosen, "name them: dataset=REF")
    if settings.sample and not settings.dataset:
        raise UserError("is given, but benchmarks are not drawn from", "sample", "take their first items: limit=20")
    _refuse_unlikely(settings, dict(settings.metric))


def _wanted(settings: Eval) -> Plan:
    """What is asked, and how answers are scored: the same for every model."""
    benchmarks = _benchmarks(settings)
    if not settings.dataset:
        return Plan(settings, None, None, dict(settings.metric), (), benchmarks)
    questions = _questions(settings)
    metrics = _settled(questions, dict(settings.metric) or _defaults(settings, questions))
    if settings.judge is not None and settings.judge.needs_reference:
        _refuse_lacking(questions, [bool(one.references) for one in questions.asked], "reference", "judge")
    return Plan(settings, None, questions, metrics, (), benchmarks, (), method.ability(questions.source))


def _benchmarks(settings: Eval) -> tuple[Wanted, ...]:
    if not settings.benchmark:
        return ()
    from mlops_llm.eval.benchmarks import tasks

    return tuple(tasks.check(settings))


def _is_judged(plan: Plan, judge: Judge) -> bool:
    """Whether every answer was given and rated before, so that nothing is left to ask."""
    if plan.cache is not Cache.on or plan.questions is None:
        return False
    known, keys = Answers(), plan.keys()
    try:
        given = [known.get(each) for each in keys]
        rows = [
            Rated(place, conversation(one.turns), row["text"], one.references)
            for place, (one, row) in enumerate(zip(plan.questions.asked, given, strict=True))
            if row
        ]
        return len(rows) == len(keys) and judge.knows(rows, known)
    finally:
        known.close()


def _refuse_unlikely(settings: Eval, metrics: dict[str, Metric]) -> None:
    unlikely = [name for name, one in metrics.items() if one.needs.is_likelihood]
    if unlikely and not settings.engine.local:
        remedy = "take engine=hf or engine=vllm, or leave it out"
        raise UserError("needs the model's likelihoods, which a chat server does not tell", f"metric.{unlikely[0]}", remedy)


def _questions(settings: Eval) -> Questions:
    source = open_dataset(str(settings.dataset), settings.read)
    count = len(source.rows)
    for name in ("limit", "sample"):
        wanted = getattr(settings, name)
        if wanted and wanted > count and not (name == "limit" and settings.benchmark):
            raise UserError(f"is {wanted}, there are {count} rows", name, f"give a number up to {count}")
    places = list(range(count))[: settings.limit]
    if settings.sample:
        places = sorted(drawn_order(source.rows, settings.seed)[: settings.sample])
    rows = [(source.rows[place], source.where(place)) for place in places]
    asked = [question(row, settings.kind or infer(row) or Kind.eval, where) for row, where in rows]
    return Questions(source, places, asked, settings.seed if settings.sample else None)


def _defaults(settings: Eval, questions: Questions) -> dict[str, Metric]:
    """Metrics that fit the rows, where none is named."""
    from mlops_llm import component

    component.load("mlops_llm.eval.metrics")  # in a notebook nothing has been looked for yet
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


def _settled(questions: Questions, metrics: dict[str, Metric]) -> dict[str, Metric]:
    """The metrics, which count by all rows from now on.

    Raises:
        UserError: rows lack what a metric needs; they are named.
    """
    rows = [Item("", one.references, one.label) for one in questions.asked]
    for name, metric in metrics.items():
        if metric.needs is not Need.nothing:
            field = "label" if metric.needs is Need.label else "reference"
            there = [one.label is not None if field == "label" else bool(one.references) for one in questions.asked]
            _refuse_lacking(questions, there, field, f"metric.{name}")
        metric.check(rows)
    return {name: metric.settled(rows) for name, metric in metrics.items()}


def _refuse_conversations(questions: Questions, model: str) -> None:
    """See that no row needs a chat template of the model's own: a made one is none that it was trained with.

    Raises:
        UserError: rows hold more than one question.
    """
    several = [place for place, one in zip(questions.rows, questions.asked, strict=True) if len(one.turns) > 1 or one.tools]
    if several:
        where = questions.source.where(several[0])
        what = f"has no chat template, and {len(several)} of {len(questions.rows)} rows are conversations (the first: {where})"
        raise UserError(what, model, "put the chat_template.jinja of its family beside its files, or give rows of one prompt")


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
        what = digest.row({"turns": one.turns, "tools": one.tools})  # a reference that is corrected draws no other answer
        seed = int(digest.text(f"{settings.seed}:{what}")[:7], 16)
        text = prompted(found.tokenizer, one, where) if found else ""
        made.append(Request(number, one.turns, text, seed, one.tools))
    return tuple(made)


def _refuse_pictures(one: Question, where: str) -> None:
    for turn in one.turns:
        if turn.get("content") is not None and not isinstance(turn["content"], str):
            raise UserError("holds more than text, which no engine here takes", where, "leave pictures out, or the row")


def _check_room(settings: Eval, requests: Sequence[Request], found: Subject | None) -> tuple[str, ...]:
    """What is to be said of answers that have less room than they may have tokens.

    Raises:
        UserError: prompts leave no room at all.
    """
    if found is None or found.window is None:
        return ()
    counts, most = lengths(found.tokenizer, [one.text for one in requests]), settings.sampling.max_new_tokens
    full = [each for each in counts if each >= found.window]
    if full:
        raise UserError(
            f"{len(full)} of {len(counts)} prompts (up to {max(full)} tokens) fill the model's {found.window} tokens",
            str(settings.dataset),
            "leave these rows out, or take a model with a larger window",
        )
    short = sum(found.window - each < most for each in counts)
    if not short:
        return ()
    said = f"{short} of {len(counts)} answers have room for fewer than {most} tokens: the model's window is {found.window}"
    console.warn(said)
    return (said,)


def _check_references(questions: Questions, found: Subject) -> None:
    """See that the model takes in each prompt with its first reference, whose likelihood is wanted.

    Raises:
        UserError: it does not.
    """
    window = found.window
    if window is None:
        return
    counts = [len(answered(found.tokenizer, one, one.references[0])[0]) for one in questions.asked]
    full = [each for each in counts if each > window]
    if full:
        what = (
            f"{len(full)} of {len(counts)} prompts with their reference (up to {max(full)} tokens) exceed the model's {window}"
        )
        raise UserError(what, "metric", "leave these rows out, or the metric of likelihoods")
