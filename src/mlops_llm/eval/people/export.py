"""Answers into raters' files, and the key into the record."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlops_llm import console
from mlops_llm.component import build
from mlops_llm.errors import UserError, need
from mlops_llm.eval import several
from mlops_llm.eval.config import Eval
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.outcome import Sample
from mlops_llm.eval.people import workbook
from mlops_llm.eval.people.ballot import EVALUATION, KEY, Answer, Ballot, Kind, Line, Model, lines, marked
from mlops_llm.eval.people.cells import Fitted, mark
from mlops_llm.eval.people.words import WORDS
from mlops_llm.eval.plan import Plan, prepare
from mlops_llm.record import Result, Run

_UNNAMED = ("models:", "runs:", "best", "last", "checkpoint")


@dataclass(frozen=True)
class Wanted:
    """How raters are asked."""

    file: Path
    raters: int
    dimensions: tuple[str, ...]
    lang: Lang
    checks: int
    repeats: int
    save_outputs: bool = True
    """Keep what the models answered in the run's folder."""
    forms: tuple[str, ...] = ()
    """Endings of each rater's files, without the dot; none is the file's own."""

    @property
    def files(self) -> list[list[Path]]:
        """Those of each rater, with the same rows."""
        endings = [f".{each}" for each in self.forms] or [self.file.suffix]
        stems = [self.file.stem] if self.raters == 1 else [f"{self.file.stem}-{each}" for each in range(1, self.raters + 1)]
        return [[self.file.with_name(f"{stem}{ending}") for ending in endings] for stem in stems]


def plans(settings: Eval) -> list[Plan]:
    """What gives the answers of each model: without metrics, since people say how good they are.

    Raises:
        UserError: something does not fit one of the models, or no rows are named.
    """
    bare = replace(
        settings,
        metric={"length": build("metric", "length")},
        judge=None,
        benchmark=[],
        overlap=replace(settings.overlap, check=False),
        save_outputs=True,  # without, nobody would be told the answers
    )
    if not settings.dataset:
        raise UserError("names no rows", "dataset", "give dataset=REF")
    if len(settings.models) > 1:
        return several.plans(bare)
    return [prepare(replace(bare, model=settings.models[0] if settings.models else settings.model))]


def refuse(wanted: Wanted, models: Sequence[str]) -> None:
    """See that the files can be written, and that no name tells who answered.

    Raises:
        UserError: a file is there already, its folder cannot be written, or its name has a model's in it.
    """
    if wanted.file.suffix.lower() not in workbook.ENDINGS:
        raise UserError(f"is '{wanted.file.name}'", "op.file", "end it in .xlsx or .csv")
    files = [each for some in wanted.files for each in some]
    if wanted.file.suffix.lower() not in {each.suffix.lower() for each in files}:
        raise UserError(f"is '{wanted.file.name}'", "op.file", f"op.format=[{','.join(wanted.forms)}] has other endings")
    if any(each.suffix.lower() == ".xlsx" for each in files):
        need("openpyxl", "report")
    told = next((name for each in models for name in _names(each) if name in wanted.file.stem.casefold()), None)
    if told:
        raise UserError(f"has '{told}' in its name, which tells raters the model", "op.file", "choose another name")
    there = next((each for each in files if each.exists()), None)
    if there:
        raise UserError("is there already, maybe filled in", str(there), "choose another op.file, or remove it")
    _refuse_closed(wanted.file.absolute().parent)


def _refuse_closed(folder: Path) -> None:
    """See that a folder can be written, without making it yet."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir():
        raise UserError("is a file, not a folder", str(there), "choose another op.file")
    if not os.access(there, os.W_OK):
        raise UserError("is not writable", str(there), "choose another op.file, or mend its rights")


def _names(ref: str) -> list[str]:
    """The words by which people know a model."""
    parts = (each.casefold() for each in re.split(r"[/@\\]", ref))
    return [each for each in parts if len(each) > 2 and not each.startswith(_UNNAMED)]


def export(plans: Sequence[Plan], wanted: Wanted, run: Run) -> Result:
    """Ask the models what is not known yet, write the files, and record the key.

    Raises:
        UserError: a model cannot be opened, gives no answer at all, or a file cannot be written.
    """
    settings, words = plans[0].settings, WORDS[wanted.lang]
    models = apart([Model(each.model, each.subject.checkpoint if each.subject else None) for each in plans])
    for each in models:
        if each.checkpoint:
            run.uses(each.checkpoint)
    assert plans[0].questions
    dataset = plans[0].questions.as_input()
    run.input(dataset)
    samples = _answers(plans, Path(str(settings.output or ".")) / "answers", wanted.save_outputs)
    given = [(number, one) for number, some in enumerate(samples) for one in some]
    answered = [(number, one) for number, one in given if one.answer]
    if not answered:
        raise UserError("no model gave an answer", remedy="look at answers.jsonl in the run's folder for the causes")
    fitted = Fitted(words.cut)
    texts = [(fitted.text(one.prompt), fitted.text(one.answer)) for _, one in answered]
    ballot = Ballot(
        f"h{uuid.uuid4().hex[:12]}",
        wanted.dimensions,
        dataset,
        tuple(models),
        tuple(Answer(one.place, number, mark(one.answer), len(one.answer)) for number, one in answered),
        tuple((one.place, number) for number, one in given if not one.answer),
    )
    sheets = []
    for rater, paths in enumerate(wanted.files, 1):
        drafts = lines(ballot, rater, settings.seed, wanted.checks, wanted.repeats)
        shown = [_shown(each, texts, words.check) for each in drafts]
        whole = marked(drafts, [(mark(prompt), mark(answer)) for prompt, answer in shown])
        sheets += [workbook.Sheet(path, ballot.evaluation, rater, wanted.dimensions, whole, shown) for path in paths]
    ballot = replace(ballot, lines={each.id: each for sheet in sheets for each in sheet.lines})
    run.tags({EVALUATION: ballot.evaluation, "human.models": json.dumps([each.ref for each in models], ensure_ascii=False)})
    run.artifact(KEY, ballot.as_json())
    workbook.write(sheets, words)
    return _result(ballot, wanted, fitted, _telling(answered, models))


def _answers(plans: Sequence[Plan], folder: Path, keep: bool) -> list[Sequence[Sample]]:
    """What each model says; the folder has it afterwards only where that is wanted."""
    try:
        return [each.outcome.samples for each in several.evaluated(list(plans), folder)]
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def apart(models: Sequence[Model]) -> list[Model]:
    """Models whose checkpoints have names of their own: those of two runs may have the same."""
    made, names = list[Model](), set[str]()
    for number, each in enumerate(models, 1):
        if each.checkpoint and each.checkpoint.name in names:
            each = replace(each, checkpoint=replace(each.checkpoint, name=f"{each.checkpoint.name}-{number}"))
        names |= {each.checkpoint.name} if each.checkpoint else set()
        made.append(each)
    return made


def _shown(line: Line, texts: Sequence[tuple[str, str]], check: str) -> tuple[str, str]:
    prompt, answer = texts[line.answer]
    return (prompt, check.format(score=line.wanted)) if line.wanted else (prompt, answer)


def _telling(answered: Sequence[tuple[int, Sample]], models: Sequence[Model]) -> int:
    """Answers that say a model's name themselves."""
    names = {name for each in models for name in _names(each.ref)}
    found = re.compile("|".join(rf"(?<![\w]){re.escape(each)}(?![\w])" for each in sorted(names)), re.IGNORECASE)
    return sum(bool(found.search(one.answer)) for _, one in answered) if names else 0


def _result(ballot: Ballot, wanted: Wanted, fitted: Fitted, telling: int) -> Result:
    if telling:
        console.warn(f"answers that name a model themselves, so that raters may guess who gave them: {telling}")
    counts = Counter(each.kind for each in ballot.lines.values() if each.rater == 1)
    asked = f"{counts[Kind.answer]} answers, {counts[Kind.repeat]} of them twice, {counts[Kind.check]} checks of attention"
    files = ",".join(f"'{each[0]}'" if "," in str(each[0]) else str(each[0]) for each in wanted.files)
    table = {
        "evaluation": ballot.evaluation,
        "files": ", ".join(str(each) for some in wanted.files for each in some),
        "models": ", ".join(each.ref for each in ballot.models),
        "dataset": ballot.dataset.name,
        "rows in each file": f"{counts.total()} ({asked})",
        "not asked about": f"{len(ballot.none)} that are no answer; they have the worst rating" if ballot.none else "",
        "characters replaced": fitted.replaced or "",
        "texts cut": fitted.shortened or "",
        "take them back with": f"python -m mlops_llm.eval op=human_import {shlex.quote(f'op.files=[{files}]')}",
    }
    values = {"replaced": fitted.replaced, "cut": fitted.shortened, "rows": counts.total(), "none": len(ballot.none)}
    return Result("for people to rate", {name: each for name, each in table.items() if each != ""}, values)
