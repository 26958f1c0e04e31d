"""Finding duplicates: exact against DuckDB's `SELECT DISTINCT`, MinHash against datasketch, in alternating pairs.

The rows are made here from a seed: Chinese and English mixed, a tenth of them equal to an earlier row, a tenth near an earlier
row (a few characters or a word changed), so that recall and precision are known; and some that look alike but differ in a
number, which must stay. Only the step is timed, without reading and writing. `--rows` shows that time grows with the rows;
each size runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from stats import alternate, compare, process

from mlops_llm.console import grid
from mlops_llm.data.dedup import exact, minhash
from mlops_llm.data.dedup.found import Found
from mlops_llm.data.dedup.keep import Keep
from mlops_llm.data.dedup.texts import SCHEMA
from mlops_llm.data.engine import Engine, Local

COLUMNS = ["prompt", "answer"]
THRESHOLD = 0.8
CHINESE = (
    "的是了我有和人这中大为上个国以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得"
)
ENGLISH = [f"{begin}{middle}{end}" for begin in "bdfglmprst" for middle in ("a", "e", "i", "o", "u") for end in "dklmnprst"]


class Made(NamedTuple):
    """Rows, and which of them are like an earlier one."""

    table: pa.Table
    equal: dict[int, int]
    near: dict[int, int]
    apart: dict[int, int]


def made(count: int, seed: int = 0) -> Made:
    draw = random.Random(seed)
    rows: list[tuple[str, str]] = []
    own: list[int] = []
    equal, near, apart = {}, {}, {}
    for place in range(count):
        sort = draw.random()
        if sort < 0.75 or not own:
            own.append(place)
            rows.append(new(draw))
            continue
        earlier = draw.choice(own)
        if sort < 0.85:
            equal[place] = earlier
            rows.append(rows[earlier])
        elif sort < 0.95:
            near[place] = earlier
            rows.append((rows[earlier][0], changed(rows[earlier][1], draw)))
        else:
            apart[place] = earlier
            rows.append((rows[earlier][0], f"{rows[earlier][1]} {place}"))
    columns = [range(count), range(1, count + 1), [row[0] for row in rows], [row[1] for row in rows], [None] * count]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return Made(pa.table(arrays, schema=SCHEMA), equal, near, apart)


def new(draw: random.Random) -> tuple[str, str]:
    if draw.random() < 0.5:
        return "".join(draw.choices(CHINESE, k=draw.randint(12, 40))), "".join(draw.choices(CHINESE, k=draw.randint(60, 160)))
    return " ".join(draw.choices(ENGLISH, k=draw.randint(6, 20))), " ".join(draw.choices(ENGLISH, k=draw.randint(25, 60)))


def changed(text: str, draw: random.Random) -> str:
    if " " not in text:
        at = draw.randrange(len(text))
        return text[:at] + draw.choice(CHINESE.replace(text[at], "")) + text[at + 1 :]
    words = text.split(" ")
    words[draw.randrange(len(words))] = f"other{draw.choice(ENGLISH)}"
    return " ".join(words)


def tables(table: pa.Table) -> Iterator[pa.Table]:
    return (table.slice(start, 8192) for start in range(0, len(table), 8192))


def our_exact_with(rows: Made, engine: Engine) -> Found:
    return exact.find(tables(rows.table), COLUMNS, Keep.first, False, engine)


def our_minhash_with(rows: Made, engine: Engine) -> Found:
    return minhash.find(tables(rows.table), COLUMNS, Keep.first, THRESHOLD, 3, engine)


def our_exact(rows: Made) -> Found:
    return our_exact_with(rows, Local())


def our_minhash(rows: Made) -> Found:
    return our_minhash_with(rows, Local())


def duckdb_distinct(rows: Made) -> int:
    import duckdb

    with duckdb.connect() as connection:
        connection.register("rows", rows.table)
        return len(connection.sql(f"SELECT DISTINCT {', '.join(COLUMNS)} FROM rows").to_arrow_table())


def datasketch_lsh(rows: Made) -> int:
    """Signatures and candidates by datasketch, with our shingles; nothing is verified and no guard asked."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=minhash.PERMUTATIONS)
    gone = 0
    for place, (prompt, answer) in enumerate(zip(*(rows.table[name].to_pylist() for name in COLUMNS), strict=True)):
        sketch = MinHash(num_perm=minhash.PERMUTATIONS)
        sketch.update_batch([each.encode() for each in set(minhash.shingles(f"{prompt}\n{answer}", 3))])
        if index.query(sketch):
            gone += 1
        else:
            index.insert(place, sketch)
    return gone


def timed(rows: Made, work: Callable[[Made], object]) -> Callable[[], dict[str, float]]:
    def run() -> dict[str, float]:
        begun = time.perf_counter()
        work(rows)
        return {"seconds": time.perf_counter() - begun}

    return run


def one(method: str, count: int) -> None:
    """One size in this process: seconds, peak memory, and what of the planted was found."""
    rows = made(count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    found = {"exact": our_exact, "minhash": our_minhash}[method](rows)
    seconds = time.perf_counter() - begun
    unit = 2**20 if sys.platform == "darwin" else 2**10
    planted = set(rows.equal) | (set(rows.near) if method == "minhash" else set())
    gone = set(found.removed["id"].to_pylist())
    numbers = {
        "seconds": seconds,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
        "rows in memory": before / unit,
        "recall": len(gone & planted) / len(planted),
        "precision": len(gone & planted) / max(1, len(gone)),
        "apart": len(set(rows.apart) & gone),
    }
    print(json.dumps(numbers))


def sizes(method: str, counts: list[int]) -> None:
    shown = []
    for count in counts:
        out = process([sys.executable, __file__, "--one", method, "--rows", str(count)], Path.cwd()).out
        numbers = json.loads(out.strip().splitlines()[-1])
        shown.append([
            f"{count:,}", f"{numbers['seconds']:.2f}", f"{1e6 * numbers['seconds'] / count:.2f}", f"{numbers['peak']:,.0f}",
            f"{numbers['rows in memory']:,.0f}", f"{numbers['recall']:.4f}", f"{numbers['precision']:.4f}", numbers["apart"],
        ])  # fmt: skip
    columns = ["rows", "s", "s a million", "peak MB", "MB before", "recall", "precision", "differing in a number, removed"]
    grid(f"{method}: time and memory by rows (wanted: as many s a million in each line, below 4,000 MB)", columns, shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], help="sizes; none leaves them out")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of each comparison; 0 leaves them out")
    parser.add_argument("--compared", type=int, default=500_000, help="rows of the comparison with DuckDB")
    parser.add_argument("--sketched", type=int, default=5_000, help="rows of the comparison with datasketch")
    parser.add_argument("--one", choices=["exact", "minhash"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        one(asked.one, asked.rows[0])
        return
    # First: a process begins with its parent's peak memory, which is small yet.
    for method in ("exact", "minhash"):
        if asked.rows:
            sizes(method, asked.rows)
    if asked.pairs:
        contests = [
            ("exact", asked.compared, {"DuckDB": duckdb_distinct, "ours": our_exact}, "ratio at most 1.1"),
            ("MinHash", asked.sketched, {"datasketch": datasketch_lsh, "ours": our_minhash}, "ratio below 1"),
        ]
        for title, count, sides, wanted in contests:
            rows = made(count)
            runs = {name: timed(rows, work) for name, work in sides.items()}
            for run in runs.values():
                run()
            compare(f"{title}, {count:,} rows", alternate(asked.pairs, runs), {"seconds": wanted})


if __name__ == "__main__":
    main()
