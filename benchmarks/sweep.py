"""A sweep of merges against `mergekit-yaml` with a fresh evaluation for each point, and against the bare loop in one process.

Every side finds the perplexity of the same 20 rows of at most 128 tokens (float32) at eleven shares of two models by SLERP, and
all find the same numbers, which is checked. Ours is the whole command with an empty cache: it also writes a run for each point
and the winner with its certificate. The bare loop loads two models and a third that takes the merges, and asks it; it records
nothing. mergekit's points cost the same each, so that some of them may stand for all (--mergekit-points).

Wanted: at least 12 times as fast as mergekit, at most 1.3 of the bare loop.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import shutil
import sys
import time
from pathlib import Path

import yaml
from stats import Run, alternate, database, fresh, process, scratch

from mlops_llm.console import grid

POINTS, ROWS, TOKENS = 11, 20, 128


def rows(folder: Path, model: str, dataset: str) -> tuple[Path, Path]:
    """The rows, and what a model sees of each: token ids and the place at which the reference begins."""
    from mlops_llm.data.kinds import Kind
    from mlops_llm.data.ref import open_dataset
    from mlops_llm.eval.questions import question
    from mlops_llm.eval.rendering import answered
    from mlops_llm.eval.subject import subject
    from mlops_llm.models.load import ModelLoad

    tokenizer, taken, coded = subject(model, ModelLoad()).tokenizer, [], []
    source = open_dataset(dataset)
    for place in range(len(source.rows)):
        row = source.rows[place]
        one = question(row, Kind.sft, source.where(place))
        ids, begin = answered(tokenizer, one, one.references[0])
        if len(ids) <= TOKENS and len(taken) < ROWS:
            taken.append(dict(row))
            coded.append([ids, begin])
    if len(taken) < ROWS:
        raise SystemExit(f"{dataset} has {len(taken)} rows of at most {TOKENS} tokens")
    data, ids_file = folder / "rows.jsonl", folder / "ids.json"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in taken), "utf-8")
    ids_file.write_text(json.dumps(coded), "utf-8")
    return data, ids_file


def perplexity(model, coded: list[tuple[list[int], int]]) -> float:  # type: ignore[no-untyped-def]
    """Of all tokens of the references, in batches of 8 of like length."""
    import torch

    order = sorted(coded, key=lambda each: -len(each[0]))
    loss, count = 0.0, 0
    with torch.inference_mode():
        for first in range(0, len(order), 8):
            part = order[first : first + 8]
            most = len(part[0][0])
            ids = torch.tensor([each + [0] * (most - len(each)) for each, _ in part])
            mask = torch.tensor([[1] * len(each) + [0] * (most - len(each)) for each, _ in part])
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            for (each, begin), said in zip(part, logits, strict=True):
                found = said[: len(each) - 1].float().log_softmax(-1)
                wanted = torch.tensor(each[1:])
                loss -= float(found.gather(1, wanted[:, None])[begin - 1 :].double().sum())
                count += len(each) - begin
    return math.exp(loss / count)


def opened(folder: str):  # type: ignore[no-untyped-def]
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def evaluate(folder: str, ids: str) -> None:
    """A fresh evaluation: one model, one number."""
    print(json.dumps([perplexity(opened(folder), json.loads(Path(ids).read_text("utf-8")))]))


def bare(first: str, second: str, ids: str) -> None:
    """The loop that a person would write."""
    import torch

    one, other = (dict(opened(each).named_parameters()) for each in (first, second))
    model = opened(second)
    merged = dict(model.named_parameters())
    coded, found = json.loads(Path(ids).read_text("utf-8")), []
    for point in range(POINTS):
        t = 1.0 - point / (POINTS - 1)
        with torch.inference_mode():
            for name, into in merged.items():
                a, b = one[name], other[name]
                cosine = float(torch.dot(a.flatten(), b.flatten()) / (a.norm() * b.norm()).clamp_min(1e-30))
                if abs(cosine) > 0.9995:
                    shares = 1.0 - t, t
                else:
                    angle = math.acos(cosine)
                    shares = math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
                torch.mul(a, shares[0], out=into.data).add_(b, alpha=shares[1])
        found.append(perplexity(model, coded))
    print(json.dumps(found))


def busy() -> float:
    """Seconds of CPU that the processes took which were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sides(places: list[Path], data: Path, ids: Path, folder: Path, existing: Path, points: int) -> dict[str, Run]:
    names = [str(each) for each in places]
    kept: dict[str, list[float]] = {}
    config = folder / "merge.yml"
    layers = int(json.loads((places[0] / "config.json").read_text("utf-8"))["num_hidden_layers"])

    def mergekit() -> dict[str, float]:
        seconds, found, before = 0.0, [], busy()
        beside = Path(sys.executable).parent / "mergekit-yaml"
        for point in range(points):
            t = 1.0 - point / (POINTS - 1)
            parts = [{"sources": [{"model": name, "layer_range": [0, layers]} for name in names]}]
            settings = {"merge_method": "slerp", "base_model": names[0], "dtype": "float32", "parameters": {"t": t}}
            config.write_text(yaml.safe_dump({**settings, "slices": parts}), "utf-8")
            with fresh(folder) as here:
                merged = process([str(beside), str(config), "out", "--lazy-unpickle", "--quiet"], here)
                asked = process([sys.executable, __file__, "--evaluate", "out", str(ids)], here)
            seconds += merged.seconds + asked.seconds
            found += json.loads(asked.out.strip().splitlines()[-1])
        kept["mergekit"] = found
        return {"wall s": seconds * POINTS / points, "cpu s": (busy() - before) * POINTS / points}

    def loop() -> dict[str, float]:
        before = busy()
        with fresh(folder) as here:
            timed = process([sys.executable, __file__, "--bare", *names, str(ids)], here)
        kept["bare"] = json.loads(timed.out.strip().splitlines()[-1])
        return {"wall s": timed.seconds, "cpu s": busy() - before, "peak MB": timed.peak_mb}

    def ours() -> dict[str, float]:
        before = busy()
        words = ["op=sweep", f"models=[{','.join(names)}]", f"op.points={POINTS}", f"dataset={data}", "metric=[perplexity]"]
        with fresh(folder, existing) as here:
            command = [
                sys.executable,
                "-m",
                "mlops_llm.surgery",
                *words,
                "cache=off",
                "output=best",
                "run_name=s",
                "dtype=float32",
            ]
            timed = process(command, here)
            told = json.loads((here / "outputs/s/result.json").read_text("utf-8"))
        points = sorted(told["points"], key=lambda each: each["at"])
        kept["ours"] = [each["score"] for each in points]
        most = max(abs(a - b) / b for other in kept.values() for a, b in zip(other, kept["ours"], strict=False))
        return {"wall s": timed.seconds, "cpu s": busy() - before, "peak MB": timed.peak_mb, "numbers differ by": most}

    return {"mergekit": mergekit, "bare": loop, "ours": ours}


def parents(folder: Path, model: str) -> list[Path]:
    """Two models on two sides of one."""
    import torch
    from safetensors.torch import load_file, save_file

    from mlops_llm.models.ref import resolve

    found, source = [], resolve(model).folder
    for number, sign in enumerate((0.12, -0.08)):
        place = folder / f"model-{number}"
        shutil.copytree(source, place)
        draw = torch.Generator().manual_seed(0)
        for file in sorted(place.glob("*.safetensors")):
            tensors = {
                name: each.float() + sign * each.float().std() * torch.randn(each.shape, generator=draw)
                for name, each in load_file(file).items()
            }
            save_file(tensors, file, {"format": "pt"})
        found.append(place)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dataset", default="sales_sft")
    parser.add_argument("--mergekit-points", type=int, default=POINTS)
    parser.add_argument("--only", nargs="+", choices=["mergekit", "bare", "ours"], default=["mergekit", "bare", "ours"])
    parser.add_argument("--evaluate", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--bare", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.evaluate:
        evaluate(*asked.evaluate)
        return
    if asked.bare:
        bare(*asked.bare)
        return
    with scratch() as folder:
        began = time.perf_counter()
        places, existing = parents(folder, asked.model), database(folder)
        data, ids = rows(folder, asked.model, asked.dataset)
        print(f"prepared in {time.perf_counter() - began:.0f} s", flush=True)
        made = sides(places, data, ids, folder, existing, asked.mergekit_points)
        found = alternate(asked.rounds, {name: run for name, run in made.items() if name in asked.only})
    wanted = {"mergekit": "at least 12", "bare": "at least 1 / 1.3 = 0.77", "ours": ""}
    lines = []
    for name, runs in found.items():
        line = [name]
        for measure in ("wall s", "cpu s"):
            least = min(each[measure] for each in runs)
            own = min(each[measure] for each in found["ours"]) if "ours" in found else math.nan
            line += [f"{least:.1f}", f"{least / own:.2f}"]
        lines.append([*line, wanted[name]])
    heads = ["", "wall s", "times ours", "CPU s", "times ours", "wanted"]
    grid(f"{POINTS} points, {asked.model}; best of {asked.rounds}", heads, lines)


if __name__ == "__main__":
    main()
