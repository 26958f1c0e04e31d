"""What Ray costs on one machine: duplicates found in this process and over a Ray of its own, in alternating pairs.

Both sides run the same steps on the same rows (those of `dedup.py`), each in a process of its own; what is found must be the
same. Timed are the start of Ray (the engine's `with`, to its end) and the search. On one machine Ray can only lose: rows are
written for other processes and read back. The ratio says from how many machines on it may win; see docs/data.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median

import psutil
from dedup import made, our_exact_with, our_minhash_with
from stats import Run, alternate, compare, process, scratch

from mlops_llm import digest
from mlops_llm.data.engine import Where

METHODS = {"exact": our_exact_with, "minhash": our_minhash_with}


def one(method: str, count: int, where: Where) -> dict[str, float | str]:
    rows = made(count)
    if where is Where.ray:
        import ray.data  # noqa: F401  (to import it is no part of either side)
    began = time.perf_counter()
    with where.engine() as engine:
        started = time.perf_counter()
        found = METHODS[method](rows, engine)
        worked = time.perf_counter()
        family = psutil.Process().children(recursive=True)
        memory = sum(each.memory_info().rss - each.memory_info().shared for each in family if each.is_running())
    ended = time.perf_counter()
    same = digest.row({"removed": found.removed.to_pydict(), "different": found.different.to_pydict()})
    numbers = {"all s": ended - began, "search s": worked - started, "start and end s": started - began + ended - worked}
    return {**numbers, "daemons MB": memory / 2**20, "found": same}


def side(where: str, method: str, count: int, folder: Path, others: list[dict[str, float | str]]) -> Run:
    def run() -> dict[str, float]:
        asked = ["--where", where, "--method", method, "--rows", str(count)]
        told = json.loads(process([sys.executable, __file__, *asked], folder).out.strip().splitlines()[-1])
        others.append({"where": where, **{name: told.pop(name) for name in ("found", "start and end s", "daemons MB")}})
        return dict(told)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs="*", default=[20_000, 200_000])
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--where", choices=Where.__members__, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.where:
        print(json.dumps(one(asked.method, asked.rows[0], Where[asked.where])))
        return
    with scratch() as folder:
        for method in METHODS:
            for count in asked.rows:
                others = list[dict[str, float | str]]()
                names = {"here": "local", "Ray": "ray"}
                found = alternate(asked.pairs, {name: side(names[name], method, count, folder, others) for name in names})
                same = len({each["found"] for each in others}) == 1
                title = f"{method}, {count:,} rows; what is found is {'the same' if same else 'NOT THE SAME'}"
                compare(title, found, {"all s": "no bound: on one machine Ray loses"})
                of_ray = [each for each in others if each["where"] == "ray"]
                start, memory = (median(float(each[key]) for each in of_ray) for key in ("start and end s", "daemons MB"))
                print(f"of it Ray's start and end: {start:.1f} s; its processes hold {memory:,.0f} MB of their own\n")


if __name__ == "__main__":
    main()
