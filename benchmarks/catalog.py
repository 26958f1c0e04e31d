"""How long `op=list` takes on many files: the first time, when each is read, and the second, when none is.

Compared with `op=list` in a folder without files of its own (what ships is listed in both), which is the start-up.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from pathlib import Path

from stats import fresh, process, scratch, summary

from mlops_llm.console import grid

LIST = [sys.executable, "-m", "mlops_llm.data", "op=list"]


def write(folder: Path, files: int, rows: int) -> None:
    """Files of rows that are all different."""
    draw = random.Random(0)
    folder.mkdir(parents=True)
    for number in range(files):
        made = ({"prompt": f"{number} {draw.random()}", "response": f"{draw.random()}"} for _ in range(rows))
        (folder / f"set{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=100, help="rows a file")
    parser.add_argument("--runs", type=int, default=7)
    asked = parser.parse_args()
    with scratch() as folder, fresh(folder, None) as empty, fresh(folder, None) as full:
        os.environ["MLOPS_LLM_CACHE"] = str(folder / "cache")
        write(full / "datasets", asked.files, asked.rows)
        process(LIST, empty)  # warms the disk cache
        first = process(LIST, full).seconds
        again: dict[str, list[float]] = {"start-up": [], "second": []}
        for _ in range(asked.runs):
            again["start-up"].append(process(LIST, empty).seconds)
            again["second"].append(process(LIST, full).seconds)
    beyond = [second - start for start, second in zip(again["start-up"], again["second"], strict=True)]
    rows = [
        ["no files of its own", *summary(again["start-up"]), ""],
        ["first, every file read", first, first, first, ""],
        ["second, none read", *summary(again["second"]), ""],
        ["second beyond start-up", *summary(beyond), "below 0.5 s"],
    ]
    grid(f"op=list on {asked.files} files of {asked.rows} rows, seconds", ["", "median", "least", "most", "wanted"], rows)


if __name__ == "__main__":
    main()
