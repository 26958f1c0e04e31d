"""What happened at every single step, in a file beside the checkpoints: the proof that a resumed run repeats itself."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mlops_llm.files import write_text
from mlops_llm.train import ranks


@dataclass(frozen=True)
class Step:
    """One optimizer step."""

    step: int
    loss: float
    lr: float
    batch: str
    """Digest of the token ids in the step's batches, in their order (16 hex digits)."""
    tokens: int
    """Tokens seen since the run began, padding left out."""


class Seen(NamedTuple):
    """A batch that a step learned from, as NumPy arrays of shape (sequences, tokens)."""

    ids: Any
    mask: Any
    """1 where a token is no padding; None where there is no padding."""
    positions: Any
    """Place of each token in its row, where several rows are packed into a sequence; else None."""


class Steps:
    """Records each step, and after a resume compares it with what the earlier process recorded.

    Where several processes train, each knows all numbers, and only the first writes and compares; batches are its own.
    """

    def __init__(self, file: Path, done: int = 0, rates: Mapping[int, float] | None = None) -> None:
        """Begin after step `done`, with the tokens a second up to there; later steps in the file become the expectation."""
        self._file = file
        recorded = _read(file)
        kept = [each for each in recorded if each.step <= done]
        # What an earlier process did is kept beside until it was compared, over any number of interruptions.
        self._before = file.with_suffix(".before.jsonl")
        self._writes = ranks.first()
        later = [each for each in [*recorded, *_read(self._before)] if each.step > done] if self._writes else []
        self._expected = {each.step: each for each in later}
        if later:
            write_text(self._before, "".join(_line(each) for each in self._expected.values()))
        elif self._writes:
            self._before.unlink(missing_ok=True)
        self._tokens = kept[-1].tokens if kept else 0
        self.losses = {each.step: each.loss for each in kept}
        self.learning_rates = {each.step: each.lr for each in kept}
        self.rates: dict[int, float] = dict(rates or {})
        self.compared = 0
        # A difference that was found stays one, over any number of interruptions.
        self._verdict = file.with_suffix(".differs.txt")
        self.differs = self._verdict.read_text("utf-8") if done and self._verdict.is_file() else ""
        self.seconds = 0.0
        """Time spent in steps since the last `rate`: forward, backward and optimizer; not evaluations or checkpoints."""
        self.spent = 0.0
        """The same since this process began."""
        self._begun = 0.0
        self._tokens_then = self._tokens
        self._waiting: list[tuple[int, Any, float, str, int, list[Seen]]] = []
        self._losses: list[Any] = []
        self._seen: list[Seen] = []
        self.heed: Callable[[Step, Mapping[int, float], Sequence[Seen]], None] | None = None
        """Called with every closed step, the losses so far and the step's batches."""
        self._hash, self._fresh = hashlib.sha256(), 0
        if self._writes:
            write_text(file, "".join(_line(each) for each in kept))
        self._out = file.open("a", encoding="utf-8") if self._writes else None

    @property
    def tokens(self) -> int:
        """Tokens seen since the run began, in the closed steps that are written."""
        return self._tokens

    def watch(self, trainer: Any) -> None:
        """See every forward pass of a Hugging Face Trainer; of one that samples answers, what it learns from."""
        inner, prepare = trainer.training_step, trainer._prepare_inputs
        sampling = False

        def step(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal sampling
            sampling = not isinstance(inputs, dict)
            if not sampling:
                self._see(inputs["input_ids"], inputs.get("attention_mask"), inputs.get("position_ids"))
            loss = inner(model, inputs, *args, **kwargs)
            sampling = False
            self._losses.append(loss.detach())
            return loss

        def prepared(inputs: Any) -> Any:
            found = prepare(inputs)
            if sampling:
                self._see(found["prompt_ids"], found["prompt_mask"])
                self._see(found["completion_ids"], found["completion_mask"])
            return found

        trainer.training_step, trainer._prepare_inputs = step, prepared

    def _see(self, ids: Any, mask: Any, positions: Any = None) -> None:
        seen = Seen(*(None if each is None else each.cpu().numpy() for each in (ids, mask, positions)))
        self._seen.append(seen)
        self._hash.update(seen.ids.tobytes())
        self._fresh += int(seen.mask.sum()) if mask is not None else ids.numel()

    def begin(self) -> None:
        """Start the clock of a step."""
        self._begun = time.perf_counter()

    def end(self, step: int, lr: float) -> None:
        """Close a step; its loss is read from the device at the next `flush`."""
        if self._begun:
            taken = time.perf_counter() - self._begun
            self.seconds, self.spent = self.seconds + taken, self.spent + taken
        batch = self._hash.hexdigest()[:16]
        self._waiting.append((step, self._losses, lr, batch, self._fresh, self._seen))
        self._losses, self._seen, self._hash, self._fresh = [], [], hashlib.sha256(), 0
        if self._waiting[-1][1] and self._waiting[-1][1][0].device.type == "cpu":
            self.flush()

    def flush(self) -> None:
        """Write the closed steps and compare those that an earlier process has done before.

        Loss and tokens are those of all processes together, each of which calls this at the same steps.
        """
        waiting, self._waiting = self._waiting, []
        sums = ranks.sums([(sum(float(loss) for loss in losses), tokens) for _, losses, _, _, tokens, _ in waiting])
        done = []
        for (step, _, lr, batch, *_), (loss, tokens) in zip(waiting, sums, strict=True):
            self._tokens += int(tokens)
            done.append(Step(step, loss / ranks.count(), lr, batch, self._tokens))
        if self._out:
            self._out.writelines(_line(each) for each in done)
            self._out.flush()
        for each, (*_, seen) in zip(done, waiting, strict=True):
            self.losses[each.step] = each.loss
            self.learning_rates[each.step] = each.lr
            if self.heed:
                self.heed(each, self.losses, seen)
            before = self._expected.pop(each.step, None)
            if before is None:
                continue
            self.compared += 1
            if not self.differs and (found := _difference(before, each)):
                self.differs = found
                write_text(self._verdict, found)
            if not self._expected:
                self._before.unlink(missing_ok=True)

    def close(self) -> None:
        """Write what waits and close the file."""
        self.flush()
        if self._out:
            self._out.close()
            self._out = None

    def mean_loss(self, every: int) -> float:
        """Mean loss of the steps since the last multiple of `every` before the newest step."""
        last = max(self.losses)
        first = (last - 1) // every * every + 1
        window = [loss for step, loss in self.losses.items() if step >= first]
        return sum(window) / len(window)

    def rate(self) -> float | None:
        """Tokens a second in steps since the last call."""
        if not self.seconds:
            return None
        rate = (self._tokens - self._tokens_then) / self.seconds
        self.seconds, self._tokens_then = 0.0, self._tokens
        self.rates[max(self.losses)] = rate
        return rate


def _difference(before: Step, now: Step) -> str:
    for name in ("batch", "lr", "loss"):
        # As texts: an equal NaN is no difference.
        if repr(getattr(before, name)) != repr(getattr(now, name)):
            return f"step {now.step}: {name} was {getattr(before, name)}, is {getattr(now, name)}"
    return ""


def _line(step: Step) -> str:
    return json.dumps(vars(step)) + "\n"


def _read(file: Path) -> list[Step]:
    """Read the steps; a line that a crash tore is not there, and neither is any after it."""
    steps = []
    for line in file.read_text("utf-8").splitlines() if file.is_file() else []:
        try:
            steps.append(Step(**json.loads(line)))
        except (ValueError, TypeError):
            break
    return steps
