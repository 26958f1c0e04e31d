"""How long a command takes before it works: `--help`, `--cfg job`, a typo, and the start-up of a training.

The three commands are measured against nothing but a second (and an empty Python process, for comparison). The start-up of a
training of tiny (from the start of the process to `trainer.train()`) is measured against the plain TRL script's in
alternating pairs, with an existing MLflow database; and alone in an empty folder, where the database is created first.
"""

from __future__ import annotations

import argparse
import sys

from stats import alternate, compare, database, fresh, process, scratch, summary
from train import model_folder, sides, tiny

from mlops_llm.console import grid

TRAIN = [sys.executable, "-m", "mlops_llm.train"]
COMMANDS = {
    "--help": (["--help"], 0),
    "--cfg job": (["+experiment=sft_sales", "--cfg", "job"], 0),
    "a typo": (["+experiment=sft_sales", "trainer.max_stepz=5"], 2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="runs of each command")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of trainings; 0 leaves them out")
    asked = parser.parse_args()
    with scratch() as folder:
        seconds: dict[str, list[float]] = {name: [] for name in ("an empty process", *COMMANDS)}
        for turn in range(asked.runs + 1):
            with fresh(folder) as here:
                now = {"an empty process": process([sys.executable, "-c", "pass"], here).seconds}
                now |= {name: process([*TRAIN, *words], here, code).seconds for name, (words, code) in COMMANDS.items()}
            for name, value in now.items() if turn else ():  # the first turn warms the disk cache
                seconds[name].append(value)
        rows = [[name, *summary(values), "below 1 s" if name in COMMANDS else ""] for name, values in seconds.items()]
        grid(f"seconds, {asked.runs} runs", ["", "median", "least", "most", "wanted"], rows)
        if asked.pairs:
            trainings(asked.pairs, folder)


def trainings(pairs: int, folder) -> None:
    case, place, existing = tiny(1), model_folder("tiny", folder), database(folder)
    both = sides(case, place, existing, folder)
    created = sides(case, place, None, folder)["ours"]
    for run in both.values():
        run()
    found = alternate(pairs, both)
    only = {name: [{"start-up s": numbers["start-up s"]} for numbers in values] for name, values in found.items()}
    compare("start-up of tiny, existing database", only, {"start-up s": "at most 4 s more"})
    rows = [["ours, database created first", *summary([created()["start-up s"] for _ in range(min(pairs, 3))])]]
    grid("start-up in an empty folder, seconds", ["", "median", "least", "most"], rows)


if __name__ == "__main__":
    main()
