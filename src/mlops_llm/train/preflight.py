"""What a training will need, against what this machine has: predicted, refused where it cannot fit, compared in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.files import free_bytes
from mlops_llm.models.load import Files
from mlops_llm.record import Run
from mlops_llm.train import needs
from mlops_llm.train.config import Train
from mlops_llm.train.history import Correction
from mlops_llm.train.machine import Machine
from mlops_llm.train.needs import Held, Rows


@dataclass(frozen=True)
class Case:
    """A training as its needs depend on it, with what is there for it."""

    settings: Train
    files: Files
    encoded: Sequence[Any]
    """Examples to train on, as the algorithm made them."""
    held_out: int
    machine: Machine
    disk: int
    """Bytes that are free."""
    correction: Correction = field(default_factory=Correction)
    done: int = 0
    """Steps that a resumed run has behind it."""


@dataclass(frozen=True)
class Estimate:
    """What a training needs, and what there is."""

    steps: int
    trained: int
    """Numbers that are trained."""
    parts: dict[str, int]
    """Bytes of memory at the peak by what takes them, uncorrected."""
    memory: int
    """Bytes at the peak."""
    memory_there: int
    host: int
    """Bytes of the machine's memory that offloaded parts take beside a GPU's."""
    host_there: int
    seconds: float
    """Of the steps that are left, and of their evaluations."""
    raw_seconds: float
    """The same, uncorrected."""
    checkpoint: int
    """Bytes of one checkpoint, optimizer included."""
    beside: int
    """Bytes that are written once beside the checkpoints."""
    disk: int
    """All checkpoints that are kept, with what lies beside them."""
    disk_there: int
    correction: Correction

    @property
    def raw_memory(self) -> int:
        """Bytes at the peak, uncorrected."""
        return sum(self.parts.values())

    @property
    def fixed(self) -> dict[str, int]:
        """The parts that no batch size lowers."""
        return {name: count for name, count in self.parts.items() if name != "activations"}

    @property
    def memory_least(self) -> int:
        """Bytes that no batch size lowers."""
        return min(self.memory, sum(self.fixed.values()))

    @property
    def fits(self) -> bool:
        """Whether memory and one checkpoint fit, with what lies beside it."""
        there = self.host <= self.host_there and self.checkpoint + self.beside <= self.disk_there
        return self.memory <= self.memory_there and there

    def facts(self) -> dict[str, str]:
        """The needs, as a person reads them."""
        parts = ", ".join(f"{name} {console.size(count)}" for name, count in self.parts.items() if count)
        return {
            "steps": str(self.steps),
            "peak memory": f"{console.size(self.memory)} of {console.size(self.memory_there)} ({self.correction.said})",
            "of that": f"{parts} (before correction)" if self.correction.runs else parts,
            **({"in the CPU's memory": f"{console.size(self.host)} of {console.size(self.host_there)}"} if self.host else {}),
            "time": f"{console.seconds(self.seconds)} ({self.correction.said})",
            "disk": f"{console.size(self.disk)} of {console.size(self.disk_there)} free",
        }


def estimate(case: Case) -> Estimate:
    """Predict a training's needs."""
    settings, files = case.settings, case.files
    rows = Rows(settings.algo.sequences(case.encoded), case.held_out)
    texts = _texts(files.place.folder)
    held = [*_besides(case), *needs.average(settings, files, texts)]
    whole = needs.memory(settings, files, rows, held, case.machine)
    parts, host = settings.distributed.spread(whole), settings.distributed.offloaded(whole)
    raw = needs.seconds(settings, files, rows, held, case.machine, case.done)
    memory, steps = int(sum(parts.values()) * case.correction.memory), rows.steps(settings)
    checkpoint = needs.checkpoint(settings, files, held, texts)
    learned = 0 if settings.resume else sum(one.trained for one in case.encoded)  # a resumed run has its files
    beside = learned * sum(one.written for one in held)
    return Estimate(
        steps=steps,
        trained=settings.peft.trained(files),
        parts=parts,
        memory=memory,
        memory_there=case.machine.memory,
        host=sum(host.values()),
        host_there=case.machine.host,
        seconds=raw * case.correction.seconds,
        raw_seconds=raw,
        checkpoint=checkpoint,
        beside=beside,
        disk=needs.kept(settings, steps) * checkpoint + beside,
        disk_there=case.disk,
        correction=case.correction,
    )


def refuse_impossible(case: Case, found: Estimate) -> None:
    """Warn where the estimate is above what is there, refuse where even its lower bound is; both name what would fit.

    Raises:
        UserError: what no batch size can lower does not fit into memory, what is offloaded not into the CPU's, or one
            checkpoint not onto the disk.
    """
    there = console.size(found.memory_there)
    if found.memory_least > found.memory_there:
        name, most = max(found.fixed.items(), key=lambda part: part[1])
        ref = next((one.ref for one in _besides(case) if one.name == name and one.ref), "")
        least = f"{console.size(found.memory_least)} of memory are needed ({name} {console.size(most)})"
        remedy = _remedy(case, f"a smaller {name if ref else 'model'}")
        raise UserError(f"at least {least}, {there} are there", ref or case.settings.model, remedy)
    if found.host > found.host_there:
        needed = f"{console.size(found.host)} of the CPU's memory are needed, {console.size(found.host_there)} are there"
        raise UserError(needed, case.settings.model, _remedy(case, "a smaller model"))
    if found.checkpoint + found.beside > found.disk_there:
        beside = f" and what the teacher says {console.size(found.beside)}" if found.beside else ""
        free = f"{console.size(found.disk_there)} of disk are free"
        needed = f"one checkpoint needs {console.size(found.checkpoint)}{beside}, {free}"
        raise UserError(needed, str(case.settings.output), _remedy(case, "another output="))
    if found.memory > found.memory_there:
        needed = console.size(found.memory)
        console.warn(f"about {needed} of memory may be needed, {there} are there: {_remedy(case, 'a smaller model')}")
    if found.disk > found.disk_there:
        console.warn(
            f"about {console.size(found.disk)} of disk may be needed, {console.size(found.disk_there)} are free: "
            "set trainer.save_total_limit or a larger trainer.save_steps"
        )


def _besides(case: Case) -> list[Held]:
    """Models of the method and of the rewards."""
    rewards = [one for reward in case.settings.reward.values() for one in reward.holds()]
    return [*case.settings.algo.holds(case.settings, case.files), *rewards]


def _remedy(case: Case, last: str) -> str:
    """The change that would fit."""
    from mlops_llm.train.sparing import fitting

    found = fitting(case)
    if found is None:
        return f"no setting makes it fit: take {last}"
    words, needed = found
    return f"with {' '.join(words)} it needs about {console.size(needed.memory)}"


def record(run: Run, found: Estimate, step: int) -> None:
    """Write down what was predicted, at the step from which on it was."""
    values = {
        "seconds": found.seconds,
        "memory_bytes": found.memory,
        "disk_bytes": found.disk,
        "raw_seconds": found.raw_seconds,
        "raw_memory_bytes": found.raw_memory,
        "steps": found.steps - step,
    }
    run.metrics({f"predicted/{name}": value for name, value in values.items()}, step)
    run.tags({"predicted.by": found.correction.said})


def disk_there(settings: Train) -> int:
    """Bytes that are free where the run's files will lie."""
    return free_bytes(Path(str(settings.output)))


def _texts(folder: Path) -> int:
    """Bytes of what lies with a model and goes into each checkpoint: tokenizer, template, config."""
    kinds = (".json", ".jinja", ".txt", ".model")
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file() and file.suffix in kinds)
