"""One job: settings, checks, open run, work, result."""

from __future__ import annotations

import dataclasses
import json
import logging
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from mlops_llm import console, garbage
from mlops_llm.entry import config
from mlops_llm.entry.arguments import Arguments, as_typed
from mlops_llm.errors import UserError
from mlops_llm.files import write_text
from mlops_llm.launch.place import without_launch
from mlops_llm.record import Grid, Result, Run
from mlops_llm.tracking import ledger, secrets
from mlops_llm.tracking.opening import SAYS_NO, open_run
from mlops_llm.tracking.run import MlflowRun, Opening
from mlops_llm.tracking.store import check_project, connect


def _always(settings: Any) -> bool:
    return True


def _nothing(settings: Any) -> None:
    """Foresees nothing."""


def _no_variables(settings: Any) -> Iterable[str]:
    return ()


def _named(settings: Any) -> str:
    return str(getattr(settings, "project", ""))


@dataclasses.dataclass(frozen=True)
class Stage:
    """What the entry must know of a stage."""

    name: str
    schema: type
    """The settings: a dataclass with run_name, and with project, resume, seed and launch where its commands leave runs."""
    prepare: Callable[[Any], Any]
    """Check the settings and read what is cheap to read; raises UserError before anything is recorded."""
    work: Callable[[Any, Run], Result]
    """Do the work with what `prepare` returned."""
    packages: tuple[str, ...] = ()
    """Where the stage's components are."""
    examples: tuple[str, ...] = ()
    folder: str = "output"
    """The setting that names the folder of the run's files; empty where the user cannot choose it."""
    resumes: bool = True
    """Whether an interrupted run can go on."""
    instead: str = "to train further, start from it: model=runs:/{run}/last"
    """What one does who would go on with a finished run; {run} stands for its name."""
    foresee: Callable[[Any], None] = _nothing
    """Checks what can be seen of each job of a sweep, at little cost, before the first one begins."""
    home: Callable[[Any], str] = _named
    """The project that a run of these settings belongs to."""
    arrange: Callable[[list[str]], list[str]] = list
    """Writes a command in the form that its settings have."""
    records: Callable[[Any], bool] = _always
    """Whether what the settings ask for leaves a run."""
    variables: Callable[[Any], Iterable[str]] = _no_variables
    """Environment variables that other commands name which stand in the settings: keys; raises UserError of a wrong command."""

    @property
    def in_record(self) -> bool:
        """Whether its commands have to do with the record."""
        return any(field.name == "project" for field in dataclasses.fields(self.schema))


@dataclasses.dataclass
class Outcome:
    """How the work in this process went."""

    error: BaseException | None = None
    begun: bool = False
    failed: bool = False
    """The work was done and says no."""
    code: int = 0
    """Exit code of the process that did the work elsewhere."""
    name: str = ""
    """The run to go on with."""

    def begin(self, name: str) -> None:
        """From now on an error is one of the work, not of the request."""
        self.begun, self.name = True, name


def single(stage: Stage, cfg: Any, name: str, outcome: Outcome, arguments: Arguments) -> None:
    """Run the one job of a command, or hand it over; `name` is for a run that its settings do not name."""
    from mlops_llm.entry import elsewhere
    from mlops_llm.entry.elsewhere import Asked

    try:
        opening = _opening(stage, cfg, str(cfg.run_name or name))
        settings = config.typed(cfg)
        if "launch" in cfg and elsewhere.wanted(settings.launch):
            outcome.code = elsewhere.send(stage, [Asked(settings, opening.config)], opening, arguments, outcome)
            return
        if any(item.startswith("project=") for item in arguments.overrides):
            check_project(opening.project)
        plan = _prepared(stage, settings, opening)
        if isinstance(plan, Result):
            outcome.failed, outcome.code = plan.failed, plan.code
            if plan.values:
                _keep(plan, opening.output)
            _show(plan)
            return
        with open_run(opening) as run:
            outcome.begin(opening.name)
            outcome.failed = finish(stage, plan, run, opening).failed
    finally:
        config.leave_nothing(Path(HydraConfig.get().runtime.output_dir))


def child(stage: Stage, cfg: Any, parent: str) -> None:
    """Run a job of a multirun; one that cannot start is a failed child, with its reason."""
    opening = _opening(stage, cfg, job_name(cfg), parent)
    with console.labelled(opening.name), open_run(opening) as run:
        finish(stage, _prepared(stage, config.typed(cfg), opening), run, opening, quiet=True)


def job_name(cfg: Any) -> str:
    """Name of the run of a multirun's job."""
    return f"{cfg.run_name}-{HydraConfig.get().job.num}"


def _opening(stage: Stage, cfg: Any, name: str, parent: str = "") -> Opening:
    """What is known of a job's run before it starts.

    Raises:
        UserError: a setting holds a credential, a run is to be resumed from within a preset, or the output folder is in use.
    """
    hydra = HydraConfig.get()
    output = Path(hydra.runtime.output_dir)
    if cfg.get("resume"):
        raise UserError("stands in a preset", "resume", "give it on the command line, alone")
    config.drop_unchosen(cfg, stage.schema, hydra.overrides.task)
    cfg.run_name = name
    recorded = config.what(cfg)
    values = config.flat(recorded)
    secrets.refuse(values)
    refuse_in_use(output)
    experiment = hydra.runtime.choices.get("experiment@_global_")
    return Opening(
        stage=stage.name,
        project=ledger.find_run(connect(), parent).project if parent else stage.home(config.typed(cfg)),
        name=name,
        output=output,
        config=values
        | {f"choice.{group}": choice for group, choice in config.choices(recorded).items()}
        | ({"experiment": experiment} if experiment else {}),
        config_yaml=OmegaConf.to_yaml(recorded, resolve=True),
        overrides=tuple(as_typed(item) for item in without_launch(hydra.overrides.task) if not item.startswith("run_name=")),
        seed=cfg.get("seed"),
        storage=cfg.checkpoints.storage.name if "checkpoints" in cfg else "auto",
        parent=parent,
    )


def refuse_in_use(output: Path) -> None:
    """See that a run's folder is its own.

    Raises:
        UserError: something is in it.
    """
    if output.is_dir() and any(output.iterdir()):
        raise UserError("the output folder is not empty", str(output), "choose another output= or run_name=")


def _prepared(stage: Stage, settings: Any, opening: Opening) -> Any:
    if stage.folder:
        setattr(settings, stage.folder, str(opening.output))
    return stage.prepare(settings)


def finish(stage: Stage, plan: Any, run: MlflowRun, opening: Opening, quiet: bool = False) -> Result:
    """Do the work in an open run, keep its result and show it.

    Raises:
        UserError: parts of it failed.
    """
    result = _worked(stage, plan, run, opening, quiet)
    if result.broken:
        raise result.broken
    return result


def _worked(stage: Stage, plan: Any, run: MlflowRun, opening: Opening, quiet: bool) -> Result:
    log = opening.output / f"{stage.name}.log"
    handler = console.log_to(log, secrets.mask)
    garbage.settle()
    try:
        result = stage.work(plan, run)
        run.artifact("result.json", _keep(result, opening.output))
        if result.failed:
            run.tags({SAYS_NO: "true"})
        if result.score is not None:
            higher = str(result.higher_is_better).lower()
            run.tags({"best.score": repr(result.score), "best.metric": result.score_name, "best.higher": higher})
        if result.best and not opening.parent:
            run.register(result.best)
        elif result.best:
            run.tags({"best.registration": json.dumps(dataclasses.asdict(result.best), ensure_ascii=False)})
        if quiet:
            score = f"  {result.score_name} {console.number(result.score)}" if result.score is not None else ""
            console.say(f"done{score}")
        else:
            _show(result)
            links(run)
        return result
    except Exception:
        with log.open("a", encoding="utf-8") as file:
            file.write(secrets.mask(traceback.format_exc()))
        raise
    finally:
        run.artifact(log.name, log)
        logging.getLogger().removeHandler(handler)
        handler.close()


def _keep(result: Result, output: Path) -> str:
    text = json.dumps({**result.table, **result.values}, ensure_ascii=False, indent=2, default=str)
    write_text(output / "result.json", text, "backslashreplace")
    return text


def _show(result: Result) -> None:
    for each in result.shown:
        if isinstance(each, Grid):
            console.grid(each.title, each.columns, each.rows)
        else:
            console.text(each)
    if result.table:
        console.show(result.title, result.table)


def links(run: MlflowRun) -> None:
    """Say where to look at a run."""
    if run.waiting:
        console.warn("the record still cannot be reached: the rest of it waits on disk and is delivered by the next start here")
    hint = run.hint()
    console.say(f"run {run.name} ({run.id})")
    console.say(f"look at it:  {run.link}" + (f"   (start the page with: {hint})" if hint else ""))
