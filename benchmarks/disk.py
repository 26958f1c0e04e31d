"""The disk that N checkpoints take, against N times one checkpoint.

A training of tiny with N checkpoints; counted are the blocks of all files below outputs/ and mlruns/, a file with several
names (hard links) once, as `du` counts. One checkpoint is the folder that the Trainer writes, optimizer included.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from stats import database, fresh, process, scratch

from mlops_llm.console import grid


def blocks(files: Iterable[Path], *, links_once: bool = True) -> int:
    """Bytes of the blocks that files take on the disk."""
    seen, total = set(), 0
    for file in files:
        state = file.lstat()
        if not links_once or (state.st_dev, state.st_ino) not in seen:
            seen.add((state.st_dev, state.st_ino))
            total += state.st_blocks * 512
    return total


def below(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=5)
    parser.add_argument("--model", default="tiny")
    asked = parser.parse_args()
    command = [
        sys.executable, "-m", "mlops_llm.train", "+experiment=sft_sales", f"model={asked.model}", "samples.count=0",
        f"trainer.max_steps={asked.checkpoints}", "trainer.eval_steps=1", "trainer.save_steps=1",
    ]  # fmt: skip
    with scratch() as folder, fresh(folder, database(folder)) as here:
        process(command, here)
        (output,) = (here / "outputs").glob("sft_sales-*")
        checkpoints = sorted(output.glob("checkpoint-*"))
        if len(checkpoints) != asked.checkpoints:
            raise SystemExit(f"{len(checkpoints)} checkpoints were written, not {asked.checkpoints}")
        one = blocks(below(checkpoints[-1]))
        published = blocks(below(here / "mlruns"))
        written = below(here / "outputs", here / "mlruns")
        whole, twice = blocks(written), blocks(written, links_once=False)
        all_of_them = blocks(below(*checkpoints, here / "mlruns"))
    mega, times = 1e6, asked.checkpoints * one
    rows = [
        ["one checkpoint", f"{one / mega:.2f}", ""],
        [f"{asked.checkpoints} times one", f"{times / mega:.2f}", "1.000"],
        ["outputs/ and mlruns/, links once", f"{whole / mega:.2f}", f"{whole / times:.3f}"],
        ["  of it checkpoints and mlruns/", f"{all_of_them / mega:.2f}", f"{all_of_them / times:.3f}"],
        [
            "  of it logs, plots, tables in outputs/",
            f"{(whole - all_of_them) / mega:.2f}",
            f"{(whole - all_of_them) / times:.3f}",
        ],
        ["if links were copies", f"{twice / mega:.2f}", f"{twice / times:.3f}"],
        ["mlruns/ alone", f"{published / mega:.2f}", f"{published / times:.3f}"],
    ]
    grid(f"disk of {asked.checkpoints} checkpoints of {asked.model}", ["", "MB", "ratio (wanted: about 1)"], rows)


if __name__ == "__main__":
    main()
