"""`launch`: the paragraph that every `python -m mlops_llm.<stage>` is."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

from mlops_llm import console
from mlops_llm.entry.arguments import Arguments, as_typed, first_choices, quote, read
from mlops_llm.errors import UserError
from mlops_llm.record import Result, Run

MISTAKE, FAILED, INTERRUPTED, TERMINATED = 2, 1, 130, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """What the entry must know of a stage."""

    name: str
    schema: type
    """The settings: a dataclass with at least project, run_name, output, resume and seed."""
    prepare: Callable[[Any], Any]
    """Check the settings and read what is cheap to read; raises UserError before anything is recorded."""
    work: Callable[[Any, Run], Result]
    """Do the work with what `prepare` returned."""
    packages: tuple[str, ...] = ()
    """Where the stage's components are."""
    examples: tuple[str, ...] = ()


@dataclasses.dataclass
class _Outcome:
    """How the job in this process went."""

    error: BaseException | None = None
    begun: bool = False
    name: str = ""


def launch(stage: Stage, argv: list[str] | None = None) -> int:
    """Run a stage from a command line and return the exit code.

    0 done, 1 the work failed, 2 the request was wrong, 130 Ctrl-C, 143 SIGTERM. A user's mistake is one line on the error
    stream; `HYDRA_FULL_ERROR=1` shows the traceback too.
    """
    from mlops_llm.entry import config, help

    # Spinning OpenMP threads collapse to a fraction of their speed as soon as another process wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets Hydra's errors out instead of printing them
    outcome = _Outcome()
    try:
        arguments = read(sys.argv[1:] if argv is None else argv)
        config.register(stage.name, stage.schema, stage.packages)
        if arguments.help:
            print(help.text(stage.name, stage.schema, stage.examples, config.config_folder()))
            return 0
        if arguments.informs:
            arguments.flags = [flag for flag in arguments.flags if flag not in ("-m", "--multirun")]
            _hydra(stage, arguments, _print_nothing)
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
        said = config.one_line(error, stage.schema)
        if said is None and not outcome.begun and isinstance(error, OSError):
            said = UserError(error.strerror or str(error), str(error.filename or ""), "choose another output folder")
        if said is None:
            console.fail(_unexpected(error))
            return FAILED
        console.fail(str(said))
        return FAILED if outcome.begun else MISTAKE
    finally:
        if not wants_traceback:
            del os.environ["HYDRA_FULL_ERROR"]


def _work(stage: Stage, arguments: Arguments, outcome: _Outcome) -> int:
    from mlops_llm.tracking import secrets, store

    secrets.refuse_overrides(arguments.overrides)
    store.check_address()
    _heed_signals()
    resumed = arguments.value("resume")
    if resumed:
        from mlops_llm.entry.resume import resume

        return resume(stage, resumed, arguments, lambda name: _mark(outcome, name))
    if not arguments.value("run_name"):
        arguments.overrides = [item for item in arguments.overrides if not item.startswith("run_name=")]
        stem = (arguments.value("experiment") or stage.name).replace(",", "-").replace("/", "-")
        arguments.overrides.append(f"run_name={stem}-{token_hex(2)}")
    if arguments.multirun:
        from mlops_llm.entry.multirun import multirun

        return multirun(stage, arguments, _check_compositions, lambda name: _mark(outcome, name))
    output = arguments.value("output")
    extra = [quote(f"hydra.run.dir={output}")] if output and not arguments.value("hydra.run.dir") else []

    def task(cfg: Any) -> None:
        try:
            job(stage, cfg, outcome)
        except Exception as error:
            # Hydra would print the overrides and pass the error on; it is ours to tell.
            outcome.error = error

    _hydra(stage, arguments, task, extra)
    if outcome.error is not None:
        raise outcome.error
    return 0


def job(stage: Stage, cfg: Any, outcome: _Outcome | None = None, parent: str = "") -> None:
    """Run one job: settings, checks, open run, work, result."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from mlops_llm.entry import config
    from mlops_llm.tracking import secrets
    from mlops_llm.tracking.run import Opening, open_run

    outcome = outcome or _Outcome()
    hydra = HydraConfig.get()
    output = Path(hydra.runtime.output_dir)
    name = f"{cfg.run_name}-{hydra.job.num}" if parent else str(cfg.run_name)
    values = config.flat(cfg)
    secrets.refuse(values)
    opening = Opening(
        stage=stage.name,
        project=str(cfg.project),
        name=name,
        output=output,
        config=values | {f"choice.{group}": choice for group, choice in config.choices(cfg).items()},
        config_yaml=OmegaConf.to_yaml(cfg, resolve=True),
        overrides=tuple(as_typed(item) for item in hydra.overrides.task if not item.startswith("run_name=")),
        seed=cfg.seed,
        storage=cfg.checkpoints.storage.name if "checkpoints" in cfg else "auto",
        parent=parent,
    )

    if output.is_dir() and any(output.iterdir()):
        raise UserError("the output folder is not empty", str(output), "choose another output= or run_name=")

    def prepared() -> Any:
        settings = config.typed(cfg)
        settings.run_name, settings.output = name, str(output)
        return stage.prepare(settings)

    if parent:
        # A job that cannot start is a failed child of the multirun, with its reason.
        with open_run(opening) as run:
            finish(stage, prepared(), run, opening, quiet=True)
        return
    try:
        plan = prepared()
        if isinstance(plan, Result):
            console.show(plan.title, plan.table)
            return
        with open_run(opening) as run:
            _mark(outcome, name)
            finish(stage, plan, run, opening)
    finally:
        # What ended before it began leaves no empty folder.
        with suppress(OSError):
            output.rmdir()
            if output.parent.name == "outputs":
                output.parent.rmdir()


def finish(stage: Stage, plan: Any, run: Any, opening: Any, quiet: bool = False) -> None:
    """Do the work in an open run, keep its result and show it."""
    log = opening.output / f"{stage.name}.log"
    handler = console.log_to(log)
    try:
        result = stage.work(plan, run)
        text = json.dumps({**result.table, **result.values}, ensure_ascii=False, indent=2, default=str)
        run.artifact("result.json", text)
        (opening.output / "result.json").write_text(text, "utf-8")
        if result.score is not None:
            higher = str(result.higher_is_better).lower()
            run.tags({"best.score": repr(result.score), "best.metric": result.score_name, "best.higher": higher})
        if result.best and not opening.parent:
            run.register(result.best)
        elif result.best:
            run.tags({"best.registration": json.dumps(dataclasses.asdict(result.best), ensure_ascii=False)})
        if quiet:
            score = f"  {result.score_name} {console.number(result.score)}" if result.score is not None else ""
            console.say(f"{run.name} done{score}")
        else:
            console.show(result.title, result.table)
            links(run)
    except Exception:
        with log.open("a", encoding="utf-8") as file:
            file.write(traceback.format_exc())
        raise
    finally:
        run.artifact(log.name, log)
        import logging

        logging.getLogger().removeHandler(handler)
        handler.close()


def links(run: Any) -> None:
    """Say where to look at a run."""
    if run.waiting:
        console.warn(
            "the tracking server is away: the rest of the record waits on disk and is delivered by the next start here"
        )
    hint = run.hint()
    console.say(f"run {run.name} ({run.id})")
    console.say(f"look at it:  {run.link}" + (f"   (start the page with: {hint})" if hint else ""))


def _hydra(stage: Stage, arguments: Arguments, task: Callable[[Any], Any], extra: list[str] | None = None) -> None:
    import hydra

    from mlops_llm.entry import config

    before = sys.argv
    sys.argv = [before[0], *arguments.flags, *config.own_presets(), *arguments.overrides, *(extra or [])]
    try:
        hydra.main(version_base="1.3", config_path=str(config.config_folder()), config_name=stage.name)(task)()
    finally:
        sys.argv = before


def _check_compositions(stage: Stage, overrides: list[str]) -> Any:
    """Compose every swept value once, so that a typo ends a multirun before it starts; return the first job's config."""
    from mlops_llm.entry import config

    plain = [item for item in overrides if not item.startswith(("hydra.", "+hydra."))]
    composed = [config.composed(stage.name, line) for line in first_choices(plain)]
    for each in composed:
        config.typed(each)
    return composed[0]


def _mark(outcome: _Outcome, name: str) -> None:
    outcome.begun, outcome.name = True, name


def _heed_signals() -> None:
    def terminate(number: int, frame: Any) -> None:
        raise Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)


def _stopped(stage: Stage, outcome: _Outcome, stop: KeyboardInterrupt) -> str:
    how = "terminated" if isinstance(stop, Terminated) else "interrupted"
    if not outcome.name:
        return f"{how} before the work began"
    return f"{how}; go on with: python -m mlops_llm.{stage.name} resume={shlex.quote(outcome.name)}"


def _unexpected(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {text[0] if text else ''}"
    return f"{said} (unexpected; the traceback is in the run's log, or set HYDRA_FULL_ERROR=1)"


def _print_nothing(config: Any) -> None:
    """Hydra prints what was asked for by itself."""
