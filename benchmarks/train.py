"""Our training against a plain TRL script (`plain_sft.py`) of the same settings, in alternating pairs.

tiny: 400 steps of `+experiment=sft_sales` with evaluations and checkpoints. smollm2: 8 LoRA steps of batch 4 on gsm8k where
MLOPS_LLM_REAL_DATA names the folder of real data, else on sales_sft; evaluated before and at the end on 4 rows. Both sides get
the first 256 rows: TRL prepares all of gsm8k several times slower than we do, which would hide what else a start costs. Without
the table of sample answers (samples.count=0), which a plain script does not write. Each run is a process of its own in an
empty folder beside an existing MLflow database.

Measured: `trainer.train()` in both; start-up (from the start of the process to that call) and closing (from its end to the
end of the process); the whole process; the peak of resident memory as the system counts it. That both sides did the same work
is seen from the digests of the last checkpoints' weights: they are to be equal in all runs of both.

On smollm2 the peak of either side jumps between two levels about 1.1 GB apart from run to run, for the same tokens: look at the
single runs above the table before judging its ratio.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from stats import Run, Timed, alternate, compare, database, fresh, process, scratch

from mlops_llm.data.read import find

PLAIN = Path(__file__).with_name("plain_sft.py")
WEIGHTS: dict[str, set[str]] = {"plain": set(), "ours": set()}


class Case(NamedTuple):
    """The same training for both sides."""

    model: str
    title: str
    train: Path
    validation: Path
    steps: int
    batch: int
    learning_rate: float
    logging: int
    eval: int
    save: int
    max_tokens: int
    lora: bool

    def ours(self) -> list[str]:
        """The command of this project."""
        return [
            sys.executable, "-m", "mlops_llm.train", "+experiment=sft_sales", f"model={self.model}", "samples.count=0",
            f"dataset={self.train}", f"validation={self.validation}", f"trainer.max_steps={self.steps}",
            f"trainer.batch_size={self.batch}", f"trainer.learning_rate={self.learning_rate}",
            f"trainer.logging_steps={self.logging}", f"trainer.eval_steps={self.eval}", f"trainer.save_steps={self.save}",
            f"algo.max_tokens={self.max_tokens}", f"peft={'lora' if self.lora else 'none'}",
        ]  # fmt: skip

    def plain(self, folder: str) -> list[str]:
        """The command of the plain script, with the model's folder."""
        return [
            sys.executable, str(PLAIN), "--model", folder, "--train", str(self.train), "--validation", str(self.validation),
            "--steps", str(self.steps), "--batch", str(self.batch), "--learning-rate", str(self.learning_rate),
            "--logging-steps", str(self.logging), "--eval-steps", str(self.eval), "--save-steps", str(self.save),
            "--max-length", str(self.max_tokens), *(["--lora"] if self.lora else []),
        ]  # fmt: skip


def tiny(steps: int) -> Case:
    return Case(
        "tiny", f"tiny, {steps} steps", find("sales_sft"), find("sales_sft_val"), steps, 8, 2e-3, 10, 50, 100, 512, False
    )


def smollm2(steps: int, rows: int, folder: Path) -> Case:
    real = os.environ.get("MLOPS_LLM_REAL_DATA")
    if real:
        data, sources = "gsm8k", [Path(real) / "gsm8k" / name for name in ("train.jsonl", "test.jsonl")]
    else:
        data, sources = "sales_sft", [find("sales_sft"), find("sales_sft_val")]
    parts = []
    for source, name, most in zip(sources, ("train", "validation"), (rows, 4), strict=True):
        lines = [json.loads(line) for line in source.read_text("utf-8").splitlines() if line.strip()]
        pairs = [
            {"prompt": line.get("prompt") or line["question"], "response": line.get("response") or line["answer"]}
            for line in lines
        ]
        parts.append(folder / f"{data}_{name}.jsonl")
        parts[-1].write_text("".join(json.dumps(pair) + "\n" for pair in pairs[: most or None]), "utf-8")
    title = f"smollm2 LoRA on {data} ({len(parts[0].read_text('utf-8').splitlines())} rows), {steps} steps"
    return Case("smollm2", title, *parts, steps, 4, 2e-4, 10, steps, steps, 256, True)


def model_folder(model: str, folder: Path) -> str:
    """Where a model's files are; the real one is imported at its first use, and that is not measured."""
    code = f"from mlops_llm.models.ref import resolve; print(resolve({model!r}).folder)"
    return process([sys.executable, "-c", code], folder).out.strip().splitlines()[-1]


def split(timed: Timed, began: float, training: float) -> dict[str, float]:
    """A process's time in three parts, and its memory."""
    return {
        "training s": training,
        "start-up s": began - timed.began,
        "closing s": timed.seconds - (began - timed.began) - training,
        "process s": timed.seconds,
        "peak MB": timed.peak_mb,
    }


def sides(case: Case, place: str, existing: Path | None, folder: Path) -> dict[str, Run]:
    """Both sides of a pair, each ready to run."""

    def plain() -> dict[str, float]:
        with fresh(folder, existing) as here:
            timed = process(case.plain(place), here)
            said = json.loads(timed.out.strip().splitlines()[-1])
            WEIGHTS["plain"].add(said["weights"])
            return split(timed, said["began"], said["training"])

    def ours() -> dict[str, float]:
        with fresh(folder, existing) as here:
            timed = process(case.ours(), here)
            (output,) = (here / "outputs").glob("sft_sales-*")
            result = json.loads((output / "result.json").read_text("utf-8"))
            name = "adapter_model.safetensors" if case.lora else "model.safetensors"
            weights = (output / f"checkpoint-{case.steps}" / name).read_bytes()
            WEIGHTS["ours"].add(hashlib.sha256(weights).hexdigest())
            return split(timed, result["began"], result["seconds"])

    return {"plain": plain, "ours": ours}


def measure(case: Case, pairs: int, folder: Path, wanted: dict[str, str]) -> None:
    place, existing = model_folder(case.model, folder), database(folder)
    print(f"{case.title}: one short run of each side first, to warm the disk cache", flush=True)
    for run in sides(case._replace(steps=1, eval=1, save=1), place, existing, folder).values():
        run()
    for each in WEIGHTS.values():
        each.clear()
    compare(case.title, alternate(pairs, sides(case, place, existing, folder)), wanted)
    different = WEIGHTS["plain"] | WEIGHTS["ours"]
    print("weights: the same in all runs of both" if len(different) == 1 else f"weights: {WEIGHTS}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "smollm2", "both"), default="both")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--steps", type=int, help="other than 400 (tiny) and 8 (smollm2), for a trial")
    parser.add_argument("--rows", type=int, default=256, help="rows given to smollm2, most of them unused; 0 gives all")
    asked = parser.parse_args(argv)
    common = {"training s": "interval begins at most at 1.03", "start-up s": "at most 4 s more"}
    if asked.model != "smollm2":
        with scratch() as folder:
            measure(tiny(asked.steps or 400), asked.pairs, folder, common | {"peak MB": "at most 200 MB more"})
    if asked.model != "tiny":
        with scratch() as folder:
            case = smollm2(asked.steps or 8, asked.rows, folder)
            measure(case, asked.pairs, folder, common | {"peak MB": "ratio at most 1.05"})


if __name__ == "__main__":
    main()
