"""The teacher of a distillation: who it is, what it says of a token, and how far the student comes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_llm import console, digest
from mlops_llm.errors import UserError
from mlops_llm.models import load
from mlops_llm.models.load import Files, ModelLoad
from mlops_llm.models.ref import resolve
from mlops_llm.models.template import IGNORED, Encoded

if TYPE_CHECKING:
    from torch import Tensor


def files(ref: str) -> Files:
    """A teacher's files.

    Raises:
        UserError: there is no such model.
    """
    return load.inspect(resolve(ref), ModelLoad())


def inspect(ref: str, student: Any) -> Files:
    """Find a teacher and see that it can teach.

    Args:
        ref: the model.
        student: the student's tokenizer.

    Raises:
        UserError: there is no such model; or its vocabulary is another one.
    """
    found = files(ref)
    mine, theirs = (vocabulary(each) for each in (student, load.tokenizer_of(found)))
    if mine != theirs:
        raise UserError(
            f"'{ref}' has another vocabulary than the student (digest {theirs[:12]}… and {mine[:12]}…)",
            "algo.teacher",
            "take a teacher of the student's family",
        )
    return found


def vocabulary(tokenizer: Any) -> str:
    """Digest of a tokenizer's tokens and their ids."""
    return digest.text(json.dumps(sorted(tokenizer.get_vocab().items(), key=lambda each: each[1])))


def loaded(files: Files, how: ModelLoad, device: Any) -> Any:
    """The teacher, frozen."""
    return load.model(files, how, merge=True).requires_grad_(False).eval().to(device)


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of softened distributions, the mean over tokens (Hinton et al. 2015, section 2.1).

    Args:
        student: logits, shape (tokens, vocabulary).
        teacher: logits of the same shape.
        temperature: T, by which both are divided.
    """
    import torch.nn.functional as F  # noqa: N812

    mine, theirs = (F.log_softmax(each.float() / temperature, -1) for each in (student, teacher))
    return F.kl_div(mine, theirs, log_target=True, reduction="batchmean") * temperature**2


def soft_loss_of_top(student: Tensor, ids: Tensor, logps: Tensor, temperature: float) -> Tensor:
    """`soft_loss` where only the teacher's most likely tokens are known; all others are one event.

    Args:
        student: logits, shape (tokens, vocabulary).
        ids: the teacher's most likely tokens, shape (tokens, k).
        logps: their log-probabilities at this temperature.
        temperature: T.
    """
    import torch

    mine = torch.log_softmax(student.float() / temperature, -1).gather(1, ids)
    rest, theirs = (torch.log1p(-each.exp().sum(1).clamp(max=1 - 1e-6)) for each in (mine, logps))
    known = (logps.exp() * (logps - mine)).sum(1)
    return (known + theirs.exp() * (theirs - rest)).mean() * temperature**2


@dataclass(frozen=True)
class Present:
    """A teacher in memory, asked at each step."""

    model: Any

    def soft_loss(self, logits: Tensor, learned: Tensor, inputs: Any, temperature: float) -> Tensor:
        """The teacher's part of the loss.

        Args:
            logits: the student's, of the learned tokens.
            learned: which of the batch's predictions these are.
            inputs: the batch.
            temperature: by which both are divided.
        """
        import torch

        with torch.no_grad():
            said = self.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False).logits
        width = min(logits.size(-1), said.size(-1))
        return soft_loss(logits[:, :width], said[:, :-1][learned][:, :width], temperature)


@dataclass(frozen=True)
class Top:
    """The teacher's most likely tokens at every learned token of some examples, on disk."""

    ids: Any
    """int32, shape (tokens, k)."""
    logps: Any
    """float32, shape (tokens, k)."""
    begins: list[int]
    """Of each example: the place of its first learned token; one more at the end."""

    def of(self, places: Sequence[int]) -> tuple[Any, Any]:
        """Ids and log-probabilities of examples, one after the other."""
        parts = [slice(self.begins[place], self.begins[place + 1]) for place in places]
        return tuple(np.concatenate([column[part] for part in parts]) for column in (self.ids, self.logps))

    def soft_loss(self, logits: Tensor, learned: Tensor, inputs: Any, temperature: float) -> Tensor:
        """The teacher's part of the loss; arguments as those of `Present.soft_loss`."""
        import torch

        ids, logps = (torch.tensor(each, device=logits.device) for each in self.of(inputs["place"].tolist()))
        return soft_loss_of_top(logits, ids.long(), logps, temperature)


def written(folder: Path, teacher: Any, examples: Sequence[Encoded], k: int, temperature: float, batch: int) -> Top:
    """Ask the teacher once for every learned token; what is on disk already is not asked again.

    Args:
        folder: where the two files go.
        teacher: the model.
        examples: rows as the student sees them.
        k: tokens that are kept.
        temperature: by which logits are divided.
        batch: examples a forward pass.
    """
    import torch
    from numpy.lib.format import open_memmap

    begins = [0]
    for one in examples:
        begins.append(begins[-1] + one.trained)
    shape, files = (begins[-1], k), (folder / "ids.npy", folder / "logps.npy")
    if not all(file.is_file() for file in files):
        folder.mkdir(parents=True, exist_ok=True)
        drafts = [file.with_suffix(".part") for file in files]
        columns = [
            open_memmap(draft, "w+", kind, shape)  # type: ignore[no-untyped-call]
            for draft, kind in zip(drafts, (np.int32, np.float32), strict=True)
        ]
        progress = console.Progress("asking the teacher", len(examples))
        for start in range(0, len(examples), batch):
            part = examples[start : start + batch]
            with torch.no_grad():
                logits = answers(teacher, part)
            logps, ids = torch.log_softmax(logits.float() / temperature, -1).topk(k, -1)
            place = slice(begins[start], begins[start + len(part)])
            columns[0][place], columns[1][place] = ids.cpu().numpy(), logps.cpu().numpy()
            progress.at(start + len(part))
        progress.close()
        for draft, file, column in zip(drafts, files, columns, strict=True):
            column.flush()
            draft.rename(file)
    return Top(np.load(files[0], mmap_mode="r"), np.load(files[1], mmap_mode="r"), begins)


def answers(model: Any, examples: Sequence[Encoded]) -> Tensor:
    """Logits of the learned tokens of some examples, one after the other: shape (tokens, vocabulary)."""
    import torch

    length = max(len(one.ids) for one in examples)
    ids = torch.zeros(len(examples), length, dtype=torch.long)
    mask, learned = torch.zeros_like(ids), torch.zeros(len(examples), length - 1, dtype=torch.bool)
    for row, one in enumerate(examples):
        ids[row, : len(one.ids)], mask[row, : len(one.ids)] = torch.tensor(one.ids), 1
        learned[row, : len(one.ids) - 1] = torch.tensor([label != IGNORED for label in one.labels[1:]])
    device = next(model.parameters()).device
    logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
    return logits[:, :-1][learned.to(device)]


@dataclass(frozen=True)
class Mark:
    """How well and how fast a model does on some examples."""

    loss: float
    """Mean cross entropy of a learned token."""
    seconds: float
    """Of all forward passes."""
    parameters: int


def mark(model: Any, examples: Sequence[Encoded], batch: int = 8) -> Mark:
    """Measure a model; neither its mode nor its weights change."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    training, total, count, seconds = model.training, 0.0, 0, 0.0
    model.eval()
    for start in range(0, len(examples), batch):
        part = examples[start : start + batch]
        wanted = torch.tensor([label for one in part for label in one.labels[1:] if label != IGNORED])
        begun = time.perf_counter()
        with torch.no_grad():
            logits = answers(model, part)
        seconds += time.perf_counter() - begun
        total += float(F.cross_entropy(logits.float(), wanted.to(logits.device), reduction="sum"))
        count += len(wanted)
    model.train(training)
    return Mark(total / max(1, count), seconds, sum(each.numel() for each in model.parameters()))


def compared(student: Mark, teacher: Mark) -> dict[str, str]:
    """How far a student comes: the ratio of the probabilities that both give to a held-out token, speed, and size."""
    reached = math.exp(teacher.loss - student.loss)
    return {
        "reaches": f"{reached:.1%} of the teacher with its last weights (loss of a held-out token {student.loss:.4f}, "
        f"the teacher's {teacher.loss:.4f})",
        "speed": f"{teacher.seconds / max(student.seconds, 1e-9):.2f} times the teacher's",
        "size": f"{student.parameters / 1e6:.2f} M parameters, {student.parameters / teacher.parameters:.0%} of the teacher",
    }
