"""An evaluation: answers, scores, ratings, and what they come to."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_llm.component import name_of
from mlops_llm.eval import recording, scores
from mlops_llm.eval.benchmarks import seen
from mlops_llm.eval.config import Cache
from mlops_llm.eval.groups import groups
from mlops_llm.eval.judge import Rated, Verdict, conversation, verdict
from mlops_llm.eval.live import Mean, of_answers
from mlops_llm.eval.metric import Item, Likelihood, Need
from mlops_llm.eval.opened import Opened
from mlops_llm.eval.outcome import Outcome, Sample
from mlops_llm.eval.overlap import Checked
from mlops_llm.eval.plan import Plan
from mlops_llm.eval.rendering import answered
from mlops_llm.eval.score import generation, scored
from mlops_llm.eval.scores import Scored
from mlops_llm.eval.search import of_model
from mlops_llm.eval.taken import Taken, facts, warnings
from mlops_llm.inference.cache import Answers, key
from mlops_llm.inference.engine import Class, Failure, Generation
from mlops_llm.inference.footprint import Footprint, gpu_peak
from mlops_llm.models import digested, load, template
from mlops_llm.record import NullRun, Result, Run

if TYPE_CHECKING:
    from mlops_llm.eval.benchmarks.running import Found

ANSWERS, LIKELIHOODS, RATINGS, LEDGER = "answers.jsonl", "likelihoods.jsonl", "ratings.jsonl", "judge_calls.jsonl"
"""Files in the run's folder from which an evaluation goes on."""


def evaluate(plan: Plan, run: Run | None = None) -> Result:
    """Carry an evaluation out and record it.

    Raises:
        UserError: the model cannot be opened, or a server refuses every request; what was answered stays in the run's folder.
    """
    run = run or NullRun()
    recording.inputs(plan, run)
    folder = Path(str(plan.settings.output or "."))
    outcome, taken = carried_out(plan, folder)
    result = recording.result(plan, outcome, taken, run)
    if not plan.settings.save_outputs:
        forget(folder)
    return result


def carried_out(plan: Plan, folder: Path) -> tuple[Outcome, Taken]:
    """What an evaluation finds, and what it took.

    Args:
        plan: what is to be done.
        folder: where answers are kept as they come; those that are there are not asked for again.

    Raises:
        UserError: see `evaluate`.
    """
    taken, began = Taken(), time.perf_counter()
    answers = Answers() if plan.settings.cache is not Cache.off else None
    try:
        with Footprint() as footprint:
            with Opened(plan) as opened:
                told = _told(plan, opened, folder, answers, taken)
                found = _benchmarks(plan, opened, folder, answers, taken)
                taken.opening, taken.gpu = opened.seconds, gpu_peak()
            found = _overlap(plan, found, taken)
            outcome = _with_benchmarks(plan, _outcome(plan, told, taken), found)
    finally:
        if answers:
            answers.close()
    taken.seconds, taken.peak = time.perf_counter() - began - taken.opening, footprint.peak
    return dataclasses.replace(outcome, facts={**outcome.facts, **facts(plan, taken, outcome)}), taken


@dataclass
class _Told:
    """What the model and the judge said of the dataset's rows; None of what was not asked."""

    answers: Sequence[Generation | Failure] | None = None
    likelihoods: Sequence[tuple[Likelihood | None, Likelihood]] | None = None
    verdicts: Sequence[Verdict | Failure] | None = None


def _told(plan: Plan, opened: Opened, folder: Path, answers: Answers | None, taken: Taken) -> _Told:
    told = _Told()
    if plan.answers:
        told.answers = _answers(plan, opened, folder, answers, taken)
    if any(one.needs.is_likelihood for one in plan.metrics.values()):
        told.likelihoods = _likelihoods(plan, opened, folder, answers, taken)
    if plan.settings.judge is not None and told.answers:
        told.verdicts = _ratings(plan, told.answers, folder, answers, taken)
    return told


def _benchmarks(plan: Plan, opened: Opened, folder: Path, answers: Answers | None, taken: Taken) -> list[Found]:
    if not plan.benchmarks:
        return []
    from mlops_llm.eval.benchmarks import running

    about = {}
    if plan.subject:
        about = {"weights": plan.subject.digest, "template": template.template_digest(plan.subject.tokenizer)}
    found = [running.run(one, plan.settings, lambda: opened.session, folder, about, answers) for one in plan.benchmarks]
    taken.counts |= {one.name: one.counts for one in found}
    taken.of_benchmarks = sum(len(one.scores) for one in found)
    taken.results = {one.name: one.results for one in found}
    return found


def _overlap(plan: Plan, found: Sequence[Found], taken: Taken) -> list[Found]:
    """Look for all that was asked in what the model was trained on, in one pass; return what benchmarks found with it."""
    place = plan.subject.place if plan.subject and not plan.subject.session else None
    own = [plan.questions.asked] if plan.questions else []
    sets = [*own, *(seen.questions(one.samples) for one in found)]
    checked = of_model(sets, place, digested.weights_digest(place) if place else "", plan.settings.overlap)
    if checked is None:
        return list(found)
    of_found = checked[len(own) :]
    taken.overlap = checked[0] if own else None
    taken.overlaps = {one.name: (each, one.samples) for one, each in zip(found, of_found, strict=True)}
    return [seen.stamped(one, each.seen) for one, each in zip(found, of_found, strict=True)]


def forget(folder: Path) -> None:
    """Remove what is kept so that a stopped evaluation can go on: it holds what was asked and answered."""
    from mlops_llm.eval.benchmarks.running import FOLDER

    for name in (ANSWERS, LIKELIHOODS, RATINGS):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _outcome(plan: Plan, told: _Told, taken: Taken) -> Outcome:
    parts, items = list[Scored](), list[Item]()
    if plan.questions:
        asked, given = plan.questions.asked, told.answers
        failed = [isinstance(each, Failure) for each in given] if given else [False] * len(asked)
        items = scores.items(asked, given, told.likelihoods)
        known = taken.overlap.seen if taken.overlap else []
        parts.append(scores.measured(plan.metrics, items, failed, known))
        if told.verdicts:
            parts.append(scores.rated(told.verdicts, failed, plan.settings.judge, known))
    whole = scores.joined(parts)
    samples = _samples(plan, told, whole, taken.overlap) if plan.questions else []
    return Outcome(
        title=f"{plan.model} on {plan.questions.name if plan.questions else ', '.join(plan.settings.benchmark)}",
        model=plan.model,
        dataset=plan.questions.title if plan.questions else "",
        engine=name_of(plan.settings.engine),
        scores=whole.scores,
        samples=samples if plan.settings.save_outputs else [each.bare for each in samples],
        facts={},
        groups=groups(samples, items, plan.metrics.values()),
        tables=whole.tables,
        warnings=[*plan.warnings, *warnings(plan, taken)],
    )


def _with_benchmarks(plan: Plan, outcome: Outcome, found: Sequence[Found]) -> Outcome:
    if not found:
        return outcome
    from mlops_llm.eval.benchmarks import running

    if not plan.settings.save_outputs:
        found = [dataclasses.replace(one, samples=[each.bare for each in one.samples]) for one in found]
    names = [*([plan.questions.name] if plan.questions else []), *(one.name for one in found)]
    title = f"{plan.model} on {', '.join(names)}"
    return dataclasses.replace(running.added(outcome, found), title=title)


def _answers(plan: Plan, opened: Opened, folder: Path, answers: Answers | None, taken: Taken) -> list[Generation | Failure]:
    def ask(places: Sequence[int]) -> Iterable[tuple[int, Generation | Failure]]:
        asked = [plan.requests[place] for place in places]
        return counted(opened.session.generate(asked, plan.settings.sampling, plan.settings.care))

    def counted(given: Iterable[tuple[int, Generation | Failure]]) -> Iterable[tuple[int, Generation | Failure]]:
        began = time.perf_counter()
        for place, each in given:
            taken.add(each)
            taken.answering = time.perf_counter() - began
            yield place, _unempty(each)

    found, taken.counts["answers"] = scored(
        plan.keys(),
        ask,
        generation,
        folder / ANSWERS,
        what="answers",
        answers=answers if plan.cache is not Cache.off else None,
        refresh=plan.settings.cache is Cache.refresh,
        note=of_answers(plan),
    )
    return found


def _unempty(given: Generation | Failure) -> Generation | Failure:
    if isinstance(given, Generation) and not given.text.strip():
        return Failure(Class.empty, f"the answer has no text ({given.tokens} tokens)", given.seconds)
    return given


def _likelihoods(
    plan: Plan, opened: Opened, folder: Path, answers: Answers | None, taken: Taken
) -> list[tuple[Likelihood | None, Likelihood]]:
    """Of each row's first reference: with the prompt, where a metric needs that, and alone.

    Raises:
        UserError: the engine cannot tell them.
    """
    assert plan.questions and plan.subject
    tokenizer = plan.subject.tokenizer
    coded = [answered(tokenizer, one, one.references[0]) for one in plan.questions.asked]
    with_prompt = any(one.needs is Need.whole for one in plan.metrics.values())
    begins, engine = [1 if with_prompt else begin for _, begin in coded], plan.settings.engine
    facts = {"weights": plan.subject.digest, "dtype": load.dtype_of(plan.settings.model_load.dtype).name}
    keys = [
        key(likelihood=ids, begin=begin, engine=[engine.family, engine.decisive], **facts)
        for (ids, _), begin in zip(coded, begins, strict=True)
    ]

    def ask(places: Sequence[int]) -> Iterable[tuple[int, _Logprobs]]:
        sequences, firsts = [coded[place][0] for place in places], [begins[place] for place in places]
        how = plan.settings.sampling.batch_size, plan.settings.care
        found = opened.session.logprobs(sequences, firsts, *how)
        return ((places[number], _Logprobs(values)) for number, values in found)

    found, taken.counts["likelihoods"] = scored(
        keys,
        ask,
        lambda row: _Logprobs(row["values"]),
        folder / LIKELIHOODS,
        what="likelihoods",
        answers=answers,
        refresh=plan.settings.cache is Cache.refresh,
    )
    made = []
    for one, (ids, place), begin, each in zip(plan.questions.asked, coded, begins, found, strict=True):
        values = each.values if isinstance(each, _Logprobs) else []
        whole = Likelihood(values, len(tokenizer.decode(ids[1:]).encode())) if with_prompt else None
        made.append((whole, Likelihood(values[place - begin :], len(one.references[0].encode()))))
    return made


@dataclass(frozen=True)
class _Logprobs:
    values: list[float]


def _ratings(
    plan: Plan, given: Sequence[Generation | Failure], folder: Path, answers: Answers | None, taken: Taken
) -> list[Verdict | Failure]:
    """What the judge says; an answer that is none is not rated."""
    assert plan.questions
    asked, judge = plan.questions.asked, plan.settings.judge
    rows = {
        place: Rated(place, conversation(asked[place].turns), one.text, asked[place].references)
        for place, one in enumerate(given)
        if isinstance(one, Generation)
    }
    version = judge.version()
    to = [key(rated=dataclasses.asdict(rows[each]) if each in rows else None, judge=version) for each in range(len(given))]

    def ask(places: Sequence[int]) -> Iterable[tuple[int, Verdict | Failure]]:
        yield from ((each, Failure(Class.empty, "there is no answer to rate")) for each in places if each not in rows)
        yield from judge.rate(
            [rows[each] for each in places if each in rows], answers, plan.settings.cache is Cache.refresh, folder / LEDGER
        )

    found, taken.counts["ratings"] = scored(
        to,
        ask,
        verdict,
        folder / RATINGS,
        what="ratings",
        note=Mean[Verdict]("rating", lambda place, one: judge.overall(one.scores)),
    )
    return found


def _samples(plan: Plan, told: _Told, whole: Scored, overlap: Checked | None) -> list[Sample]:
    assert plan.questions
    made = []
    known = overlap.seen if overlap else [None] * len(plan.questions.rows)
    for number, (place, one) in enumerate(zip(plan.questions.rows, plan.questions.asked, strict=True)):
        answer = told.answers[number] if told.answers else None
        said = told.verdicts[number] if told.verdicts else None
        failure = next((each for each in (answer, said) if isinstance(each, Failure)), None)
        values = {name: items[number] for name, items in whole.items.items()}
        made.append(
            Sample(
                place,
                conversation(one.turns),
                answer.text if isinstance(answer, Generation) else "",
                one.references,
                one.label,
                one.metadata,
                {name: value for name, value in values.items() if value is not None},
                said.comment if isinstance(said, Verdict) else "",
                failure,
                answer.seconds if answer else 0.0,
                answer.tokens if isinstance(answer, Generation) else 0,
                isinstance(answer, Generation) and answer.cut,
                said.flags if isinstance(said, Verdict) else (),
                known[number],
                one.text if len(one.turns) > 1 else "",
            )
        )
    return made
