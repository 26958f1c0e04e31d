"""`op=logs`."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from mlops_llm import console
from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.launch import sent
from mlops_llm.launch.elsewhere import place_of, show
from mlops_llm.launch.queue import Queue
from mlops_llm.record import Result

_PAUSE = 0.2


@component("op", "logs")
@dataclass
class Logs:
    """Show what a job has printed."""

    job: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """The job's number, or its run's name; null is the last that was started."""
    follow: bool = False
    """Go on showing until the job ends."""

    def carry_out(self) -> Result:
        """Show it."""
        job = sent.find(self.job) if self.job else None
        if job is not None:
            with suppress(KeyboardInterrupt):
                show(place_of(job), job, self.follow)
            return Result("logs", {}, {})
        queue = Queue()
        number = queue.find(self.job).number if self.job else _last(queue)
        with suppress(KeyboardInterrupt):  # the way to end the watching; the job goes on
            self._show(queue, number)
        return Result("logs", {}, {})

    def _show(self, queue: Queue, number: int) -> None:
        shown = 0
        while True:
            job = queue.find(str(number))  # before the reading, so that an ended job is read to its end
            over = job.state.ended or not self.follow
            text = _after(queue.log(number), shown)
            whole = text if over else text[: text.rfind(b"\n") + 1]
            for line in whole.decode("utf-8", "replace").splitlines():
                console.say(line)
            shown += len(whole)
            if over:
                break
            time.sleep(_PAUSE)
        if not shown:
            console.say(f"job {number} is {job.state.name} and has printed nothing")


def _after(log: Path, place: int) -> bytes:
    """What stands in a file behind a place."""
    if not log.exists():
        return b""
    with log.open("rb") as file:
        file.seek(place)
        return file.read()


def _last(queue: Queue) -> int:
    started = [job for job in queue.jobs() if job.starts]
    if not started:
        raise UserError("no job was started yet", "op.job", "see op=list")
    return max(started, key=lambda job: job.began).number
