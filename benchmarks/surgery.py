"""A streamed merge against mergekit-yaml, and an average of five checkpoints beside `cat`.

Both merges are whole processes, from the start of Python to the finished folder: two models of smollm2's size, averaged,
float32. Ours is the merge alone; the whole command, which also reads all for digests, runs prompts through three models and
writes the record, is shown without a promise. Before each side the models' files are put out of the page cache.

Wanted: at most 0.8 of mergekit's wall and half its peak memory; the average reads its bytes near the disk's own speed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

import yaml
from stats import Run, alternate, compare, database, fresh, process, scratch

from mlops_llm.console import grid

COUNT = 5


def forgotten(*folders: Path) -> None:
    """Put files out of the page cache, as far as the system lets us."""
    for file in (file for folder in folders for file in folder.glob("*.safetensors")):
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def models(folder: Path, model: str, count: int) -> list[Path]:
    """Copies of a model with other numbers in each."""
    import torch
    from safetensors.torch import load_file, save_file

    from mlops_llm.models.ref import resolve

    found, source = [], resolve(model).folder
    for number in range(count):
        place = folder / f"model-{number}"
        shutil.copytree(source, place)
        for file in place.glob("*.safetensors"):
            tensors = load_file(file)
            for each in tensors.values():
                each.add_(torch.randn(each.shape[-1]) * 0.01)
            save_file(tensors, file, {"format": "pt"})
        found.append(place)
    return found


def merge(op: object, names: list[str], output: Path) -> None:
    """The merge alone, in this process."""
    from mlops_llm.files import whole_folder
    from mlops_llm.surgery.config import Surgery

    planned = op.plan(Surgery(op=op, models=names, output=str(output), folder=str(output.parent)))  # type: ignore[attr-defined]
    with whole_folder(output) as draft:
        planned.write(draft)


def sides(places: list[Path], folder: Path, existing: Path) -> dict[str, Run]:
    names = [str(each) for each in places]
    config = folder / "merge.yml"
    parts = [{"model": name, "parameters": {"weight": 0.5}} for name in names]
    config.write_text(yaml.safe_dump({"merge_method": "linear", "dtype": "float32", "models": parts}), "utf-8")
    beside = Path(sys.executable).parent / "mergekit-yaml"
    commands = {
        "mergekit": [str(beside), str(config), "out", "--lazy-unpickle", "--quiet"],
        "ours": [sys.executable, __file__, "--merge", *names],
        "command": [sys.executable, "-m", "mlops_llm.surgery", "op=merge_linear", f"models=[{','.join(names)}]", "output=out"],
    }

    def side(command: list[str]) -> Run:
        def run() -> dict[str, float]:
            forgotten(*places)
            with fresh(folder, existing) as here:
                timed = process(command, here)
            return {"wall s": timed.seconds, "peak MB": timed.peak_mb}

        return run

    return {name: side(command) for name, command in commands.items()}


def average(places: list[Path], folder: Path, rounds: int) -> None:
    """Bytes a second of an average of checkpoints, and of `cat` on the same files."""
    from mlops_llm.surgery.ops.average import Average

    files = [file for place in places for file in place.glob("*.safetensors")]
    size = sum(file.stat().st_size for file in files)
    rows = []
    for number in range(rounds):
        seconds, busy = [], 0.0
        for cold in (True, False):
            for ours in (False, True):
                if cold:
                    forgotten(*places)
                began, used = time.perf_counter(), time.process_time()
                if ours:
                    merge(Average(), [str(each) for each in places], folder / f"average-{number}-{cold}")
                    seconds.append(time.perf_counter() - began)
                    busy = time.process_time() - used
                    shutil.rmtree(folder / f"average-{number}-{cold}")
                else:
                    process(["sh", "-c", 'cat "$@" > /dev/null', "cat", *map(str, files)], folder)
                    seconds.append(time.perf_counter() - began)
        rows.append(
            [
                number + 1,
                *(f"{size / 1e6 / each:,.0f}" for each in seconds),
                f"{seconds[1] / seconds[0]:.2f}",
                f"{size / 1e6 / busy:,.0f}",
            ]
        )
    columns = [
        "",
        "cat, MB/s",
        "average, MB/s",
        "cat again (cached)",
        "average again (cached)",
        "time / cat's, from disk",
        "average, MB a CPU second",
    ]
    grid(
        f"average of {len(places)} checkpoints, {size / 1e6:,.0f} MB read; the average also writes a fifth of it",
        columns,
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--only", nargs="+", choices=["merge", "average"], default=["merge", "average"])
    parser.add_argument("--merge", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.merge:
        from mlops_llm.surgery.ops.merge_linear import MergeLinear

        merge(MergeLinear(), asked.merge, Path("out").absolute())
        return
    with scratch() as folder:
        places = models(folder, asked.model, COUNT)
        existing = database(folder)
        if "merge" in asked.only:
            found = alternate(asked.pairs, sides(places[:2], folder, existing))
            wanted = {"wall s": "ratio at most 0.8", "peak MB": "ratio at most 0.5"}
            compare(f"merge of two {asked.model}", {name: found[name] for name in ("mergekit", "ours")}, wanted)
            compare("the whole command", {name: found[name] for name in ("mergekit", "command")}, {})
        if "average" in asked.only:
            average(places, folder, asked.pairs)


if __name__ == "__main__":
    main()
