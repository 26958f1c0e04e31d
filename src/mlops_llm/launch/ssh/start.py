"""The process there: begun so that it outlives the connection, looked at, read and stopped, all by scripts of POSIX sh."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from mlops_llm.errors import UserError
from mlops_llm.launch.elsewhere import Look
from mlops_llm.launch.jobs import SIGNALLED, State
from mlops_llm.launch.ssh.connection import Connection

_MOST = 4_000_000
"""Bytes of output that are fetched at once."""
_SIGNAL = 128
"""A shell's exit code of a command that a signal ended is this and the signal's number."""
_START = 100
"""Tenths of a second in which the process has left its number."""
_TAKEN_BACK = 5.0
"""Seconds in which a process that is taken back may put its things in order."""
_WRAPPED = """
trap : TERM INT
set -- "$$ $(sed 's/.*) //' /proc/$$/stat | cut -d' ' -f20) $(cat /proc/sys/kernel/random/boot_id)" "$@"
echo "$1" >"$JOB_FOLDER/pid.draft" && mv "$JOB_FOLDER/pid.draft" "$JOB_FOLDER/pid" || exit 1
shift
"$@"
echo $? >"$JOB_FOLDER/rc.draft" && mv "$JOB_FOLDER/rc.draft" "$JOB_FOLDER/rc"
"""
"""Leaves the process's number with its start time and the machine's start, and at the end the exit code; where the folder for
them was taken back, nothing is begun. The trap lets it live until the command, which gets the signal too, has ended."""
_LAUNCHED = f"""
cd "$WORK_FOLDER" || exit 1
rm -f "$JOB_FOLDER/pid" "$JOB_FOLDER/rc"
setsid nohup sh -c {shlex.quote(_WRAPPED)} sh "$@" >"$JOB_FOLDER/log" 2>&1 </dev/null &
left={_START}
while [ ! -f "$JOB_FOLDER/pid" ] && [ $left -gt 0 ]; do sleep 0.1; left=$((left - 1)); done
cat "$JOB_FOLDER/pid"
"""
_LOOK = """
cd "$1" 2>/dev/null || { echo gone; exit; }
over() {
    [ -f rc ] || return
    echo "ended $(cat rc) $(grep '^error: ' log | tail -n 1 | cut -c 8-300)"
    exit
}
over
[ -f pid ] || { echo waiting; exit; }
read -r pid start boot <pid
if [ "$(cat /proc/sys/kernel/random/boot_id)" != "$boot" ]; then over; echo rebooted; exit; fi
set -- $(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null)
if [ "${20}" = "$start" ] && [ "$1" != Z ]; then echo "running $pid"; exit; fi
sleep 0.3
over
echo lost
"""
_STOP = """
cd "$1" || exit 0
read -r pid start boot <pid || exit 0
[ "$(cat /proc/sys/kernel/random/boot_id)" = "$boot" ] || exit 0
alive() {
    set -- $(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null)
    [ "${20}" = "$start" ] && [ "$1" != Z ]
}
alive || exit 0
family=$(ps -e -o pid= -o ppid= | awk -v top="$pid" '
    { parent[$1] = $2 }
    END { for (each in parent) { up = each; for (n = 0; n < 50 && up > 1; n++) {
        if (up == top) { print each; break } up = parent[up] } } }')
kill -s TERM -- "-$pid" 2>/dev/null
left=$2
while alive && [ "$left" -gt 0 ]; do sleep 0.2; left=$((left - 1)); done
kill -s KILL -- "-$pid" 2>/dev/null
for each in $family; do kill -s KILL "$each" 2>/dev/null; done
exit 0
"""


def exported(variables: Mapping[str, str]) -> str:
    """Lines of a script that set variables; the script is read from the connection and never on a disk."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(variables.items()))


def start(to: Connection, job: str, work: str, argv: Sequence[str], variables: Mapping[str, str]) -> str:
    """Start a command there; return its process number.

    Args:
        to: the machine.
        job: folder there of what belongs to the process: number, exit code, output.
        work: folder there in which it runs.
        argv: its words.
        variables: of its environment.

    Raises:
        UserError: it does not start.
    """
    own = exported({**variables, "JOB_FOLDER": job, "WORK_FOLDER": work})
    said = to.ask(own + _LAUNCHED, *argv).decode().split()
    if not said:
        raise UserError("the process does not start there", to.host, f"see {job}/log")
    return said[0]


def look(to: Connection, job: str) -> Look:
    """How a process there is.

    Raises:
        LostError: the machine cannot be reached.
    """
    return told(to.ask(_LOOK, job).decode("utf-8", "replace"))


def told(answer: str) -> Look:
    """What the script that looks has said."""
    word, _, rest = answer.strip().partition(" ")
    if word == "ended":
        code, _, error = rest.partition(" ")
        killed = int(code) > _SIGNAL and int(code) not in SIGNALLED
        note = f"its process was killed there (signal {int(code) - _SIGNAL})" if killed else error.strip()
        return Look(State.done if code == "0" else State.failed, int(code), note)
    notes = {
        "lost": (State.failed, "its process was killed there"),
        "rebooted": (State.failed, "the machine was started anew while it ran"),
        "gone": (State.failed, "its folder is gone there"),
        "waiting": (State.waiting, ""),
    }
    if word in notes:
        return Look(notes[word][0], None, notes[word][1])
    return Look(State.running, None, f"process {rest} there")


def output(to: Connection, job: str, begin: int) -> bytes:
    """What a process there has printed, from a byte on.

    Raises:
        LostError: the machine cannot be reached.
    """
    found = b""
    while True:
        part = to.ask(f'tail -c +{begin + len(found) + 1} "$1/log" 2>/dev/null | head -c {_MOST}', job)
        found += part
        if len(part) < _MOST:
            return found


def stop(to: Connection, job: str, patience: float) -> None:
    """Send SIGTERM to the process's group; what is there after `patience` seconds is killed, with all that it started.

    Raises:
        LostError: the machine cannot be reached.
    """
    to.ask(_STOP, job, str(int(patience * 5)), patience=patience + 60)


def take_back(to: Connection, job: str) -> None:
    """End a process that may have been started just now; one that has not left its number yet does not begin.

    Raises:
        LostError: the machine cannot be reached.
    """
    to.ask('mv "$1" "$1.over" 2>/dev/null; exit 0', job)
    stop(to, f"{job}.over", _TAKEN_BACK)
    to.ask('rm -rf "$1.over"', job)
