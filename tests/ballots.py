"""An evaluation by people without a model: two models, some rows, and files that raters filled in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from openpyxl import load_workbook

from mlops_llm.eval.lang import Lang
from mlops_llm.eval.people import ballot as ballots
from mlops_llm.eval.people import workbook
from mlops_llm.eval.people.ballot import Answer, Ballot, Kind, Line, Model
from mlops_llm.eval.people.cells import Fitted, mark
from mlops_llm.eval.people.words import WORDS
from mlops_llm.record import Checkpoint, DatasetInput

DIMENSIONS = ("accuracy", "fluency")
MODELS = ("models:/sales@challenger", "runs:/secret-run/best")
Score = Callable[[Line, Answer, str], Any]


def ballot(rows: int = 8, models: int = 2) -> Ballot:
    """Answers of two models to some rows."""
    dataset = DatasetInput("sales_eval", "v1", "sales_eval.jsonl", "evaluation", rows, {"raw": "r" * 64, "canonical": "c" * 64})
    names = tuple(
        Model(ref, Checkpoint(f"checkpoint-{number}", number, Path("/model"), {"digest.weights": ref}))
        for number, ref in enumerate(MODELS[:models])
    )
    answers = tuple(Answer(place, model, mark(answer(place, model)), 9) for place in range(rows) for model in range(models))
    return Ballot("h0123456789ab", DIMENSIONS, dataset, names, answers)


def answer(place: int, model: int) -> str:
    """What a model says."""
    return f"回答 {place} 之 {'甲乙'[model]}"


def sheets(
    found: Ballot,
    folder: Path,
    raters: int = 1,
    ending: str = ".xlsx",
    lang: Lang = Lang.zh,
    texts: Mapping[int, tuple[str, str]] | None = None,
    **how: int,
) -> tuple[Ballot, list[Path]]:
    """Write the raters' files; `texts` gives answers other ones."""
    how = {"seed": 0, "checks": 2, "repeats": 2} | how
    fitted, made = Fitted(WORDS[lang].cut), []
    for rater in range(1, raters + 1):
        drafts = ballots.lines(found, rater, **how)
        shown = [text(each, found, fitted, texts or {}) for each in drafts]
        lines = ballots.marked(drafts, [(mark(prompt), mark(said)) for prompt, said in shown])
        path = folder / f"rate-{rater}{ending}"
        made.append(workbook.Sheet(path, found.evaluation, rater, found.dimensions, lines, shown))
    workbook.write(made, WORDS[lang])
    return dataclasses.replace(found, lines={one.id: one for each in made for one in each.lines}), [each.path for each in made]


def text(line: Line, found: Ballot, fitted: Fitted, texts: Mapping[int, tuple[str, str]]) -> tuple[str, str]:
    """Prompt and answer of a line."""
    of = found.answers[line.answer]
    prompt, said = texts.get(line.answer, (f"问题 {of.place}", answer(of.place, of.model)))
    return fitted.text(prompt), f"请填 {line.wanted}" if line.kind is Kind.check else fitted.text(said)


def fill(path: Path, found: Ballot, score: Score, out: Path | None = None) -> Path:
    """Fill a workbook in as a person does."""
    book = load_workbook(path)
    page = book.worksheets[1]
    heads = {each.value: each.column for each in page[1]}
    for row in page.iter_rows(min_row=2):
        line = found.lines[row[heads["编号"] - 1].value]
        for name in found.dimensions:
            said = line.wanted if line.kind is Kind.check else score(line, found.answers[line.answer], name)
            page.cell(row[0].row, heads[WORDS[Lang.zh].label(name)], said)
    book.save(out or path)
    return out or path


def by_model(line: Line, of: Answer, name: str) -> int:
    """The first model is better, by two points."""
    return 4 - 2 * of.model + of.place % 2
