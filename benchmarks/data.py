"""Checking and measuring datasets, each against the bare work it cannot do without, in alternating pairs.

- `structure`: `op=validate op.structure_only=true` against a loop that parses each line with orjson and checks its fields.
- `stats`: the measuring of `op=stats` (without near duplicates) against `encode_batch_fast` of the same texts alone.
- `growth`: the whole of `validate` and of `stats` over more and more rows: seconds a row and peak memory.

Rows are made by a seeded generator from the sentences of the shipped data: 20 to 150 characters asked, 60 to 500 answered. Each
side runs in its own process and times itself, so that neither Python's start nor the libraries' import counts.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stats import Run, alternate, compare, process, scratch

from mlops_llm.console import grid


def made(path: Path, rows: int, seed: int = 0) -> Path:
    """A file of rows; one of 2,000 has a flaw that is to be found."""
    from mlops_llm.data.read import read

    draw = random.Random(seed)
    pairs = [(row["prompt"], row["response"]) for row in read("sales_sft").rows]
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            asked = "".join(draw.choice(pairs)[0] for _ in range(draw.randint(1, 5)))
            answer = "".join(draw.choice(pairs)[1] for _ in range(draw.randint(2, 10)))
            row = {"prompt": f"{number}. {asked}", "response": answer if draw.random() > 0.0005 else " "}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


Work = Callable[[], int]
"""What is timed; it returns the number of sound rows."""


def orjson_loop(path: Path) -> Work:
    import orjson

    def work() -> int:
        bad, good = [], 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = orjson.loads(line)
                except ValueError as error:
                    bad.append((number, str(error)))
                    continue
                if not isinstance(row, dict):
                    bad.append((number, "no object"))
                    continue
                wrong = False
                for field in ("prompt", "response"):
                    value = row.get(field)
                    if not isinstance(value, str) or not value.strip():
                        bad.append((number, field))
                        wrong = True
                good += not wrong
        return good

    return work


def structure(path: Path) -> Work:
    import numpy  # noqa: F401 (imported by the first lines otherwise)
    import orjson  # noqa: F401

    from mlops_llm.data.read import Read
    from mlops_llm.data.skim import structure

    return lambda: structure(path, Read(), None, 20).sound


def encode(path: Path) -> Work:
    from mlops_llm.data import tokens

    tokenizer = tokens.tokenizer("tiny").backend_tokenizer
    rows = [row for row in map(json.loads, path.open(encoding="utf-8")) if row["response"].strip()]
    sides = [[row[name] for row in rows] for name in ("prompt", "response")]

    def work() -> int:
        for side in sides:
            for start in range(0, len(side), tokens.CHUNK):
                tokenizer.encode_batch_fast(side[start : start + tokens.CHUNK], add_special_tokens=False)
        return len(rows)

    return work


def measure(path: Path) -> Work:
    import numpy  # noqa: F401 (as above)

    from mlops_llm.data import stats, tokens
    from mlops_llm.data.formats import records
    from mlops_llm.data.kinds import Kind

    tokenizer = tokens.tokenizer("tiny")
    return lambda: stats.measure(records(path), Kind.sft, tokenizer).rows


def validate(path: Path) -> Work:
    from mlops_llm.data.ops.validate import Validate

    return _operation(Validate(), path)


def stats(path: Path) -> Work:
    from mlops_llm.data.ops.stats import Stats

    return _operation(Stats(near=False), path)


def _operation(operation: Any, path: Path) -> Work:
    from mlops_llm.data.config import Data
    from mlops_llm.record import MemoryRun

    work = operation.prepare(Data(op=operation, dataset=str(path)))
    return lambda: int(work(MemoryRun()).table["rows"])


SIDES: dict[str, Callable[[Path], Work]] = {
    "orjson": orjson_loop,
    "structure": structure,
    "encode": encode,
    "measure": measure,
    "validate": validate,
    "stats": stats,
}
WANTED = {"structure": ("orjson", "structure", 1.2), "stats": ("encode", "measure", 1.3)}


def side(name: str, path: Path, folder: Path) -> Run:
    """One side, ready to run in its own process."""

    def run() -> dict[str, float]:
        timed = process([sys.executable, __file__, "--side", name, "--file", str(path)], folder)
        return json.loads(timed.out.strip().splitlines()[-1]) | {"peak MB": timed.peak_mb}

    return run


def growth(sizes: list[int], folder: Path) -> None:
    rows = []
    for size in sizes:
        path = made(folder / f"rows_{size}.jsonl", size)
        for name in ("validate", "stats"):
            found = side(name, path, folder)()
            rows.append(
                [
                    name,
                    f"{size:,}",
                    f"{found['seconds']:.1f}",
                    f"{found['seconds'] / size * 1e6:.0f}",
                    f"{found['peak MB']:.0f}",
                ]
            )
    grid("growth; wanted: linear, under 4,000 MB", ["", "rows", "s", "µs a row", "peak MB"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="+", choices=[*WANTED, "growth"], default=[*WANTED, "growth"])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        work = SIDES[asked.side](asked.file)
        begun = time.perf_counter()
        rows = work()
        print(json.dumps({"seconds": time.perf_counter() - begun, "sound rows": rows}))
        return
    with scratch() as folder:
        for name in asked.what:
            if name == "growth":
                growth(asked.sizes, folder)
                continue
            path = made(folder / "rows.jsonl", asked.rows)
            base, ours, most = WANTED[name]
            found = alternate(asked.pairs, {each: side(each, path, folder) for each in (base, ours)})
            compare(f"{name}: {asked.rows:,} rows", found, {"seconds": f"ratio at most {most}"})


if __name__ == "__main__":
    main()
