"""GSM8K and MMLU against lm-eval called directly, in alternating pairs: the whole process, and from the open model to numbers.

lm-eval's side is what its documentation says: YAML files that include its own and name local files, `TaskManager` and
`simple_evaluate`. Ours reads the authors' files. Both ask the same model in the same batches, so that numbers are the same,
which is checked. MLOPS_LLM_REAL_DATA names the folder of the benchmarks' files.

(Not called `lm_eval.py`: a script's own folder comes first in the search for modules.)
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402
import csv  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from importlib.util import find_spec  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

BATCH = 8


def ours(name: str, model: str, limit: int, data: Path) -> dict[str, Any]:
    from mlops_llm.component import build, load
    from mlops_llm.eval.benchmarks import running, tasks
    from mlops_llm.eval.config import Benchmarks, Eval
    from mlops_llm.eval.subject import subject
    from mlops_llm.models.load import ModelLoad

    load("mlops_llm.inference.engines")
    settings = Eval(
        benchmark=[name], engine=build("engine", "hf"), limit=limit, benchmarks=Benchmarks(data=str(data)), model=model
    )
    (one,) = tasks.check(settings)
    found = subject(model, ModelLoad())
    about = {"weights": found.digest, "template": "-"}
    with settings.engine.open(found.files, ModelLoad(), found.tokenizer, found.window) as session:
        __import__("lm_eval.models.huggingface")
        began = time.perf_counter()
        done = running.run(one, settings, lambda: session, Path.cwd(), about)
    return {"results": done.results["results"], "began": began}


def directly(name: str, model: str, limit: int, data: Path) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from mlops_llm.models.ref import resolve

    stock, here = Path(str(find_spec("lm_eval").origin)).parent / "tasks", Path.cwd() / "tasks"  # type: ignore[union-attr]
    here.mkdir()
    if name == "gsm8k":
        _yaml(here, "gsm8k", stock / "gsm8k/gsm8k.yaml", {each: data / f"gsm8k/{each}.jsonl" for each in ("train", "test")})
    for file in sorted((stock / "mmlu/default").glob("mmlu_*.yaml")) if name == "mmlu" else ():
        subject = file.stem.removeprefix("mmlu_")
        splits = {each: _lines(data / f"mmlu/{each}/{subject}_{each}.csv", here) for each in ("dev", "test")}
        _yaml(here, file.stem, file, splits)
    for file in sorted((stock / "mmlu/default").glob("_mmlu*.yaml")) if name == "mmlu" else ():
        (here / file.name).write_text(file.read_text("utf-8"), "utf-8")
    lm = HFLM(pretrained=str(resolve(model).folder), device="cpu", dtype="float32", batch_size=BATCH)
    began = time.perf_counter()
    manager = TaskManager(include_path=str(here), include_defaults=False)
    found = simple_evaluate(lm, tasks=[name], task_manager=manager, limit=limit)
    return {"results": found["results"], "began": began}


def _yaml(folder: Path, name: str, stock: Path, files: dict[str, Path]) -> None:
    lines = [f"include: {stock}", "dataset_path: json", "dataset_name: null", "dataset_kwargs:", "  data_files:"]
    (folder / f"{name}.yaml").write_text("\n".join([*lines, *(f"    {k}: {v}" for k, v in files.items())]) + "\n", "utf-8")


def _lines(file: Path, folder: Path) -> Path:
    """MMLU's table as the lines that the task reads."""
    with file.open(encoding="utf-8", newline="") as table:
        rows = [
            {"question": row["question"], "choices": [row[f"choice{n}"] for n in range(4)], "answer": int(row["answer"])}
            for row in csv.DictReader(table)
        ]
    made = folder / f"{file.stem}.jsonl"
    made.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return made


SIDES = {"lm-eval": directly, "ours": ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--gsm8k", type=int, default=64, help="items")
    parser.add_argument("--mmlu", type=int, default=8, help="items of each subject")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    data = Path(os.environ.get("MLOPS_LLM_REAL_DATA") or sys.exit("set MLOPS_LLM_REAL_DATA to the folder of the files"))
    if asked.side:
        found = SIDES[asked.side](asked.name, asked.model, getattr(asked, asked.name), data)
        ended = time.perf_counter()
        values = {
            f"{task} {key}": value for task, each in found["results"].items() for key, value in each.items() if "," in key
        }
        print(json.dumps({"process s": ended - STARTED, "asking s": ended - found["began"], "values": values}))
        return
    from stats import Run, alternate, compare, fresh, process, scratch

    def side(which: str, name: str, folder: Path, seen: set[str]) -> Run:
        def run() -> dict[str, float]:
            with fresh(folder) as here:
                sizes = ["--gsm8k", str(asked.gsm8k), "--mmlu", str(asked.mmlu), "--model", asked.model]
                timed = process([sys.executable, __file__, "--side", which, "--name", name, *sizes], here)
            told = json.loads(timed.out.strip().splitlines()[-1])
            seen.add(json.dumps(told.pop("values"), sort_keys=True))
            return dict(told)

        return run

    wanted = {"process s": "ratio at most 1.05", "asking s": "ratio at most 1.05"}
    with scratch() as folder:
        for name in ("gsm8k", "mmlu"):
            seen = set[str]()
            found = alternate(asked.pairs, {which: side(which, name, folder, seen) for which in SIDES})
            compare(f"{name}, {asked.model}; numbers {'equal' if len(seen) == 1 else 'DIFFER'}", found, wanted)


if __name__ == "__main__":
    main()
