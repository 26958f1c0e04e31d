"""Training: build, build, fit, publish."""

from __future__ import annotations

import json
import time
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from mlops_llm import console, digest
from mlops_llm.errors import UserError
from mlops_llm.files import is_disk_full
from mlops_llm.launch import stopping
from mlops_llm.models import adapter, code, digested, load, template
from mlops_llm.models.load import Task
from mlops_llm.record import NullRun, Result, Run
from mlops_llm.train import closing, machine, preflight, ranks
from mlops_llm.train.checkpoints import COMPLETE, Curves, Shelf, curves, drop_unfinished
from mlops_llm.train.closing import Course
from mlops_llm.train.job import build
from mlops_llm.train.measure import Taken
from mlops_llm.train.pairs import ScoredPairs
from mlops_llm.train.plan import Plan, warn_of_cuts
from mlops_llm.train.resuming import step_of
from mlops_llm.train.samples import GivenAnswers
from mlops_llm.train.scoring import Scoring
from mlops_llm.train.steps import Steps
from mlops_llm.train.used import PREFIX


def fit(plan: Plan, run: Run | None = None) -> Result:
    """Train as planned and record everything in `run`.

    Raises:
        UserError: the output folder is another training's, the weights are broken, or the disk fills up; earlier checkpoints
            stay whole.
    """
    run = run or NullRun()
    output = Path(str(plan.settings.output))
    if not plan.settings.resume and (output / "steps.jsonl").is_file():
        raise UserError("another training's files are there", str(output), "choose another output=")
    if plan.settings.resume:
        drop_unfinished(output)
    run.tags({f"{PREFIX}{name}": value for name, value in plan.used.items()})
    if plan.settings.distributed.several:
        from mlops_llm.train.launcher import launched

        return launched(plan, run)
    return fit_here(plan, run)


def fit_here(plan: Plan, run: Run) -> Result:
    """Train in this process, as the only one or together with others of which the first alone records.

    Raises:
        UserError: see `fit`.
    """
    output = Path(str(plan.settings.output)).absolute()
    _record_inputs(plan, run)
    job, trainer = build(plan, output, run)
    shelf = _shelf(plan, run)
    so_far = curves(plan.resume_from) if plan.resume_from else {}
    steps = Steps(output / "steps.jsonl", step_of(plan.resume_from), so_far.get("rates", {}))
    steps.watch(trainer)
    taken = Taken(steps)
    taken.watch(trainer)
    scoring = Scoring(plan, plan.questions, job.model, run) if plan.questions else None
    parting = _parting(plan)
    averager = _average(trainer, shelf, plan, scoring, parting)
    recorder = _attach(trainer, run, shelf, steps, plan, so_far, scoring, parting)
    trainer.add_callback(parting)
    sampled = (GivenAnswers if plan.settings.algo.task is Task.language else ScoredPairs)(plan, output, job.model)
    changed = _changed(plan.resume_from)
    began = time.time()
    seconds = _learn(trainer, plan, output, recorder, steps)
    if plan.settings.resume:
        _verify(run, plan, steps, changed)
    steps.close()
    run.artifact("steps.jsonl", output / "steps.jsonl")
    broken, broken_from = recorder.divergence.broken, recorder.divergence.broken_from
    if not broken:
        sampled.record(run, job.model)
    if not ranks.first():
        return Result("", {}, {})  # the first process has the whole one
    taken.record(run, [each.folder for each in shelf.checkpoints], step_of(plan.resume_from))
    averaged = averager.evaluations if averager else {}
    course = Course(
        plan,
        job,
        shelf,
        steps,
        recorder.evaluations,
        averaged,
        recorder.rewards,
        recorder.overfit,
        scoring,
        began,
        seconds,
        taken.seconds,
    )
    closing.pictures(course, run)
    if broken:
        closing.refuse_diverged(course, run, broken, broken_from)
    return closing.result(course, run)


def _learn(trainer: Any, plan: Plan, output: Path, recorder: Any, steps: Steps) -> float:
    """Let the trainer train; return the seconds. One from whose model no answer can be drawn any more has diverged."""
    clock = time.perf_counter()
    try:
        with stopping.saves():
            _train(trainer, plan, output, bool(recorder.enough))
    except RuntimeError as error:
        if _UNDRAWN not in str(error):
            raise
        steps.flush()
        step = int(trainer.state.global_step)
        recorder.divergence.end(step, f"no answer can be drawn from the model after step {step}, whose outputs are no numbers")
    return time.perf_counter() - clock


_UNDRAWN = "probability tensor contains"
"""What torch says where it is to draw from a distribution that is none."""


_MOST_PASSES = 4096


def _record_inputs(plan: Plan, run: Run) -> None:
    import torch

    for key, value in plan.facts().items():
        console.detail(f"{key}: {value}")
    warn_of_cuts(plan)
    run.input(plan.train.as_input())
    if plan.validation:
        run.input(plan.validation.as_input())
    if plan.questions:
        run.input(plan.questions.as_input())
    place = plan.files.place
    run.tags(
        {
            "base": plan.settings.model,
            "digest.base": digested.weights_digest(place),
            "task": plan.settings.algo.task.name,
            **({"base.checkpoint": place.checkpoint, "base.run": place.run} if place.checkpoint else {}),
            **({"base.adapter": plan.settings.peft.told(plan.files)} if plan.files.is_adapter else {}),
            "template.source": plan.template_source,
            "digest.template": template.template_digest(plan.tokenizer),
            "dtype": load.dtype_of(plan.settings.model_load.dtype).name,
            "device": "cuda" if torch.cuda.is_available() else "cpu",
            "device.name": plan.settings.distributed.sort(machine.device()),
            "torch.threads": str(torch.get_num_threads()),
            "processes": str(plan.settings.distributed.count),
            "trained_tokens": str(plan.trained_tokens),
            "rows.cut": str(sum(1 for one in plan.train.encoded if one.cut)),
            "rows.left_out": str(plan.train.left_out),
        }
    )
    preflight.record(run, plan.estimate, step_of(plan.resume_from))


def _shelf(plan: Plan, run: Run) -> Shelf:
    settings = plan.settings
    place = plan.files.place
    params = {
        "base": settings.model,
        "algo": type(settings.algo).__name__.lower(),
        "peft": type(settings.peft).__name__.lower(),
    }
    tags = {
        "task": settings.algo.task.name,
        "digest.template": template.template_digest(plan.tokenizer),
        "dataset": plan.train.source.name,
    }
    if place.checkpoint:
        tags |= {"parent": place.checkpoint}
    if plan.files.code:
        tags |= {code.TAG: plan.files.code}
    shelf = Shelf(run, settings.best, settings.trainer.save_total_limit, params, tags)
    if plan.resume_from:
        shelf.restore(Path(str(settings.output)))
    return shelf


def _parting(plan: Plan) -> Any:
    """What saves, at the end of a whole round of sampling, when the training is told to stop between two checkpoints."""
    from mlops_llm.train.parting import Parting

    rollout = plan.settings.algo.rollout(plan.settings.trainer)
    return Parting(Fraction(rollout.steps).limit_denominator(_MOST_PASSES).numerator if rollout else 1)


def _average(trainer: Any, shelf: Shelf, plan: Plan, scoring: Scoring | None, parting: Any) -> Any:
    """Keep the average of the weights too, where it is wanted; its callback comes before the one that records."""
    if plan.settings.ema.decay is None:
        return None
    from mlops_llm.train.averager import Averager

    averager = Averager(trainer, shelf, plan.settings.ema, partial(_complete, plan), scoring, parting)
    if plan.resume_from:
        averager.resume(plan.resume_from)
    trainer.add_callback(averager)
    return averager


def _attach(
    trainer: Any,
    run: Run,
    shelf: Shelf,
    steps: Steps,
    plan: Plan,
    so_far: Curves,
    scoring: Scoring | None,
    parting: Any,
) -> Any:
    from mlops_llm.train.callbacks import Recorder
    from mlops_llm.train.divergence import Divergence

    # The loss of a policy moves around 0, so that it cannot leap.
    divergence = Divergence(run, plan.train, 0.0 if plan.settings.algo.rewarded else plan.settings.trainer.spike)
    recorder = Recorder(run, shelf, steps, divergence, partial(_complete, plan), so_far, plan.settings, scoring, parting)
    trainer.add_callback(recorder)
    return recorder


def _complete(plan: Plan, folder: Path) -> None:
    """Say in an adapter's folder what its base is."""
    base = plan.settings.peft.base(plan.files)
    if base is not None:
        adapter.write_origin(folder, base)


def _is_last(checkpoint: Path) -> bool:
    state = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    return bool(state["global_step"] >= state["max_steps"])


def _train(trainer: Any, plan: Plan, output: Path, enough: bool) -> None:
    if plan.resume_from and (enough or _is_last(plan.resume_from)):
        if not plan.settings.distributed.sharded:
            trainer._load_from_checkpoint(str(plan.resume_from))  # the Trainer would do one more step
        return
    try:
        trainer.train(resume_from_checkpoint=str(plan.resume_from) if plan.resume_from else None)
    except Exception as error:
        if plan.resume_from and "weights_only" in str(error):
            what = "what a checkpoint remembers (a .pt or .pth file) holds more than numbers, such as code: it was not opened"
            raise UserError(what, str(plan.resume_from), "remove this checkpoint, and the one before it is taken") from error
        if not is_disk_full(error):
            raise
        cut = [folder.name for folder in output.glob("checkpoint-*") if not (folder / COMPLETE).is_file()]
        if ranks.count() == 1:  # of several processes another one may still write
            drop_unfinished(output)
        raise UserError(
            f"the disk filled up while {', '.join(cut) or 'the record'} was written; earlier checkpoints are whole",
            str(output),
            f"free some disk, then go on: resume={plan.settings.run_name}",
        ) from error


def _changed(checkpoint: Path | None) -> str:
    """Say so if the weights of the checkpoint to go on from are not those that were written."""
    if checkpoint is None:
        return ""
    facts = json.loads((checkpoint / COMPLETE).read_text("utf-8"))
    same = digest.weights(checkpoint) == facts["tags"]["digest.weights"]
    return "" if same else f"the weights of {checkpoint.name} changed since they were written"


def _verify(run: Run, plan: Plan, steps: Steps, changed: str) -> None:
    """Say whether the resumed run repeated, bit for bit, what the interrupted one had done after the checkpoint."""
    start, differs = plan.resume_from, changed or steps.differs
    verdict = "false" if differs else ("true" if steps.compared else "unproven")
    run.tags(
        {
            "resume.verified": verdict,
            "resume.from": start.name if start else "",
            "resume.steps_compared": str(steps.compared),
        }
    )
    if differs:
        run.tags({"resume.differs": differs})
        console.warn(f"the resumed run does not repeat the interrupted one: {differs}")
    elif steps.compared:
        console.say(f"resume verified: {steps.compared} steps repeated with equal batches, learning rates and losses")
    else:
        console.say("resume: the interrupted run had done no step after this checkpoint, so there was nothing to compare")
