"""What it costs to put 20,000 answers to people: a workbook is written, filled in, read and checked again.

Each side in a process of its own; wanted are under 60 s and 1 GB for all of it together.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from openpyxl import Workbook, load_workbook
from stats import process, scratch

from mlops_llm.console import grid
from mlops_llm.eval.people import ballot, checked, returned, workbook
from mlops_llm.eval.people.ballot import Answer, Ballot, Model
from mlops_llm.eval.people.cells import Fitted, mark
from mlops_llm.eval.people.found import Found
from mlops_llm.eval.people.words import WORDS, Lang
from mlops_llm.record import DatasetInput

DIMENSIONS = ("accuracy", "relevance", "fluency", "professionalism")
KEY, EMPTY, FILLED = "key.json", "rate.xlsx", "filled.xlsx"
ANSWER = "您好！支持，最高可达 50 瓦无线快充，需另购充电底座；保修期内非人为损坏免费更换。"


def export(count: int) -> None:
    """The key and the workbook."""
    words = WORDS[Lang.zh]
    fitted = Fitted(words.cut)
    texts = [
        (fitted.text(f"问题 {row}：这款手机支持无线充电吗？"), fitted.text(f"{row}：{ANSWER * 5}")) for row in range(count // 2)
    ] * 2
    answers = tuple(Answer(row, model, mark(texts[row][1]), 200) for model in range(2) for row in range(count // 2))
    data = DatasetInput("rows", "v1", "rows.jsonl", "evaluation", count // 2, {"raw": "r", "canonical": "c"})
    found = Ballot("h0123456789ab", DIMENSIONS, data, (Model("one", None), Model("two", None)), answers)
    drafts = ballot.lines(found, 1, 0, 2, 3)
    shown = [(texts[each.answer][0], f"请填 {each.wanted}") if each.wanted else texts[each.answer] for each in drafts]
    lines = ballot.marked(drafts, [(mark(prompt), mark(answer)) for prompt, answer in shown])
    found = replace(found, lines={each.id: each for each in lines})
    Path(KEY).write_text(found.as_json(), "utf-8")
    workbook.write([workbook.Sheet(Path(EMPTY), found.evaluation, 1, DIMENSIONS, lines, shown)], words)


def fill() -> None:
    """What a person and a spreadsheet program do; not part of what is measured."""
    found = ballot.read(Path(KEY).read_text("utf-8"), KEY)
    book = Workbook(write_only=True)
    page = book.create_sheet("评分")
    for number, row in enumerate(load_workbook(EMPTY, read_only=True)["评分"].iter_rows(values_only=True)):
        line = found.lines.get(str(row[0]))
        page.append(row if line is None else [*row[:3], *([line.wanted or 1 + number % 5] * 4)])
    book.save(FILLED)


def take() -> None:
    """The workbook, checked, and what it comes to."""
    found = ballot.read(Path(KEY).read_text("utf-8"), KEY)
    filled = checked.check(returned.read(Path(FILLED)), found)
    assert not filled.faults and not filled.empty
    whole = Found(found, [filled])
    print([each.value for model in range(2) for each in whole.scores(model)], len(whole.table(True)["row"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--side", choices=("export", "fill", "take"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        began = time.perf_counter()
        {"export": lambda: export(asked.count), "fill": fill, "take": take}[asked.side]()
        print(time.perf_counter() - began)
        return
    with scratch() as folder:
        rows, total = [], 0.0
        for side in ("export", "fill", "take"):
            timed = process([sys.executable, __file__, "--side", side, "--count", str(asked.count)], folder)
            total += timed.seconds if side != "fill" else 0.0
            rows.append([side, timed.seconds, timed.peak_mb])
        rows.append(["export and take (wanted: 60 s, 1,000 MB each)", total, max(row[2] for row in rows if row[0] != "fill")])
    grid(f"{asked.count:,} answers to people and back", ["", "s", "peak MB"], rows)


if __name__ == "__main__":
    main()
