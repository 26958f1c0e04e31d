"""A flow from its first stage to its last: what is there is not done twice, what was cut off goes on, what fails is told."""

from __future__ import annotations

import logging
import re
import shlex
import time
from collections.abc import Callable
from contextlib import ExitStack, chdir
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mlops_llm import console
from mlops_llm.errors import UserError, unexpected
from mlops_llm.files import writable
from mlops_llm.pipeline import earlier, made, summary
from mlops_llm.pipeline.config import Method
from mlops_llm.pipeline.ended import Ended, State
from mlops_llm.pipeline.expected import expected, left
from mlops_llm.pipeline.flow import Flow, Step
from mlops_llm.pipeline.identity import Identity, identity, settings
from mlops_llm.pipeline.made import Made
from mlops_llm.pipeline.process import Look
from mlops_llm.pipeline.searching import searched
from mlops_llm.pipeline.serving import served
from mlops_llm.pipeline.stage import Try, begun, resumed
from mlops_llm.pipeline.words import Words
from mlops_llm.ports import is_free
from mlops_llm.record import Result, Run
from mlops_llm.tracking import ledger, nested
from mlops_llm.tracking.opening import SAYS_NO
from mlops_llm.tracking.store import Store, connect
from mlops_llm.tracking.turns import turn

_MISTAKE = 2
"""Exit code of a command whose request was wrong: to try it again helps nobody."""
_SERVER = "pipeline.server."
"""Begins the tags of a stage's run that say where its servers were, since it goes on with these addresses."""
_LOST = {State.failed: "failed", State.no: "said no", State.refused: "said no"}
_TURN = 0.5
"""Seconds between two looks at a stage that another pipeline runs."""


def carried_out(flow: Flow, run: Run) -> Result:
    """Carry a flow out.

    Args:
        flow: checked.
        run: open; those of the stages are nested in it.
    """
    with chdir(flow.folder):
        store = connect()
        work = Work(flow, store, run, ledger.find_run(store, run.name))
        began = time.time()
        for number, step in enumerate(flow.steps, 1):
            work.ended[step.name] = work.one(step, f"stage {number} of {len(flow.steps)}, {step.name}")
            counts = {"pipeline/stages": float(number), "pipeline/share": number / len(flow.steps)}
            run.metrics(counts, number)
        return summary.concluded(flow, list(work.ended.values()), store, run, began)


@dataclass
class Work:
    """A flow that is being carried out."""

    flow: Flow
    store: Store
    run: Run
    """Of the pipeline."""
    parent: ledger.RunRow
    """The same as the record has it."""
    ended: dict[str, Ended] = field(default_factory=dict)
    times: dict[str, float | None] = field(default_factory=dict)
    """Seconds that stages are expected to take."""
    over: str = ""
    """Why the pipeline ended before its last stage."""

    def __post_init__(self) -> None:
        """Look up what stages took before."""
        for step in self.flow.steps:
            if self.flow.left_out(step):
                self.times[step.name] = 0.0
                continue
            values = self.flow.known[step.name].values
            which = settings(step.words.room, values, self.flow.served_by(step))
            self.times[step.name] = expected(self.store, which, step.operation).seconds

    @property
    def output(self) -> Path:
        """The folder of the pipeline's files."""
        return Path(self.parent.tags["output"])

    def one(self, step: Step, head: str, watch: Callable[[str], bool] | None = None) -> Ended:
        """Do a stage, unless it is there, is not wanted, or cannot be done; whatever goes wrong in it is its reason.

        Args:
            step: the stage.
            head: what lines about it begin with.
            watch: of a try of a search, from its run's id to whether it is to be given up.
        """
        if self.over:
            return Ended(step, State.over, reason=self.over)
        lost = [self.ended[name] for name in step.stage.needs if not self.ended[name].state.good]
        if lost:
            return _not_begun(step, max(lost, key=lambda each: each.state.fails))
        try:
            settled = self.flow.whole(step, step.words.put_in(self._handed, self.flow.addresses))
            known = self.flow.composed(step, settled).values
            if step.when:
                holds, said = step.when.holds(self._number)
                if not holds:
                    return self._not_wanted(step, head, said, known)
            if step.stage.search.method is Method.optuna and watch is None:
                return searched(self, step, head)
            which = identity(step.words.room, known, self.flow.served_by(step))
            return self._done(step, head, which, known, watch)
        except Exception as error:
            said = str(error) if isinstance(error, UserError) else unexpected(error)
            logging.getLogger("mlops_llm").info("stage %s", step.name, exc_info=True)
            console.fail(f"stage {step.name}: {said}")
            return Ended(step, State.failed, reason=said)

    def _handed(self, name: str, what: str) -> str:
        found = self.ended[name].made
        assert found
        return found.handed(what)

    def _number(self, name: str, what: str) -> float | str:
        found = self.ended[name].made
        assert found
        return found.number(what)

    def _not_wanted(self, step: Step, head: str, said: str, known: Any) -> Ended:
        if step.stage.otherwise.name == "end":
            self.over = f"the pipeline ended at {step.name}: {said}"
            console.say(f"{head}: {said}; the pipeline ends here")
            return Ended(step, State.over, reason=said)
        console.say(f"{head}: left out, since {said}")
        return Ended(step, State.left_out, Made(step.name, None, {}, *made.inputs(known)), reason=said)

    def _done(self, step: Step, head: str, which: Identity, known: Any, watch: Callable[[str], bool] | None) -> Ended:
        """Do a stage whose inputs are known, or take what was made of them."""
        tries, awaited, barred = 0, set[str](), set[str]()
        while True:
            with ExitStack() as mine:  # nobody else begins it, until it has begun here
                mine.enter_context(turn(self.store, self.parent.id, f"stage {which.inputs}"))
                found = earlier.found(
                    self.store, step, which, known, self.parent.id, always=step.stage.always, awaited=awaited, barred=barred
                )
                if found.made:
                    console.say(f"{head}: there already, with equal inputs ({found.made.run.name if found.made.run else ''})")
                    return Ended(step, State.there, found.made)
                if found.given_up:
                    return Ended(step, State.left_out, found.given_up, reason="given up")
                ended = None if found.alive else self._tried(step, head, which, known, found, mine.close, watch)
            if found.alive:
                self._await(step, head, found.alive)
                awaited.add(found.alive.id)
            if ended is None:
                continue
            if ended.state is not State.failed:
                return ended
            if found.resumable:  # it failed to go on, so the next start is a new one
                barred.add(found.resumable.id)
                if ended.code == _MISTAKE:
                    continue
            if ended.code == _MISTAKE or tries >= step.stage.retries:
                return ended
            tries += 1
            console.warn(f"stage {step.name} failed; try {tries + 1} of {step.stage.retries + 1}")

    def _await(self, step: Step, head: str, row: ledger.RunRow) -> None:
        """Wait for a stage that runs already, left by a pipeline that was killed or by another one."""
        pid = row.tags.get("run.process", "").partition(":")[0]
        console.say(f"{head}: runs already as {row.name} (process {pid}); waiting for it")
        shown = Look(Path(row.tags.get("output", "")) / f"{step.words.room}.log", partial(self._left, step)).showing(step.name)
        while nested.lives(ledger.find_run(self.store, row.id)):
            time.sleep(_TURN)
            shown()

    def _tried(
        self,
        step: Step,
        head: str,
        which: Identity,
        known: Any,
        found: earlier.Found,
        begins: Callable[[], None],
        watch: Callable[[str], bool] | None,
    ) -> Ended:
        """One start of a stage's command; `begins` is called when the record knows of it."""
        log = writable(self.output / "logs") / f"{step.name}.log"
        row = found.resumable
        ports = _ports(row) if row else {}
        goes_on = row is not None and self.flow.known[step.name].resumes and all(map(is_free, ports.values()))
        with served(self.flow.settings.servers, step.words.servers, ports if goes_on else {}, log.parent) as addresses:
            words = self.flow.whole(step, step.words.put_in(self._handed, addresses))
            if row and goes_on:
                console.say(f"{head}: going on with {row.name}")
                attempt = resumed(self.store, row, self.parent)
            else:
                console.say(f"{head}: {step.operation}{self._outlook(found)}")
                tags = {f"{_SERVER}{name}": address for name, address in addresses.items()}
                tags[nested.OPERATION] = step.operation
                folder = self.flow.known[step.name].folder
                attempt = begun(self.store, step.name, words, which, self.parent, folder, tags)
            begins()
            began = time.perf_counter()
            given_up = partial(watch, attempt.run.id) if watch else _never
            code = attempt.carried_out(step.name, Look(log, partial(self._left, step), given_up))
        return self._ended(step, words, attempt, code, time.perf_counter() - began, log, known)

    def _outlook(self, found: earlier.Found) -> str:
        """Why a stage is done again, and how long all takes that is left."""
        ahead = left([self.times[each.name] for each in self.flow.steps if each.name not in self.ended])
        return (f" ({found.why})" if found.why else "") + (f"; all that is left takes {ahead}" if ahead else "")

    def _left(self, step: Step, seconds: float) -> str:
        """How long all takes that is left, once a stage has run for so many seconds."""
        ahead = [self.times[each.name] for each in self.flow.steps if each.name not in self.ended and each is not step]
        own = self.times.get(step.name)
        return left([None if own is None else max(0.0, own - seconds), *ahead])

    def _ended(self, step: Step, words: Words, attempt: Try, code: int, seconds: float, log: Path, known: Any) -> Ended:
        """What became of a start."""
        row = nested.row(self.store, attempt.run.id)
        if code == 0 and row.status == "FINISHED":
            attempt.measure(self.store, row, seconds)
            one = Ended(step, State.done, made.of_run(self.store, step.name, row, known), seconds, log=log)
            console.say(f"  {step.name}: done in {console.seconds(seconds)}" + "".join(
                f"; {each}" for each in (one.told, one.ref) if each))  # fmt: skip
            return one
        said = attempt.closed(self.store, row, code, log)
        if earlier.GIVEN_UP in row.tags:
            return Ended(step, State.left_out, made.Made(step.name, row), seconds, "given up", log=log)
        alone = words.shown()
        if SAYS_NO in row.tags:
            state = State.refused if step.stage.decides else State.no
            (console.say if step.stage.decides else console.warn)(f"stage {step.name} was done and says no; its log: {log}")
            return Ended(step, state, made.of_run(self.store, step.name, row, known), seconds, log=log, code=code)
        resumable = self.flow.known[step.name].resumes and earlier.can_go_on(self.store, nested.row(self.store, row.id))
        if resumable:
            alone = f"python -m mlops_llm.{step.words.room} resume={shlex.quote(row.name)}"
        console.fail(f"stage {step.name} failed after {console.seconds(seconds)}: {said}")
        console.say(f"  its log: {log}")
        console.say(f"  alone:   {alone}")
        return Ended(step, State.failed, None, seconds, said, alone, log, code)


def _not_begun(step: Step, before: Ended) -> Ended:
    """The end of a stage that needs one which did not end well."""
    reason = f"needs {before.step.name}, which {_LOST.get(before.state, 'was not done')}"
    if before.state.fails:
        console.warn(f"stage {step.name} is not begun: it {reason}")
        return Ended(step, State.lost, reason=reason)
    console.say(f"stage {step.name} is left out: it {reason}")
    return Ended(step, State.over, reason=reason)


def _never() -> bool:
    return False


def _ports(row: ledger.RunRow) -> dict[str, int]:
    """Ports of the servers that a run knows, whose addresses are among its settings."""
    named = {key.removeprefix(_SERVER): value for key, value in row.tags.items() if key.startswith(_SERVER)}
    return {name: int(found[1]) for name, value in named.items() if (found := re.search(r":(\d+)$", value))}
