"""A flow as a person reads it before anything is done: stages, what is there, time and disk."""

from __future__ import annotations

import contextlib

from mlops_llm import console
from mlops_llm.data.ref import record
from mlops_llm.errors import UserError
from mlops_llm.pipeline import earlier, expected, made
from mlops_llm.pipeline.expected import Expected
from mlops_llm.pipeline.flow import Flow, Step
from mlops_llm.pipeline.identity import identity, settings
from mlops_llm.pipeline.made import Made
from mlops_llm.record import Grid, Result
from mlops_llm.tracking.store import Store


def shown(flow: Flow) -> Result:
    """The plan; nothing is done, and no record is made where there is none."""
    store = record()
    there: dict[str, Made] = {}
    rows, times, sizes = [], list[float | None](), list[float]()
    for step in flow.steps:
        found, state = _state(flow, step, store, there)
        if found:
            there[step.name] = found
        elif flow.left_out(step):
            rows.append([step.name, step.operation, ", ".join(step.stage.needs) or "-", state, "-", "-"])
            continue
        values = flow.known[step.name].values
        took = expected.expected(store, settings(step.words.room, values, flow.served_by(step)), step.operation)
        if not found:
            times.append(took.seconds)
            sizes += [took.bytes] if took.bytes is not None else []
        rows.append([step.name, step.operation, ", ".join(step.stage.needs) or "-", state, *_told(took)])
    columns = ["stage", "what", "needs", "state", "time", "disk"]
    table = {
        "stages": f"{len(flow.steps)}, {sum(each.run is not None for each in there.values())} of them there",
        "time": (expected.left(times) or expected.UNKNOWN) if times else "nothing is left to do",
        "disk": (f"about {console.size(sum(sizes))}" if sizes else expected.UNKNOWN) if times else None,
    }
    commands = [f"{step.name}: {flow.named(step).shown()}".replace("[", r"\[") for step in flow.steps]
    shown = {name: value for name, value in table.items() if value is not None}
    return Result("plan of the pipeline", shown, {}, [*commands, Grid("plan", columns, rows)])


def _told(took: Expected) -> tuple[str, str]:
    return took.time, took.disk


def _state(flow: Flow, step: Step, store: Store | None, there: dict[str, Made]) -> tuple[Made | None, str]:
    """What is there of a step, and that in words."""
    missing = next((name for name in step.stage.needs if name not in there), None)
    left_out = f"left out, since {said}" if (said := flow.left_out(step)) else ""
    if missing and left_out:
        return None, left_out
    if missing:
        return None, f"to do after {missing}"
    if store is None:
        return None, left_out or "to do"
    with contextlib.suppress(UserError):
        words = step.words.put_in(lambda name, what: there[name].handed(what), flow.addresses)
        values = flow.composed(step, flow.whole(step, words)).values
        if left_out:
            return Made(step.name, None, {}, *made.inputs(values)), left_out
        found = earlier.found(store, step, identity(step.words.room, values, flow.served_by(step)), values,
                              always=step.stage.always)  # fmt: skip
        if found.made:
            return found.made, "there already"
        if found.alive:
            return None, f"runs as {found.alive.name}"
        if found.resumable and flow.known[step.name].resumes:
            return None, f"cut off: goes on with {found.resumable.name}"
        return None, found.why or "to do"
    return None, "to do"
