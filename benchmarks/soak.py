"""Twenty minutes of trouble: a queue of jobs of all stages, whose workers and server are killed at random, and four clients.

Afterwards every job is finished or says why, no number is missing or doubled, no file is left that nobody knows, and no alias
stands on a half model. Ends with exit code 1 and the list of what is wrong otherwise.

    python benchmarks/soak.py [--jobs 200] [--minutes 20] [--clients 4] [--seed 0]

Clients put jobs into the queue until there are enough or time is up; what still waits then is cancelled.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from mlops_llm import digest
from mlops_llm.console import grid
from mlops_llm.ports import free_port

TRAIN = ["samples.count=0", "trainer.logging_steps=1", "trainer.save_steps=3", "trainer.eval_steps=3", "trainer.max_steps=6"]
STEPS = 6
"""Optimizer steps of each training, each with its numbers in the record."""
PATIENCE = 600
"""Seconds that a command, or the server's start, may take."""
TWO_STAGES = """# python -m mlops_llm.pipeline +experiment=two
stages:
  first: {command: data op=stats dataset=sales_sft op.near=false}
  second: {command: data op=validate dataset=sales_sft, needs: [first]}
"""
KNOWN = re.compile(r"launch-|listed$|.+[.](lock$|interrupted-)")
"""Folders of the queue's own commands, which are no runs; locks; what a killed start had written, kept beside the next."""
STAGES = ("train", "data", "eval", "surgery", "registry", "pipeline")
AGAIN = ("does not answer", "cannot be reached", "has no whole checkpoint", "no run is called")
"""What a refusal says that may be asked again: the server is away, or the training that is named has not come so far."""


@dataclass
class Trouble:
    """What was killed."""

    workers: int = 0
    server: int = 0
    jobs: int = 0


@dataclass
class Field:
    """The folder, its record and its queue."""

    folder: Path
    port: int
    until: float
    trouble: Trouble = field(default_factory=Trouble)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def environment(self) -> dict[str, str]:
        """Of every command."""
        address = f"http://127.0.0.1:{self.port}"
        own = {"MLFLOW_TRACKING_URI": address, "MLOPS_LLM_QUEUE": str(self.folder / "queue"), "OMP_NUM_THREADS": "1"}
        return {**os.environ, **own, "HF_HUB_OFFLINE": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "COLUMNS": "200"}

    def start(self, *words: str, log: str) -> subprocess.Popen[bytes]:
        """Start Python with these words."""
        with (self.folder / log).open("ab") as out:
            return subprocess.Popen(
                [sys.executable, *words], cwd=self.folder, env=self.environment, stdout=out, stderr=out, start_new_session=True
            )

    def run(self, stage: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        argv = [sys.executable, "-m", f"mlops_llm.{stage}", *words]
        try:
            return subprocess.run(
                argv, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            sys.exit(f"wrong: {stage} {' '.join(words)} did not end within {PATIENCE} s")


def commands(count: int, draw: random.Random) -> Iterator[tuple[str, list[str]]]:
    """Jobs of all stages; those that need a training name one that was queued before."""
    trained: list[str] = []
    for number in range(count):
        name = f"job-{number}"
        sort = draw.choices(STAGES, [30, 25, 15, 15, 10, 5])[0] if trained else "train"
        some = [draw.choice(trained) for _ in range(2)] if trained else []
        if sort == "train":
            trained.append(name)
            words = ["+experiment=sft_sales", *TRAIN, f"seed={number}", "register_as=soak"]
        elif sort == "data":
            words = [draw.choice(["op=stats", "op=validate", "op=dedup_exact"]), "dataset=sales_sft"]
        elif sort == "eval":
            words = [
                f"model=runs:/{some[0]}/last",
                "dataset=sales_eval",
                "metric=[exact_match]",
                "limit=3",
                "sampling.max_new_tokens=4",
            ]
        elif sort == "surgery":
            words = ["op=merge_linear", f"models=[runs:/{some[0]}/last,runs:/{some[1]}/checkpoint-3]", "op.weights=[0.5,0.5]"]
        elif sort == "pipeline":
            words = ["+experiment=two"]
        else:
            words = ["op=promote", "name=soak", f"model=runs:/{some[0]}/last", "op.force=true", "op.reason='the soak'"]
        yield sort, [*words, f"run_name={name}"]


def client(ground: Field, jobs: deque[tuple[str, list[str]]], said: list[str]) -> None:
    """Queue jobs; what needs a training that is not done yet is asked for again later, as is all while the server is away."""
    while time.monotonic() < ground.until:
        try:
            stage, words = jobs.popleft()
        except IndexError:
            return
        done = ground.run(stage, *words, "launch=queue")
        last = (done.stderr.strip().splitlines() or [""])[-1]
        if done.returncode and any(each in last for each in AGAIN):
            jobs.append((stage, words))
            time.sleep(2)
        elif done.returncode and "is taken" not in last:  # taken: it was queued, and the answer was lost
            said.append(f"{stage} {' '.join(words)}: {last}")


@contextmanager
def server(ground: Field, draw: random.Random) -> Iterator[None]:
    """MLflow's server, killed now and then and started again."""
    words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(ground.port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{ground.folder / 'mlflow.db'}"]
    words += ["--default-artifact-root", f"file://{ground.folder / 'mlruns'}"]
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"

    def keep() -> None:
        while not ground.over.is_set():
            process = ground.start(*words, log="server.log")
            pause = draw.uniform(90, 240)
            ended = ground.over.wait(pause)
            if not ended and time.monotonic() < ground.until:
                kill_all(process)
                ground.trouble.server += 1
                ground.over.wait(draw.uniform(1, 8))
            elif not ended:
                ground.over.wait()
            kill_all(process)

    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        yield
    finally:
        ground.over.set()
        keeper.join()


def work(ground: Field, draw: random.Random) -> None:
    """Keep a worker on the queue, killed now and then, alone or with the job that it runs; the last one empties the queue."""
    while time.monotonic() < ground.until:
        worker = ground.start("-m", "mlops_llm.launch", "op=work", "op.workers=4", log="worker.log")
        pause = time.monotonic() + draw.uniform(20, 60)
        while time.monotonic() < min(pause, ground.until) and worker.poll() is None:
            time.sleep(0.5)
        if draw.random() < 0.5:
            children = [each for each in psutil.Process(worker.pid).children() if worker.poll() is None]
            for child in children[:1]:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                    ground.trouble.jobs += 1
        worker.kill()
        worker.wait()
        ground.trouble.workers += 1


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and those that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def finish(ground: Field) -> list[dict[str, Any]]:
    """Cancel what still waits, let what runs end, and return the jobs as the queue tells them."""
    wait_for_server(ground)
    for job in listed(ground):
        if job["state"] == "waiting":
            ground.run("launch", "op=cancel", f"op.job={job['number']}")
    left = ground.run("launch", "op=work", "op.workers=2", "op.until_empty=true")
    if left.returncode:
        sys.exit(f"the last worker failed: {left.stderr}")
    return listed(ground)


def listed(ground: Field) -> list[dict[str, Any]]:
    """The queue."""
    done = ground.run("launch", "op=list", "op.rows=1000", "run_name=listed")
    if done.returncode:
        sys.exit(done.stderr)
    file = ground.folder / "outputs/listed/result.json"
    found: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))["jobs"]
    file.unlink()
    return found


def wait_for_server(ground: Field) -> None:
    """Wait until the record answers."""
    from urllib.request import urlopen

    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with suppress(OSError), urlopen(f"http://127.0.0.1:{ground.port}/health", timeout=2):
            return
        time.sleep(1)
    sys.exit(f"wrong: the server did not answer within {PATIENCE} s")


def wrong(ground: Field, jobs: list[dict[str, Any]]) -> Iterator[str]:
    """What is not as it should be."""
    from mlflow import MlflowClient

    record = MlflowClient(f"http://127.0.0.1:{ground.port}")
    experiments = [each.experiment_id for each in record.search_experiments()]
    runs = {run.info.run_id: run for run in pages(record.search_runs, experiments)}
    yield from wrong_jobs(jobs, runs)
    for run in runs.values():
        if run.info.status in ("RUNNING", "SCHEDULED"):
            yield f"run {run.info.run_name} is {run.info.status}"
        if run.data.tags.get("stage") == "train" and run.info.status == "FINISHED":
            steps = [each.step for each in record.get_metric_history(run.info.run_id, "train/loss")]
            if sorted(steps) != list(range(1, STEPS + 1)):
                yield f"run {run.info.run_name} has its losses at steps {steps}"
    yield from wrong_files(ground.folder, {run.data.tags.get("output", "") for run in runs.values()})
    yield from wrong_models(record, experiments)
    models = {each.model_id for each in pages(lambda ids, **how: record.search_logged_models(ids, **how), experiments)}
    for each in (ground.folder / "mlruns").glob("*/*"):
        if each.name not in runs and each.name != "models":
            yield f"no run has the files in {each}"
    for each in (ground.folder / "mlruns").glob("*/models/*"):
        if each.name not in models:
            yield f"no checkpoint has the files in {each}"


def pages(search: Any, experiments: list[str]) -> Iterator[Any]:
    """All that a search finds, page by page."""
    token = None
    while True:
        found = search(experiments, max_results=500, page_token=token)
        yield from found
        token = found.token
        if not token:
            return


def wrong_jobs(jobs: list[dict[str, Any]], runs: dict[str, Any]) -> Iterator[str]:
    """Jobs without an end or a reason, or whose run says something else."""
    wanted = {"done": {"FINISHED"}, "failed": {"FAILED", "KILLED"}, "cancelled": {"KILLED"}}
    for job in jobs:
        if job["state"] not in wanted:
            yield f"job {job['number']} is {job['state']}"
        elif job["state"] != "done" and not job["reason"]:
            yield f"job {job['number']} is {job['state']} and does not say why"
        elif job["run_id"] not in runs:
            yield f"job {job['number']} has no run"
        elif runs[job["run_id"]].info.status not in wanted[job["state"]]:
            yield f"job {job['number']} is {job['state']}, and its run {runs[job['run_id']].info.status}"


def wrong_files(folder: Path, outputs: set[str]) -> Iterator[str]:
    """Files that were being written, waiting numbers, folders that no run names."""
    for each in (folder / "outputs").iterdir():
        if each.name == ".spool":
            yield from (f"numbers wait in {file.name}" for file in each.iterdir() if file.name != ".lock")
        elif str(each) not in outputs and not KNOWN.match(each.name):
            yield f"no run names {each}"
    for each in [*(folder / "outputs").rglob(".*"), *(folder / "mlruns").rglob(".*")]:
        if each.name not in (".spool", ".lock", ".complete.json"):
            yield f"a draft was left: {each}"


def wrong_models(record: Any, experiments: list[str]) -> Iterator[str]:
    """Checkpoints that count as whole and are not, and aliases on them."""
    for model in pages(lambda ids, **how: record.search_logged_models(experiment_ids=ids, **how), experiments):
        if str(model.status).rpartition(".")[2] != "READY":
            continue
        folder = Path(model.tags["checkpoint.uri"].removeprefix("file://"))
        if digest.weights(folder) != model.tags["digest.weights"]:
            yield f"the weights of {model.name} in {folder} are not those that were recorded"
    for entry in record.search_registered_models():
        for alias, version in entry.aliases.items():
            source = record.get_model_version(entry.name, version).source
            model = record.get_logged_model(source.removeprefix("models:/"))
            if str(model.status).rpartition(".")[2] != "READY":
                yield f"{entry.name}@{alias} stands on {source}, which is {model.status}"


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    asked.add_argument("--jobs", type=int, default=200)
    asked.add_argument("--minutes", type=float, default=20.0)
    asked.add_argument("--clients", type=int, default=4)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--folder", type=Path)
    given = asked.parse_args()
    with TemporaryDirectory(prefix="soak-") as made:
        ground = Field((given.folder or Path(made)).absolute(), free_port(), time.monotonic() + 60 * given.minutes)
        (ground.folder / "conf/experiment").mkdir(parents=True, exist_ok=True)
        (ground.folder / "conf/experiment/two.yaml").write_text(TWO_STAGES, "utf-8")
        draw, began, said = random.Random(given.seed), time.monotonic(), list[str]()
        with server(ground, random.Random(given.seed + 1)):
            wait_for_server(ground)
            jobs = deque(commands(given.jobs, random.Random(given.seed + 2)))
            clients = [threading.Thread(target=client, args=(ground, jobs, said)) for _ in range(given.clients)]
            for each in clients:
                each.start()
            watch = threading.Thread(target=_until_done, args=(ground, clients))
            watch.start()
            work(ground, draw)
            for each in [*clients, watch]:
                each.join()
            ended = finish(ground)
            found = [*said, *wrong(ground, ended)]
        _tell(ground, ended, found, time.monotonic() - began)
    return 1 if found else 0


def _until_done(ground: Field, clients: list[threading.Thread]) -> None:
    """End the trouble early once everything was queued and done."""
    for each in clients:
        each.join()
    while time.monotonic() < ground.until:
        time.sleep(10)
        if not any(job["state"] in ("waiting", "running") for job in listed(ground)):
            ground.until = time.monotonic()


def _tell(ground: Field, jobs: list[dict[str, Any]], found: list[str], seconds: float) -> None:
    states, stages = Counter(job["state"] for job in jobs), Counter(job["stage"] for job in jobs)
    again = sum(job["starts"] > 1 for job in jobs)
    rows = [
        ["jobs", str(len(jobs)), ", ".join(f"{name} {number}" for name, number in sorted(stages.items()))],
        ["ended as", "", ", ".join(f"{name} {number}" for name, number in sorted(states.items()))],
        ["killed", "", "workers {workers}, server {server}, jobs {jobs}".format(**vars(ground.trouble))],
        ["started more than once", str(again), ""],
        ["minutes", f"{seconds / 60:.1f}", ""],
        ["wrong", str(len(found)), ""],
    ]
    grid("soak", ["", "", ""], rows)
    for reason, number in Counter(job["reason"] for job in jobs if job["reason"]).most_common():
        sys.stdout.write(f"{number:4d}  {reason}\n")
    for each in found:
        sys.stdout.write(f"wrong: {each}\n")


if __name__ == "__main__":
    sys.exit(main())
