"""Two processes train one model as one process does; one of them is killed, and the run goes on."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from mlops_llm import component
from mlops_llm.models import tiny
from mlops_llm.models.tensors import places
from mlops_llm.record import MemoryRun, Result
from mlops_llm.train.config import PACKAGES, Samples, Train, Trainer
from mlops_llm.train.plan import Plan, prepare
from mlops_llm.train.train import fit
from tests.commands import ok, start, train, wait_for, wait_for_step
from tests.far import HOST, Machine
from tests.record import checkpoints_of, client, run_of, steps_of
from tests.security.sockets import heard_by
from tests.slurm_cluster import Cluster

STEPS = {"max_steps": 12, "eval_steps": 4, "save_steps": 4, "logging_steps": 1}
TOGETHER = ["dataset=sales_sft", *(f"trainer.{name}={value}" for name, value in STEPS.items())]
TOGETHER += ["trainer.batch_size=4", "trainer.learning_rate=2e-3", "samples.count=0", "register_as=null", "peft=none"]
TOGETHER += ["distributed=ddp", "distributed.processes=1"]
"""What one of two processes of `pair` does, over several machines."""


def fitted(
    folder: Path, algo: str, dataset: str, rate: float, how: str = "ddp", **distributed: int
) -> tuple[Result, MemoryRun]:
    """Train without the command line: 8 rows a step, whatever the number of processes."""
    for package in PACKAGES:
        component.load(package)
    batch = 8 // distributed.get("processes", 1)
    settings = Train(
        dataset=dataset,
        algo=component.build("algo", algo),
        peft=component.build("peft", "none"),
        distributed=component.build("distributed", how if distributed else "none", distributed),
        trainer=Trainer(batch_size=batch, learning_rate=rate, **STEPS),
        samples=Samples(count=2 if distributed else 0, max_new_tokens=4),
        output=str(folder),
    )
    run = MemoryRun()
    plan = prepare(settings)
    assert isinstance(plan, Plan)
    return fit(plan, run), run


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "steps.jsonl").read_text().splitlines()]


def wait_for_restart(folder: Path, name: str, process: Any) -> None:
    """Wait until the processes of a training have started again."""

    def restarted() -> bool:
        runs = client(folder).search_runs(["1"], f"run_name = '{name}'")
        return bool(runs) and runs[0].data.tags.get("restarts") == "1"

    wait_for(restarted, process)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result, MemoryRun]:
    """What two processes of this machine learned, in a folder."""
    folder = tmp_path_factory.mktemp("pair") / "two"
    return folder, *fitted(folder, "sft", "sales_sft", 2e-3, processes=2)


def test_two_processes_learn_what_one_learns(here: Path, pair: tuple[Path, Result, MemoryRun]) -> None:
    alone, _ = fitted(here / "one", "sft", "sales_sft", 2e-3)
    two, together, run = pair
    assert losses(two) == pytest.approx(losses(here / "one"), rel=1e-4)
    assert together.score == pytest.approx(alone.score, rel=0.02)  # of batches of other sizes
    # The first alone has recorded, and everything.
    assert [step for key, _, step, *_ in run.kept_metrics if key == "train/loss"] == list(range(1, 13))
    assert [each.name for each in run.checkpoints] == ["checkpoint-4", "checkpoint-8", "checkpoint-12"]
    assert len(run.artifacts["samples.json"]["after"]) == 2 and run.kept_tags["processes"] == "2"
    assert {"plots/loss.png", "steps.jsonl"} <= set(run.artifacts) and len(run.inputs) == 2
    assert [each["tokens"] for each in map(json.loads, (two / "steps.jsonl").open())] == [
        each["tokens"] for each in map(json.loads, (here / "one/steps.jsonl").open())
    ]


def test_what_lies_in_parts_is_saved_as_an_ordinary_model_that_learned_the_same(
    here: Path, pair: tuple[Path, Result, MemoryRun]
) -> None:
    """Sums over parts are rounded in another order, so that the losses are equal to five digits and not to the bit."""
    from transformers import AutoModelForCausalLM

    fitted(here / "parts", "sft", "sales_sft", 2e-3, "fsdp2", processes=2)
    assert losses(here / "parts") == pytest.approx(losses(pair[0]), rel=1e-5)
    last = here / "parts" / "checkpoint-12"
    assert form_of(last) == form_of(tiny.folder())
    model, report = AutoModelForCausalLM.from_pretrained(last, output_loading_info=True)
    assert not any(report.values()), report
    copies = AutoModelForCausalLM.from_pretrained(pair[0] / "checkpoint-12").state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, copies[name], rtol=1e-3, atol=1e-4)


def form_of(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> kind of number and shape of a model's stored tensors."""
    return {name: place[:2] for file in sorted(folder.glob("*.safetensors")) for name, place in places(file).items()}


def test_two_machines_learn_what_two_processes_learn(here: Path, pair: tuple[Path, Result, MemoryRun], slurm: Cluster) -> None:
    """Two nodes of a SLURM, each with one process; a process that is killed costs no number and no bit."""
    found = {**slurm.environment, "MLOPS_LLM_QUEUE": str(here / "state")}
    words = [*TOGETHER, "distributed.nodes=2", "distributed.restarts=1"]
    where = ["launch=slurm", "launch.nodes=2", "launch.memory=5", "launch.time=20"]
    process = start(here, *words, *where, "run_name=apart", env=found)
    wait_for_step(here, "apart", 6, process)
    workers = []
    for one in psutil.process_iter(["cmdline"]):
        if is_worker(one, here):
            one.suspend()
            workers.append(one)
    assert len(workers) == 2
    workers[1].kill()
    workers[0].resume()
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0 and "2 processes on 2 machines" in out, out + errors
    run = run_of(client(here), "apart")
    assert (run.info.status, run.data.tags["restarts"], run.data.tags["resume.verified"]) == ("FINISHED", "1", "true")
    assert steps_of(client(here), run, "train/loss") == list(range(1, 13))
    assert digests(here, "apart") == {each.name: each.tags["digest.weights"] for each in pair[2].checkpoints}


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Machine]:
    """A machine that ssh reaches and that sees the same folders."""
    machine = Machine(tmp_path / "far")
    machine.start()
    yield machine
    machine.end()


def test_a_machine_over_ssh_learns_what_a_process_here_does(
    here: Path, pair: tuple[Path, Result, MemoryRun], far: Machine
) -> None:
    """How such a training fails is in `test_machines`."""
    words = [*TOGETHER, "distributed.nodes=2", f"distributed.hosts=[{HOST}]", "distributed.address=127.0.0.1"]
    assert "2 processes on 2 machines" in ok(train(here, *words, "run_name=over", env=far.known()))
    assert digests(here, "over") == {each.name: each.tags["digest.weights"] for each in pair[2].checkpoints}


def test_processes_that_are_told_to_stop_save_at_the_same_step(here: Path, pair: tuple[Path, Result, MemoryRun]) -> None:
    granted = {"MLOPS_LLM_GRACE": "60", "MLOPS_LLM_SAVED": str(here / "saved")}
    process = start(here, *TOGETHER, "distributed.processes=2", "run_name=told", env=granted)
    wait_for_step(here, "told", 5, process)
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 143, out + errors
    step = int((here / "saved").read_text().removeprefix("saved at step "))
    assert f"told to stop: saved at step {step}\n" in out
    assert errors.endswith("go on with: python -m mlops_llm.train resume=told\n")
    assert run_of(client(here), "told").info.status == "KILLED"
    out = ok(train(here, "resume=told"))
    run = run_of(client(here), "told")
    assert (run.info.status, run.data.tags["resume.from"]) == ("FINISHED", f"checkpoint-{step}")
    assert steps_of(client(here), run, "train/loss") == list(range(1, 13))
    assert digests(here, "told") == {each.name: each.tags["digest.weights"] for each in pair[2].checkpoints}


def digests(folder: Path, name: str) -> dict[str, str]:
    """Digests of the weights of a run's checkpoints."""
    store = client(folder)
    return {each: model.tags["digest.weights"] for each, model in checkpoints_of(store, run_of(store, name)).items()}


def is_worker(one: psutil.Process, folder: Path) -> bool:
    """Whether this is a process that trains in a folder."""
    words = one.info["cmdline"] or []
    return (
        "mlops_llm.train.worker" in words
        and "-m" in words
        and "mlops_llm.train.elastic" not in words
        and (str(folder) in words[-1])
    )


def test_a_run_of_which_a_process_was_killed_goes_on(here: Path) -> None:
    fitted(here / "one", "dpo", "sales_dpo", 5e-4)
    words = [f"trainer.{name}={value}" for name, value in STEPS.items()]
    words += ["trainer.batch_size=4", "distributed=ddp", "distributed.processes=2", "samples.count=0", "register_as=null"]
    process = start(here, "+experiment=dpo_sales", *words, "run_name=two", "distributed.restarts=1")
    wait_for_step(here, "two", 5, process)
    (torchrun,) = psutil.Process(process.pid).children()
    torchrun.children()[0].kill()
    wait_for_restart(here, "two", process)
    wait_for_step(here, "two", 9, process)
    ranks = torchrun.children()
    for each in ranks:
        each.suspend()
    heard = heard_by([process.pid])
    ranks[1].kill()
    ranks[0].resume()
    assert heard == {"127.0.0.1"}, "what torch's stores are told is unpickled"
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and errors.strip().endswith(
        "process 1 of 2 ended without a word (SIGKILL: killed, or out of memory); go on with: resume=two"
    )
    again, _ = errors.strip().splitlines()
    assert again.startswith("warning: process ") and again.endswith("all start again from the last checkpoint (restart 1)")
    assert not any(each.is_running() for each in [torchrun, *ranks])
    assert run_of(client(here), "two").info.status == "FAILED"
    assert "resume verified" in ok(train(here, "resume=two"))
    assert losses(here / "outputs/two") == pytest.approx(losses(here / "one"), rel=1e-3, abs=1e-4)
    run = run_of(client(here), "two")
    assert run.data.tags["restarts"] == "1" and run.data.tags["resume.from"] == "checkpoint-8"
    assert steps_of(client(here), run, "train/loss") == list(range(1, 13))
    assert set(checkpoints_of(client(here), run)) == {"checkpoint-4", "checkpoint-8", "checkpoint-12"}
