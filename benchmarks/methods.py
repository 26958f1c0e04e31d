"""Step time of every TRL method against a plain TRL script (`plain_trl.py`), PPO's against GRPO's, and a reward over HTTP.

On `tiny`, whose steps are the shortest there are, so that what we add to each counts the most. A training takes five to ten
seconds. Nothing is held out and one
checkpoint is written at the end, on both sides; a step's time is that of `trainer.train()` over its steps. PPO learns from as
many answers to as many prompts as GRPO, and as often (once, and twice as is its default), with its critic and its reference.
The server of the reward sleeps 50 ms a call.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from stats import Run, alternate, compare, database, fresh, process, scratch, summary

from mlops_llm.console import grid
from mlops_llm.data.read import find
from mlops_llm.models.ref import resolve

PLAIN = Path(__file__).with_name("plain_trl.py")


class Case(NamedTuple):
    """The same training for both sides."""

    experiment: str
    dataset: str
    steps: int
    batch: int
    learning_rate: float
    words: tuple[str, ...] = ()

    def ours(self) -> list[str]:
        """The command of this project."""
        return [
            sys.executable, "-m", "mlops_llm.train", f"+experiment={self.experiment}", "samples.count=0", "holdout=0",
            "register_as=null", f"trainer.max_steps={self.steps}", f"trainer.batch_size={self.batch}",
            f"trainer.learning_rate={self.learning_rate}", "trainer.schedule=constant", "trainer.warmup_ratio=0",
            "trainer.logging_steps=10", f"trainer.eval_steps={self.steps}", f"trainer.save_steps={self.steps}", *self.words,
        ]  # fmt: skip

    def plain(self, method: str) -> list[str]:
        """The command of the plain script."""
        return [
            sys.executable, str(PLAIN), "--method", method, "--model", str(resolve("tiny").folder),
            "--train", str(find(self.dataset)), "--steps", str(self.steps), "--batch", str(self.batch),
            "--learning-rate", str(self.learning_rate),
        ]  # fmt: skip


CASES = {
    "dpo": Case("dpo_sales", "sales_dpo", 60, 8, 5e-4),
    "kto": Case("kto_sales", "sales_dpo", 60, 8, 5e-4),
    "reward": Case("reward_sales", "sales_dpo", 240, 8, 5e-4),  # the shortest steps: as many as take about as long
    "grpo": Case("grpo_math", "math_grpo", 30, 64, 1e-4, ("algo.table_steps=1000",)),
    "rloo": Case("grpo_math", "math_grpo", 30, 64, 1e-4, ("algo=rloo", "algo.table_steps=1000")),
}
SAMPLED = ("algo.table_steps=1000", "algo.generations=8", "algo.max_new_tokens=24")


def ours(case: Case, existing: Path, folder: Path, weights: set[str]) -> Run:
    def run() -> dict[str, float]:
        with fresh(folder, existing) as here:
            process(case.ours(), here)
            (output,) = (here / "outputs").glob("*-*")
            weights.add(hashlib.sha256((output / f"checkpoint-{case.steps}/model.safetensors").read_bytes()).hexdigest())
            return {"step ms": json.loads((output / "result.json").read_text("utf-8"))["seconds"] / case.steps * 1000}

    return run


def plain(case: Case, method: str, folder: Path, weights: set[str]) -> Run:
    def run() -> dict[str, float]:
        with fresh(folder) as here:
            said = json.loads(process(case.plain(method), here).out.strip().splitlines()[-1])
            weights.add(said["weights"])
            return {"step ms": said["seconds"] / said["steps"] * 1000}

    return run


def methods(names: Sequence[str], pairs: int, folder: Path, existing: Path) -> None:
    for name in names:
        case, weights = CASES[name], set[str]()
        runs = {"plain": plain(case, name, folder, weights), "ours": ours(case, existing, folder, weights)}
        found = alternate(pairs, runs)
        compare(f"{name}, {case.steps} steps", found, {"step ms": "interval begins at most at 1.03"})
        print("weights: the same in all runs of both" if len(weights) == 1 else "weights: not the same (see plain_trl.py)")


def ppo(pairs: int, folder: Path, existing: Path) -> None:
    for iterations in (1, 2):
        words = (*SAMPLED, f"algo.iterations={iterations}")
        cases = {name: Case(f"{name.lower()}_math", "math_grpo", 30, 64, 1e-4, words) for name in ("GRPO", "PPO")}
        found = alternate(pairs, {name: ours(case, existing, folder, set()) for name, case in cases.items()})
        compare(f"PPO beside GRPO, 30 steps, each round learned {iterations}x", found, {"step ms": "at most 1.5"})


class Sleepy(BaseHTTPRequestHandler):
    """Rewards every answer after 50 ms."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer with as many rewards as answers."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(0.05)
        body = json.dumps({"rewards": [1.0] * len(asked["completions"])}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def http(rounds: int) -> None:
    from mlops_llm.train.reward import Answers
    from mlops_llm.train.rewards.http import Http

    server = ThreadingHTTPServer(("127.0.0.1", 0), Sleepy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    rows = []
    for concurrency in (1, 4, 8):
        url = f"http://127.0.0.1:{server.server_port}/rewards"
        reward, taken = Http(url=url, batch_size=8, concurrency=concurrency, cache=False), []
        for number in range(rounds + 1):
            texts = [f"{number} {place}" for place in range(64)]
            answers = Answers([[{"role": "user", "content": text}] for text in texts], texts, [{}] * 64)
            began = time.perf_counter()
            reward.score(answers)
            taken.append(time.perf_counter() - began)
        rows.append([concurrency, *summary(taken[1:]), f"{8 * 0.05:.3f}", f"{-(-8 // concurrency) * 0.05:.3f}"])
    server.shutdown()
    columns = ["calls at once", "seconds", "least", "most", "summed", "overlapped"]
    grid(f"64 rewards in 8 calls of 50 ms; {rounds} rounds", columns, rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", choices=[*CASES, "ppo", "http"], default=[*CASES, "ppo", "http"])
    parser.add_argument("--pairs", type=int, default=7)
    asked = parser.parse_args(argv)
    with scratch() as folder:
        existing = database(folder)
        methods([name for name in asked.methods if name in CASES], asked.pairs, folder, existing)
        if "ppo" in asked.methods:
            ppo(asked.pairs, folder, existing)
    if "http" in asked.methods:
        http(asked.pairs)


if __name__ == "__main__":
    main()
