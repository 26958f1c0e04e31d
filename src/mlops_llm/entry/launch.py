"""`launch`: the paragraph that every `python -m mlops_llm.<stage>` is."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from pathlib import Path
from secrets import token_hex
from typing import Any

from mlops_llm import console, garbage
from mlops_llm.entry.arguments import Arguments, read, unpacked
from mlops_llm.entry.job import Outcome, Stage, single
from mlops_llm.errors import RequestError, UserError, unexpected
from mlops_llm.launch import stopping
from mlops_llm.launch.jobs import AWAY
from mlops_llm.launch.place import JOB
from mlops_llm.launch.stopping import Terminated
from mlops_llm.tracking.opening import NameTakenError
from mlops_llm.tracking.refusals import AwayError, told
from mlops_llm.tracking.store import address

MISTAKE, FAILED, INTERRUPTED, TERMINATED = 2, 1, 130, 143


def launch(stage: Stage, argv: list[str] | None = None) -> int:
    """Run a stage from a command line and return the exit code.

    0 done, 1 the work failed, 2 the request was wrong, 130 Ctrl-C, 143 SIGTERM; of a job that was handed over, 75 where its
    record did not answer before its work began. A user's mistake is one line on the error stream; `HYDRA_FULL_ERROR=1` shows
    the traceback too.
    """
    from mlops_llm.entry import config, help

    # Threads that spin long at a barrier make a small model's training six times slower as soon as other processes want the
    # cores; threads that sleep at once cost a third of the speed when none does. A short spin (of GCC's OpenMP) loses little.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    garbage.put_off()
    console.hush()
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets Hydra's errors out instead of printing them
    outcome = Outcome()
    hook = sys.unraisablehook
    try:
        arguments = read(stage.arrange(unpacked(sys.argv[1:] if argv is None else argv)))
        config.register(stage.name, stage.schema, stage.packages)
        config.name_runs(stage.name)
        if arguments.help:
            print(help.text(stage.name, stage.schema, stage.examples, config.config_folder()))
            return 0
        if arguments.informs:
            arguments.flags = [flag for flag in arguments.flags if flag not in ("-m", "--multirun")]
            config.run(stage.name, arguments, _print_nothing)
            return 0
        return _work(stage, arguments, outcome)
    except KeyboardInterrupt as stop:
        console.fail(_stopped(stage, outcome, stop))
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if wants_traceback:
            traceback.print_exc()
        return _failed(stage, argv, outcome, error)
    finally:
        garbage.take_up()
        sys.unraisablehook = hook
        if not wants_traceback:
            del os.environ["HYDRA_FULL_ERROR"]


def _failed(stage: Stage, argv: list[str] | None, outcome: Outcome, error: Exception) -> int:
    """Say in one line why a command ends, and return its exit code."""
    said = _explained(stage, argv, outcome, error)
    console.fail(str(said) if said else unexpected(error))
    if said is None:
        return FAILED
    if (isinstance(error, AwayError) or isinstance(said, AwayError)) and not outcome.begun and JOB in os.environ:
        return AWAY
    return FAILED if outcome.begun and not isinstance(error, RequestError) else MISTAKE


def _explained(stage: Stage, argv: list[str] | None, outcome: Outcome, error: Exception) -> UserError | None:
    from mlops_llm.entry import complaints, config, experiments

    said = complaints.one_line(error, stage.schema) or told(error, address())
    if outcome.begun:
        return said
    if not isinstance(error, UserError):
        words = unpacked(sys.argv[1:] if argv is None else argv)
        said = experiments.misplaced(stage.name, words, [Path.cwd() / "conf", config.config_folder()]) or said
    if said is None and isinstance(error, OSError):
        at_output = error.filename and config.is_output(Path(str(error.filename)))
        remedy = "choose another output folder" if at_output else "see that it is there, may be read, and the disk has room"
        return UserError(error.strerror or str(error), str(error.filename or ""), remedy)
    return said


def _work(stage: Stage, arguments: Arguments, outcome: Outcome) -> int:
    from mlops_llm.tracking import secrets, store

    secrets.refuse_overrides(arguments.overrides)
    if stage.in_record:
        store.check_address()
    stopping.heed()
    resumed = arguments.value("resume")
    if resumed is None and "resume=" in arguments.overrides:
        raise UserError("names no run", "resume", "give its name or id")
    if resumed:
        if not stage.resumes:
            raise UserError(f"a run of the stage '{stage.name}' does not go on", "resume", "type its command again")
        from mlops_llm.entry.elsewhere import sent_to_resume
        from mlops_llm.entry.resume import resume

        code = sent_to_resume(stage, resumed, arguments, outcome)
        if code is not None:
            return code
        return resume(stage, resumed, arguments, outcome)
    stem = (arguments.value("experiment") or stage.name).replace(",", "-").replace("/", "-")
    while True:
        name = f"{stem}-{token_hex(2)}"
        try:
            return _start(stage, arguments, name, outcome)
        except NameTakenError as error:
            if error.name != name:
                raise
            # The drawn name was drawn before, here or by someone else.


def _start(stage: Stage, arguments: Arguments, name: str, outcome: Outcome) -> int:
    """Run the job, or the jobs, of a command under a drawn name."""
    from mlops_llm.entry import config

    outcome.error = None
    config.name_runs(name)
    if arguments.multirun:
        from mlops_llm.entry.multirun import multirun

        return multirun(stage, arguments, name, outcome)

    if arguments.value("hydra/launcher"):
        from mlops_llm.entry import array

        array.refuse_one(arguments)

    def task(cfg: Any) -> None:
        try:
            single(stage, cfg, name, outcome, arguments)
        except Exception as error:
            # Hydra would print the overrides and pass the error on; it is ours to tell.
            outcome.error = error

    config.run(stage.name, arguments, task)
    if outcome.error is not None:
        raise outcome.error
    return outcome.code or (FAILED if outcome.failed else 0)


def _stopped(stage: Stage, outcome: Outcome, stop: KeyboardInterrupt) -> str:
    how = "terminated" if isinstance(stop, Terminated) else "interrupted"
    if not outcome.name:
        return f"{how} before the work began"
    if not stage.resumes:
        return f"{how}; nothing half-written is left, type the command again"
    return f"{how}; go on with: python -m mlops_llm.{stage.name} resume={shlex.quote(outcome.name)}"


def _print_nothing(config: Any) -> None:
    """Hydra prints what was asked for by itself."""
