"""The table of checkpoints is readable in any terminal, and the record has all of it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mlops_llm import component, console
from mlops_llm.eval.recording import higher
from mlops_llm.surgery.selection import showing
from mlops_llm.surgery.selection.freeing import Fate, Freeing
from mlops_llm.surgery.selection.rows import Rows
from mlops_llm.surgery.selection.rules import Choice
from mlops_llm.tracking.checkpoints import CheckpointRow
from mlops_llm.tracking.ledger import RunRow

SCORES = ("bleu", "rouge1", "rouge2", "rougeL", "exact_match", "perplexity", "bits_per_byte", "length", "latency_seconds")
BY = ("eval/loss", "score/perplexity")


@pytest.fixture
def selection():
    """A training of three checkpoints with twelve numbers each: rows, choice, plan."""
    run = RunRow("r", "mine", "1", "default", "FINISHED", {}, {}, {})
    numbers = {"train/loss": 4.25, "eval/loss": 4.5, "eval/mean_token_accuracy": 0.375}
    numbers |= {f"score/{name}{end}": 123.456 for name in SCORES for end in ("", "_low", "_high")}
    made = [
        CheckpointRow(f"checkpoint-{step}", f"checkpoint-{step}", step, "READY", "", "r", tags, numbers, dict(numbers))
        for step, tags in ((1000, {}), (2000, {}), (3000, {"overfit": "eval/loss rose"}))
    ]
    del made[1].own["eval/loss"]
    found = Rows(run, made, {})
    chosen, *_ = found.candidates
    choice = Choice(
        chosen, ("x",), {"checkpoint-2000": "has no eval/loss", "checkpoint-3000": "is overfit"}, ("checkpoint-2000",)
    )
    fates = (Fate(made[1], "sales@challenger was made of it", (), 0), Fate(made[2], "", (), 6_400_000))
    return found, choice, Freeing(fates, 6_400_000)


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_no_word_is_broken_and_what_was_asked_for_comes_first(selection, width, capsys, monkeypatch):
    monkeypatch.setattr(console, "width", lambda: width)
    grid = showing.table(*selection, BY, width)
    assert tuple(grid.columns[2:4]) == BY and "more numbers: selection.json" in grid.title
    console.grid(grid.title, grid.columns, grid.rows)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    for word in (*grid.columns, *(cell for row in grid.rows for cell in row if " " not in cell and cell)):
        assert re.search(rf"(?<!\S){re.escape(word)}(?!\S)", out), f"{word} is broken"
    assert "not judged" in out and "stays" in out and "6.4 MB" in out


def test_a_wide_terminal_has_more_numbers(selection):
    widths = [len(showing.table(*selection, BY, width).columns) for width in (80, 120, 160, 1000)]
    assert widths == sorted(widths) and widths[0] < widths[1] < widths[2] < widths[3]
    grid = showing.table(*selection, BY, 1000)
    assert grid.title == "checkpoints of mine" and len(grid.columns) == 2 + 3 + len(SCORES) + 2


def test_the_first_number_is_there_however_narrow_the_terminal_is(selection):
    assert showing.table(*selection, ("score/perplexity",), 20).columns[2] == "score/perplexity"


def test_the_record_has_every_number_and_why_what_stays(selection):
    made = showing.columns(*selection, BY)
    assert set(made) == {"checkpoint", "step", *selection[0].candidates[0].values, "mark", "choice", "to free"} - {
        name for name in made if name.endswith(("_low", "_high"))
    } - {f"score/{name}{end}" for name in SCORES for end in ("_low", "_high")}
    assert made["eval/loss"] == [4.5, None, 4.5] and made["mark"][2] == "eval/loss rose"
    assert made["choice"] == ["chosen", "has no eval/loss", "is overfit"]
    assert made["to free"] == ["", "stays: sales@challenger was made of it", "6.4 MB"]


def test_scores_of_the_same_rows_count_whichever_command_told_them(monkeypatch):
    """The newest evaluation of a score tells it; one of another score on the same rows takes nothing away."""
    from types import SimpleNamespace

    from mlops_llm.surgery.selection import rows as module

    def told(id: str, rows: str, **scores: float) -> Any:
        metrics = {f"score/{name}": value for name, value in scores.items()}
        return SimpleNamespace(id=id, status="FINISHED", tags={"data.evaluation.digest.canonical": rows}, metrics=metrics)

    newest_first = [
        told("d", "other", bleu=9.0),
        told("c", "same", bleu=2.0),
        told("b", "same", perplexity=5.0),
        told("a", "same", perplexity=7.0, bleu=1.0),
    ]
    monkeypatch.setattr(module.ledger, "tagged", lambda *_: newest_first)
    row = SimpleNamespace(tags={"digest.weights": "1a"}, name="checkpoint-4", step=4, own={}, status="READY", metrics={})
    made = module._evaluations(None, row)
    assert {rows: [each.id for each in runs] for rows, runs in made.items()} == {"other": ["d"], "same": ["c", "b"]}
    held = [
        SimpleNamespace(outcome=SimpleNamespace(scores=[SimpleNamespace(name=name, value=value, higher_is_better=up, count=6)]))
        for name, value, up in (("bleu", 2.0, True), ("perplexity", 5.0, False))
    ]
    found = Rows(None, [row], {}, {"checkpoint-4": held}, "same")
    (candidate,) = found.candidates
    assert candidate.values == {"score/bleu": 2.0, "score/perplexity": 5.0}
    assert found.higher("score/bleu") and not found.higher("score/perplexity") and found.tests("score/perplexity")


def test_which_end_of_a_number_is_the_good_one_is_what_its_metric_says():
    component.load("mlops_llm.eval.metrics")
    wanted = {"score/bleu": True, "score/latency_mean": False, "score/perplexity": False, "eval/loss": False, "score/x": True}
    assert {name: higher(name) for name in wanted} == wanted
    assert higher("score/length_tokens") is None and higher("eval/entropy") is None
