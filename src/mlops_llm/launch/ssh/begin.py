"""From a command here to its process there, and what is known of both afterwards."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.launch import process
from mlops_llm.launch.elsewhere import LostError
from mlops_llm.launch.place import JOB, Command, without_launch
from mlops_llm.launch.sent import Sent
from mlops_llm.launch.ssh import far, parcel, route, start
from mlops_llm.launch.ssh.connection import Connection
from mlops_llm.launch.ssh.far import Far
from mlops_llm.launch.ssh.returned import Ground
from mlops_llm.launch.ssh.route import Route, Tracking
from mlops_llm.tracking import clock, door, environment, moved
from mlops_llm.tracking.store import Store, connect_to

_PASSED_ON = ("OMP_NUM_THREADS", "HF_HUB_OFFLINE", "HF_ENDPOINT")
"""Variables that mean the same on another machine."""
_PORTS = range(20000, 32000)
"""From which the tunnel's end there is taken: below those that Linux gives to outgoing connections."""
_FREE_PORT = f"""
import random, socket
for port in random.sample(range({_PORTS.start}, {_PORTS.stop}), 100):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
    print(port)
    break
"""
_SETTLE = """
from mlops_llm.errors import UserError, first_line
from mlops_llm.tracking.opening import settle
from mlops_llm.tracking.refusals import is_denied
from mlops_llm.tracking.store import check_address, connect, is_away
try:
    check_address()
except UserError as error:
    print("away", error)
else:
    try:
        settle(connect())
        print("settled")
    except Exception as error:
        print("away" if is_away(error) and not is_denied(error) else "refused", first_line(error))
"""
"""Its last line is what became of it."""
_WAIT_TO_SETTLE = 60


def begin(to: Connection, command: Command, folder: str, python: str, wish: Tracking) -> dict[str, str]:
    """Send what a command needs, and start it; return by what it is found again.

    Raises:
        LostError: the machine cannot be reached.
        UserError: it cannot be started; the run is as it was.
    """
    record = process.address_of(command, os.environ)
    store = connect_to(record)
    output, typed, location = moved.output_of(store, command.run)
    here = Path(typed if not command.adopts and typed else command.folder)
    found = far.look(to, folder, python, record if route.is_elsewhere(record) else "")
    way = _way(to, found, record, location, wish)
    work, job = (f"{found.root}/jobs/{command.run}/{each}" for each in ("work", "job"))
    parts = parcel.packed(command, here, found.root, output)
    names = {place: str((here / Path(written).expanduser()).absolute()) for written, place in parts.elsewhere.items()}
    made = {f"{work}/{place}": str((here / Path(written).expanduser()).absolute()) for written, place in parts.made.items()}
    handle = {
        "root": found.root,
        "job": job,
        "work": work,
        "python": found.python,
        "code": parts.code.place,
        "code_here": str(parts.root),
        "output": f"{work}/{_inside(Path(output), here, command.name)}",
        "output_here": output,
        "here": str(here),
        "names": json.dumps(names),
        "made": json.dumps(made),
        "route": way.kind,
        "port": str(way.port),
        "artifacts": way.root,
        "clock": f"{found.skew:.0f}",
    }
    may_run = False
    try:
        to.ask('mkdir -p "$1" "$2" && chmod 700 "${1%/*}"', job, work)
        parts.send(to, work, found.free)
        _send_notes(to, job, command.run, way)
        if not command.adopts:
            _send_output(to, Path(output), handle["output"])
            moved.point(store, command.run, handle["output"], work)
            moved.rename_in_settings(store, command.run, parts.elsewhere)
        may_run = True
        number = start.start(to, job, work, _argv(command, handle, parts.words), _variables(command, handle))
        console.say(f"process {number} on {found.name or to.host} ({to.host}:{work})")
    except BaseException:
        _take_back(to, store, command, handle, may_run)
        raise
    return handle


def _take_back(to: Connection, store: Store, command: Command, handle: Mapping[str, str], may_run: bool) -> None:
    """Leave nothing of a command that could not be started; a run that was to go on is where it was.

    Args:
        to: the machine.
        store: the record.
        command: what was to be started.
        handle: by what it would be found again.
        may_run: its process was asked for, so it may be there.
    """
    try:
        if may_run:
            start.take_back(to, handle["job"])
        if command.adopts:
            to.ask('rm -rf "${1%/*}"', handle["job"])
    except UserError as error:
        if may_run:
            remedy = f"once it can be: ssh {to.host} cat {handle['job']}/pid"
            console.warn(f"whether a process of {command.name} was begun there cannot be seen ({error.what}); {remedy}")
    if command.adopts:
        return
    moved.point(store, command.run, handle["output_here"], handle["here"])
    moved.rename_in_settings(store, command.run, json.loads(handle["names"]))


def _way(to: Connection, found: Far, record: str, location: str, wish: Tracking) -> Route:
    """The way to the record, tried as far as it can be now."""
    way = route.chosen(record, location, wish, _free_port(to, found.python), found.answers)
    if way.kind != "direct":
        route.check_forwarding(to, way.port)
    return way


def _free_port(to: Connection, python: str) -> int:
    return int(to.ask('exec "$1" -c "$2"', python, _FREE_PORT).split()[-1])


def _inside(output: Path, here: Path, name: str) -> str:
    """Where a run's folder lies below that in which its command runs there."""
    return str(output.relative_to(here)) if output.is_relative_to(here) else f"outputs/{name}"


def _send_notes(to: Connection, job: str, run: str, way: Route) -> None:
    """Send what the process is told beside its words: the state of the code, and the key of the record's door."""
    draft = route.identity_file(run).with_suffix(".json")
    draft.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft.write_text(parcel.notes(), "utf-8")
    to.send(draft, f"{job}/code.json")
    draft.unlink()
    if way.kind == "door":
        if not route.identity_file(run).exists():
            door.write_identity(route.identity_file(run))
        to.send(route.identity_file(run), f"{job}/record.pem")


def _send_output(to: Connection, output: Path, there: str) -> None:
    """Send what a run that goes on has made so far; what is there already is not sent again."""
    to.ask('mkdir -p "$1"', there)
    sent = to.send(f"{output}/", f"{there}/", "--exclude=.lock", "--exclude=.upload*/")
    console.say(f"sent the run so far: {console.size(sent)}")


def _argv(command: Command, handle: Mapping[str, str], words: tuple[str, ...]) -> list[str]:
    return [handle["python"], "-m", f"mlops_llm.{command.stage}", *without_launch(words)]


def _variables(command: Command, handle: Mapping[str, str]) -> dict[str, str]:
    """Of the process there; secrets among them travel within the script that starts it."""
    given = {name: value for name, value in command.environment.items() if name in _PASSED_ON}
    given |= route.named_secrets(command.variables, os.environ)
    given |= _known(command, handle)
    return given | {JOB: f"{handle['work']}", **({"MLFLOW_RUN_ID": command.run} if command.adopts else {})}


def _known(command: Command, handle: Mapping[str, str]) -> dict[str, str]:
    record = process.address_of(command, os.environ)
    return {
        **_route(handle).variables(record, f"{handle['job']}/record.pem"),
        "PYTHONPATH": f"{handle['code']}/src",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "MLOPS_LLM_CACHE": f"{handle['root']}/cache",
        environment.CODE: f"{handle['job']}/code.json",
        clock.CLOCK: handle["clock"],
    }


def is_left(to: Connection, job: Sent) -> bool:
    """Whether anything of a job is there still; a person may have removed it, or the machine be another by now.

    Raises:
        LostError: the machine cannot be reached.
    """
    return bool(to.ask('[ -d "$1" ] && echo yes; exit 0', job.handle["work"]).strip())


def is_unsettled(to: Connection, job: Sent) -> bool:
    """Whether an ended process has left what the record does not know, or has left no word.

    Raises:
        LostError: the machine cannot be reached.
    """
    script = '[ ! -f "$2/rc" ] || ls "$1"/outputs/.spool/*.jsonl >/dev/null 2>&1 && echo yes; exit 0'
    return bool(to.ask(script, job.handle["work"], job.handle["job"]).strip())


def settle(to: Connection, job: Sent) -> None:
    """Let the machine deliver what the record has not heard of an ended process; the way to the record must stand.

    Where that cannot be done, as its Python is gone or the record refuses it, a person is told where it lies.

    Raises:
        LostError: the machine, or from there the record, cannot be reached.
    """
    handle = job.handle
    variables = _known(job.command, handle) | {"MLOPS_LLM_PATIENCE": str(_WAIT_TO_SETTLE)}
    script = start.exported(variables) + 'cd "$1" && "$2" -c "$3"'
    try:
        said = to.ask(script, handle["work"], handle["python"], _SETTLE, patience=2 * _WAIT_TO_SETTLE + 60)
        how, _, why = said.decode("utf-8", "replace").strip().rpartition("\n")[2].partition(" ")
    except LostError:
        raise
    except UserError as error:
        how, why = "refused", error.what
    if how == "away":
        raise LostError(f"what the record has not heard yet cannot be delivered ({why})", to.host)
    if how != "settled":
        name, place = job.command.name, f"{to.host}:{handle['work']}/outputs/.spool"
        again = f"mend that, then: python -m mlops_llm.launch op=attend op.job={name}"
        console.warn(f"what the record has not heard of {name} cannot be delivered ({why}); it stays in {place}; {again}")


def ground(job: Sent) -> Ground:
    """Where a job ran, and what that is here."""
    handle = job.handle
    return Ground(
        handle["work"],
        Path(handle["here"]),
        handle["output"],
        Path(handle["output_here"]),
        json.loads(handle["made"]),
        {**json.loads(handle["names"]), handle["code"]: handle["code_here"]},
    )


def route_of(job: Sent) -> Route:
    """A job's way to the record."""
    return _route(job.handle)


def _route(handle: Mapping[str, str]) -> Route:
    return Route(handle["route"], int(handle["port"]), handle["artifacts"])
