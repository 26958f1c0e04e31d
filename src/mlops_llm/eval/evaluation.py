"""An evaluation: answers, scores, ratings, and what they come to."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_llm import console
from mlops_llm.component import name_of
from mlops_llm.eval import recording, scores
from mlops_llm.eval.config import Cache
from mlops_llm.eval.groups import groups
from mlops_llm.eval.judge import Rated, Verdict, conversation, verdict
from mlops_llm.eval.live import Mean, of_answers
from mlops_llm.eval.metric import Item, Likelihood, Need
from mlops_llm.eval.opened import Opened
from mlops_llm.eval.outcome import Outcome, Sample
from mlops_llm.eval.overlap import Checked, of_model
from mlops_llm.eval.plan import Plan
from mlops_llm.eval.prompts import answered
from mlops_llm.eval.score import Counts, generation, scored
from mlops_llm.eval.scores import Scored
from mlops_llm.inference.cache import Answers, key
from mlops_llm.inference.engine import Class, Failure, Generation
from mlops_llm.inference.footprint import Footprint, gpu_peak
from mlops_llm.models import load, template
from mlops_llm.models.ref import Place
from mlops_llm.record import NullRun, Result, Run

ANSWERS, LIKELIHOODS, RATINGS = "answers.jsonl", "likelihoods.jsonl", "ratings.jsonl"
"""Files in the run's folder from which an evaluation goes on."""


@dataclass
class Taken:
    """What the asking took."""

    seconds: float = 0.0
    """Without opening the model."""
    opening: float = 0.0
    peak: int = 0
    gpu: int | None = None
    counts: dict[str, Counts] = field(default_factory=dict)
    results: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Benchmark -> lm-eval's own tables."""
    of_benchmarks: int = 0
    """How many of the scores, the last ones, are of benchmarks."""
    tokens: int = 0
    """Of all answers that were asked now."""
    answering: float = 0.0
    """How long these took, from the first request to the last answer."""
    overlap: Checked | None = None
    """Which questions the model was trained on."""
    overlaps: dict[str, tuple[Checked, Sequence[Sample]]] = field(default_factory=dict)
    """Benchmark -> which of its items the model was trained on."""


def evaluate(plan: Plan, run: Run | None = None) -> Result:
    """Carry an evaluation out and record it.

    Raises:
        UserError: the model cannot be opened, or a server refuses every request; what was answered stays in the run's folder.
    """
    run = run or NullRun()
    recording.inputs(plan, run)
    folder, taken = Path(str(plan.settings.output or ".")), Taken()
    began = time.perf_counter()
    answers = Answers() if plan.settings.cache is not Cache.off else None
    try:
        with Footprint() as footprint, Opened(plan) as opened:
            outcome = _with_benchmarks(plan, _outcome(plan, opened, folder, answers, taken), opened, folder, answers, taken)
            taken.opening, taken.gpu = opened.seconds, gpu_peak()
    finally:
        if answers:
            answers.close()
    taken.seconds, taken.peak = time.perf_counter() - began - taken.opening, footprint.peak
    outcome = dataclasses.replace(outcome, facts={**outcome.facts, **_facts(plan, taken, outcome)})
    return recording.result(plan, outcome, taken, run)


def _outcome(plan: Plan, opened: Opened, folder: Path, answers: Answers | None, taken: Taken) -> Outcome:
    given, likely, items = None, None, list[Item]()
    if plan.answers:
        given = _answers(plan, opened, folder, answers, taken)
    if any(one.needs is Need.likelihood for one in plan.metrics.values()):
        likely = _likelihoods(plan, opened, folder, answers, taken)
    parts, verdicts = list[Scored](), None
    if plan.questions:
        asked = plan.questions.asked
        failed = [isinstance(each, Failure) for each in given] if given else [False] * len(asked)
        items = scores.items(asked, given, likely)
        taken.overlap = _overlap(plan)
        seen = taken.overlap.seen if taken.overlap else []
        parts.append(scores.measured(plan.metrics, items, failed, seen))
        if plan.settings.judge is not None and given:
            verdicts = _ratings(plan, given, folder, answers, taken)
            parts.append(scores.rated(verdicts, failed, plan.settings.judge, seen))
    whole = scores.joined(parts)
    samples = _samples(plan, given, verdicts, whole, taken.overlap) if plan.questions else []
    return Outcome(
        title=f"{plan.model} on {plan.questions.name if plan.questions else ', '.join(plan.settings.benchmark)}",
        model=plan.model,
        dataset=f"{plan.questions.name} ({plan.questions.source.version})" if plan.questions else "",
        engine=name_of(plan.settings.engine),
        scores=whole.scores,
        samples=samples,
        facts={},
        groups=groups(samples, items, plan.metrics.values()),
        tables=whole.tables,
        warnings=plan.warnings,
    )


def _with_benchmarks(
    plan: Plan, outcome: Outcome, opened: Opened, folder: Path, answers: Answers | None, taken: Taken
) -> Outcome:
    if not plan.benchmarks:
        return outcome
    from mlops_llm.eval.benchmarks import overlap, running

    about = {}
    if plan.subject:
        about = {"weights": plan.subject.digest, "template": template.template_digest(plan.subject.tokenizer)}
    found = [running.run(one, plan.settings, lambda: opened.session, folder, about, answers) for one in plan.benchmarks]
    for number, one in enumerate(found):
        found[number], checked = overlap.stamped(one, *_weights(plan), plan.settings.overlap)
        if checked:
            taken.overlaps[one.name] = checked, one.samples
    taken.counts |= {one.name: one.counts for one in found}
    taken.of_benchmarks = sum(len(one.scores) for one in found)
    taken.results = {one.name: one.results for one in found}
    names = [*([plan.questions.name] if plan.questions else []), *(one.name for one in found)]
    title = f"{plan.model} on {', '.join(names)}"
    return dataclasses.replace(running.added(outcome, found), title=title)


def _answers(plan: Plan, opened: Opened, folder: Path, answers: Answers | None, taken: Taken) -> list[Generation | Failure]:
    def ask(places: Sequence[int]) -> Iterable[tuple[int, Generation | Failure]]:
        session, began = opened.session, time.perf_counter()
        for place, each in session.generate(
            [plan.requests[place] for place in places], plan.settings.sampling, plan.settings.care
        ):
            taken.tokens += each.tokens if isinstance(each, Generation) else 0
            taken.answering = time.perf_counter() - began
            yield place, _unempty(each)

    found, taken.counts["answers"] = scored(
        len(plan.requests),
        ask,
        generation,
        folder / ANSWERS,
        what="answers",
        keys=plan.keys(),
        answers=answers,
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
) -> list[tuple[Likelihood, Likelihood]]:
    """Of each row's first reference: with the prompt, and alone.

    Raises:
        UserError: the engine cannot tell them.
    """
    assert plan.questions and plan.subject
    tokenizer = plan.subject.tokenizer
    coded = [answered(tokenizer, one, one.references[0]) for one in plan.questions.asked]
    facts, engine = {"weights": plan.subject.digest, "dtype": plan.settings.model_load.dtype.name}, plan.settings.engine
    keys = [key(likelihood=ids, engine=[engine.family, engine.decisive], **facts) for ids, _ in coded]

    def ask(places: Sequence[int]) -> Iterable[tuple[int, _Logprobs]]:
        sequences = [coded[place][0] for place in places]
        how = plan.settings.sampling.batch_size, plan.settings.care
        for number, values in opened.session.logprobs(sequences, [1] * len(sequences), *how):
            yield places[number], _Logprobs(values)

    found, taken.counts["likelihoods"] = scored(
        len(coded),
        ask,
        lambda row: _Logprobs(row["values"]),
        folder / LIKELIHOODS,
        what="likelihoods",
        keys=keys,
        answers=answers,
        refresh=plan.settings.cache is Cache.refresh,
    )
    made = []
    for one, (ids, begin), each in zip(plan.questions.asked, coded, found, strict=True):
        values = each.values if isinstance(each, _Logprobs) else []
        wanted = values[begin - 1 :]
        whole = len(tokenizer.decode(ids[1:]).encode())
        made.append((Likelihood(values, whole), Likelihood(wanted, len(one.references[0].encode()))))
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
    there = {place: one for place, one in enumerate(given) if isinstance(one, Generation)}

    def ask(places: Sequence[int]) -> Iterable[tuple[int, Verdict | Failure]]:
        rows = [
            Rated(each, conversation(asked[each].turns), there[each].text, asked[each].references)
            for each in places
            if each in there
        ]
        yield from ((each, Failure(Class.empty, "there is no answer to rate")) for each in places if each not in there)
        yield from judge.rate(rows, answers, plan.settings.cache is Cache.refresh)

    found, taken.counts["ratings"] = scored(
        len(given),
        ask,
        verdict,
        folder / RATINGS,
        what="ratings",
        note=Mean[Verdict]("rating", lambda place, one: judge.overall(one.scores)),
    )
    return found


def _overlap(plan: Plan) -> Checked | None:
    """Which questions the model was trained on, as far as the record knows."""
    assert plan.questions
    return of_model(plan.questions.asked, *_weights(plan), plan.settings.overlap)


def _weights(plan: Plan) -> tuple[Place | None, str]:
    """Where the model is, and the digest of what lies there."""
    place = plan.subject.place if plan.subject else None
    return place, load.weights_digest(place) if place else ""


def _samples(
    plan: Plan,
    given: Sequence[Generation | Failure] | None,
    verdicts: Sequence[Verdict | Failure] | None,
    whole: Scored,
    overlap: Checked | None,
) -> list[Sample]:
    assert plan.questions
    made = []
    seen = overlap.seen if overlap else [None] * len(plan.questions.rows)
    for number, (place, one) in enumerate(zip(plan.questions.rows, plan.questions.asked, strict=True)):
        answer = given[number] if given else None
        said = verdicts[number] if verdicts else None
        failure = next((each for each in (answer, said) if isinstance(each, Failure)), None)
        values = {name: items[number] for name, items in whole.items.items()}
        made.append(
            Sample(
                place,
                one.text,
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
                seen[number],
            )
        )
    return made


def _facts(plan: Plan, taken: Taken, outcome: Outcome) -> dict[str, str]:
    """What a person wants to know besides the scores."""
    how = plan.settings.sampling
    drawn = "greedy" if how.greedy else f"temperature {how.temperature:g}, top-p {how.top_p:g}, seed {plan.settings.seed}"
    facts = {"sampling": f"{drawn}, at most {how.max_new_tokens} tokens"} if plan.answers else {}
    counts = taken.counts.get("answers")
    if counts:
        parts = {"asked": counts.asked, "known from before": counts.cached, "of this run before it stopped": counts.resumed}
        facts["answers"] = ", ".join(f"{count} {what}" for what, count in parts.items() if count)
    seconds = [each.seconds for each in outcome.samples if each.seconds]
    if seconds:
        facts["seconds a sample"] = f"{sum(seconds) / len(seconds):.3f}"
    if taken.answering:
        facts["tokens/s"] = f"{taken.tokens / taken.answering:.1f}"
    facts["opening the model"] = console.seconds(taken.opening) if taken.opening else "not needed"
    facts["peak memory"] = console.size(taken.peak)
    if taken.gpu is not None:
        facts["peak GPU memory"] = console.size(taken.gpu)
    if plan.settings.judge is not None:
        facts |= dict(plan.settings.judge.facts())
    if taken.overlap:
        facts |= taken.overlap.facts()
    for name, (checked, _) in taken.overlaps.items():
        facts |= {f"{name}: {key}": value for key, value in checked.facts().items()}
    return facts
