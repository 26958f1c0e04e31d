"""Training: build, build, fit, publish."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlops_llm import console, digest
from mlops_llm.errors import UserError
from mlops_llm.files import is_disk_full
from mlops_llm.models import adapter, load, template
from mlops_llm.models.load import Files, ModelLoad, Task
from mlops_llm.record import NullRun, Registration, Result, Run
from mlops_llm.train import machine, preflight, ranks, samples
from mlops_llm.train.answers import answers
from mlops_llm.train.checkpoints import COMPLETE, Shelf, curves, drop_unfinished
from mlops_llm.train.config import Train
from mlops_llm.train.distributed import save_tied_once
from mlops_llm.train.measure import Taken
from mlops_llm.train.pairs import ScoredPairs
from mlops_llm.train.peft import whole_numbers
from mlops_llm.train.plan import Plan, step_of, warn_of_cuts
from mlops_llm.train.sampler import Sampler
from mlops_llm.train.scoring import Scoring, newest
from mlops_llm.train.steps import Steps


@dataclass(frozen=True)
class Job:
    """What an algorithm builds its trainer from."""

    model: Any
    tokenizer: Any
    train: Sequence[Any]
    """Examples, as the algorithm's `encode` made them."""
    validation: Sequence[Any]
    arguments: dict[str, Any]
    """Keyword arguments of TRL's config class, the same for every algorithm."""
    adapter: bool
    """An adapter is trained, the base stays."""
    new_adapter: bool
    """The adapter is new: until the first step the model is its base."""
    load: ModelLoad
    """How models are loaded."""
    start: Files
    """The start model."""
    rewards: Mapping[str, Any]
    """Name -> reward (`train.reward.Reward`)."""
    rollout: Sampler
    """What samples answers."""
    run: Run
    processes: int
    """How many train together."""


def fit(plan: Plan, run: Run | None = None) -> Result:
    """Train as planned and record everything in `run`.

    Raises:
        UserError: the weights are broken, or the disk fills up; earlier checkpoints stay whole.
    """
    run = run or NullRun()
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
    job, trainer = _build(plan, output, run)
    shelf = _shelf(plan, run)
    so_far = curves(plan.resume_from) if plan.resume_from else {}
    steps = Steps(output / "steps.jsonl", step_of(plan.resume_from), so_far.get("rates", {}))
    steps.watch(trainer)
    taken = Taken(steps)
    taken.watch(trainer)
    scoring = Scoring(plan, plan.questions, job.model, run) if plan.questions else None
    averager = _average(trainer, shelf, plan, scoring)
    recorder = _attach(trainer, run, shelf, steps, plan, so_far.get("evaluations", {}), scoring)
    sampled = (_Sampled if plan.settings.algo.task is Task.language else ScoredPairs)(plan, output, job.model)
    changed = _changed(plan.resume_from)
    began, clock = time.time(), time.perf_counter()
    _train(trainer, plan, output, bool(recorder.enough))
    seconds = time.perf_counter() - clock
    if plan.settings.resume:
        _verify(run, plan, steps, changed)
    run.artifact("steps.jsonl", output / "steps.jsonl")
    broken = recorder.divergence.broken
    if not broken:
        sampled.record(run, job.model)
    if not ranks.first():
        return Result("", {}, {})  # the first process has the whole one
    averaged = averager.evaluations if averager else {}
    _figures(run, steps, shelf, recorder, averaged)
    if broken:
        _refuse_diverged(run, shelf, broken, evaluated=_is_decided(plan))
    taken.record(run, [each.folder for each in shelf.checkpoints], step_of(plan.resume_from))
    return _result(plan, job, shelf, recorder, averaged, steps, began, seconds, taken.seconds, scoring)


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
            "digest.base": load.weights_digest(place),
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


def _build(plan: Plan, output: Path, run: Run) -> tuple[Any, Any]:
    """Build model (in the job) and trainer; the seed comes first, since a new adapter is random."""
    _quiet()
    from transformers import PrinterCallback, set_seed

    settings = plan.settings
    set_seed(settings.seed)
    model = settings.peft.load(plan.files, settings.model_load, settings.algo.task)
    job = Job(
        model,
        plan.tokenizer,
        plan.train.encoded,
        plan.validation.encoded if plan.validation else (),
        _arguments(plan, output),
        settings.peft.trains_adapter,
        settings.peft.base(plan.files) is plan.files,
        settings.model_load,
        plan.files,
        settings.reward,
        settings.rollout,
        run,
        settings.distributed.count,
    )
    with whole_numbers(model):
        trainer = settings.algo.trainer(job)
    settings.distributed.confirm(trainer)
    if settings.distributed.sharded:
        save_tied_once(trainer)
    trainer.remove_callback(PrinterCallback)
    trainer.create_model_card = _no_card  # TRL's would lie in the run's folder and say nothing that is known here
    return job, trainer


def _quiet() -> None:
    """Keep what libraries print of their own doings off the terminal."""
    from datasets import disable_progress_bars

    disable_progress_bars()
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "TRL currently supports vLLM")  # said also where no vLLM is used
    if not sys.stderr.isatty():
        os.environ["TQDM_DISABLE"] = "1"


def _no_card(*args: Any, **kwargs: Any) -> None:
    """Write no model card."""


def _arguments(plan: Plan, output: Path) -> dict[str, Any]:
    import torch

    settings, trainer = plan.settings, plan.settings.trainer
    dtype = load.dtype_of(settings.model_load.dtype).name
    cuda = torch.cuda.is_available()
    return {
        "output_dir": str(output),
        "max_steps": trainer.max_steps,
        "num_train_epochs": trainer.epochs,
        "per_device_train_batch_size": trainer.batch_size,
        "per_device_eval_batch_size": trainer.batch_size,
        "gradient_accumulation_steps": trainer.gradient_accumulation_steps,
        "learning_rate": trainer.learning_rate,
        "lr_scheduler_type": trainer.schedule.value,
        "warmup_steps": trainer.warmup_ratio,
        "weight_decay": trainer.weight_decay,
        "max_grad_norm": trainer.max_grad_norm,
        "logging_steps": trainer.logging_steps,
        "eval_strategy": "steps" if plan.validation else "no",
        "eval_steps": trainer.eval_steps,
        "eval_on_start": bool(plan.validation) and plan.resume_from is None,
        "save_strategy": "steps",
        "save_steps": trainer.save_steps,
        "gradient_checkpointing": trainer.gradient_checkpointing,
        "bf16": cuda and dtype == "bfloat16",
        "fp16": cuda and dtype == "float16",
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "report_to": "none",
        "disable_tqdm": True,
        **settings.distributed.arguments(settings),
    }


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
    shelf = Shelf(run, settings.best, settings.trainer.save_total_limit, params, tags)
    if plan.resume_from:
        shelf.restore(Path(str(settings.output)))
    return shelf


def _average(trainer: Any, shelf: Shelf, plan: Plan, scoring: Scoring | None) -> Any:
    """Keep the average of the weights too, where it is wanted; its callback comes before the one that records."""
    if plan.settings.ema.decay is None:
        return None
    from mlops_llm.train import callbacks, ema

    averager = ema.averager(trainer, shelf, plan.settings.ema, partial(_complete, plan), callbacks.evaluation, scoring)
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
    evaluated: Mapping[int, Any],
    scoring: Scoring | None,
) -> Any:
    from mlops_llm.train.callbacks import Recorder
    from mlops_llm.train.divergence import Divergence

    # The loss of a policy moves around 0, so that it cannot leap.
    divergence = Divergence(run, plan.train, 0.0 if plan.settings.algo.rewarded else plan.settings.trainer.spike)
    recorder = Recorder(run, shelf, steps, divergence, partial(_complete, plan), evaluated, plan.settings, scoring)
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
    if plan.settings.resume:
        with ranks.first_before_others():
            drop_unfinished(output)
    if plan.resume_from and (enough or _is_last(plan.resume_from)):
        if not plan.settings.distributed.sharded:
            trainer._load_from_checkpoint(str(plan.resume_from))  # the Trainer would do one more step
        return
    try:
        trainer.train(resume_from_checkpoint=str(plan.resume_from) if plan.resume_from else None)
    except Exception as error:
        if not is_disk_full(error):
            raise
        cut = [folder.name for folder in output.glob("checkpoint-*") if not (folder / COMPLETE).is_file()]
        for name in cut:
            shutil.rmtree(output / name)
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


class _Sampled:
    """The table of a few answers before and after."""

    def __init__(self, plan: Plan, output: Path, model: Any) -> None:
        self._plan, self._most = plan, plan.settings.samples.max_new_tokens
        part = plan.validation if ranks.first() and not plan.settings.distributed.sharded else None
        self._asked = samples.chosen(part, plan.settings.algo.kinds, plan.settings.samples)
        self._before = samples.before(output / "samples_before.json", model, plan.tokenizer, self._asked, self._most)

    def record(self, run: Run, model: Any) -> None:
        """Answer again and keep the table."""
        if self._asked:
            after = answers(model, self._plan.tokenizer, self._asked, self._most)
            run.artifact("samples.json", samples.table(self._asked, self._before, after))


def _figures(run: Run, steps: Steps, shelf: Shelf, recorder: Any, averaged: Mapping[int, Mapping[str, float]]) -> None:
    from mlops_llm.train import figures

    best = shelf.best()
    of_best = shelf.metrics(best).get("eval/loss") if best else None
    point = (best.step, of_best) if best and of_best is not None else None
    held_out, smooth = (
        {step: values["eval/loss"] for step, values in found.items() if "eval/loss" in values}
        for found in (recorder.evaluations, averaged)
    )
    run.figure("plots/loss.png", figures.loss(steps.losses, held_out, smooth, point, recorder.overfit))
    run.figure("plots/learning_rate.png", figures.line("learning rate", "a step", steps.learning_rates))
    run.figure("plots/tokens_per_second.png", figures.line("speed", "tokens a second", steps.rates))


def _refuse_diverged(run: Run, shelf: Shelf, why: str, evaluated: bool) -> None:
    """Say why a training diverged, and what is left of it.

    Raises:
        UserError: always.
    """
    good = [each for each in shelf.checkpoints if not evaluated or shelf.score(each) is not None]
    left = "no good checkpoint was written before"
    if good and (best := shelf.best()):
        run.tags({"best.checkpoint": best.name, "best.reason": f"best before the training diverged: {why}"})
        left = f"the last good checkpoint is {good[-1].name}" + ("" if best == good[-1] else f", the best one is {best.name}")
    remedy = "lower trainer.learning_rate, or mend the rows in spikes/; nothing was registered"
    raise UserError(f"the training diverged: {why}; {left}", run.name, remedy)


def _is_decided(plan: Plan) -> bool:
    """Whether a number of an evaluation chooses the best checkpoint."""
    return plan.validation is not None or plan.settings.best.metric in plan.settings.evaluate.scores()


def _telling(settings: Train) -> list[str]:
    """Metrics of the evaluation that the closing table shows besides the deciding one."""
    names = [settings.algo.best_metric, *settings.algo.telling, *settings.evaluate.scores()]
    return [name for name in names if name != settings.best.metric]


def _moved(before: Mapping[str, float], after: Mapping[str, float], names: Sequence[str]) -> dict[str, str]:
    """Metrics of an evaluation, each with what it was before the training."""
    return {
        name: " -> ".join(f"{values[name]:.4f}" for values in (before, after) if name in values)
        for name in names
        if name in after
    }


def _result(
    plan: Plan,
    job: Job,
    shelf: Shelf,
    recorder: Any,
    averaged: Mapping[int, Any],
    steps: Steps,
    began: float,
    seconds: float,
    taken: float,
    scoring: Scoring | None,
) -> Result:
    settings, best, run = plan.settings, shelf.best(), job.run
    if best is None:
        raise UserError("no checkpoint was written")
    score = shelf.score(best)
    if score is None and _is_decided(plan):
        raise UserError(
            f"the training diverged: no checkpoint has a finite {settings.best.metric}",
            run.name,
            "lower trainer.learning_rate; nothing was registered",
        )
    metric = str(settings.best.metric) if score is not None else "step"
    before = recorder.evaluations.get(0, {})
    last = shelf.checkpoints[-1]
    why = f"last of {len(shelf.checkpoints)} checkpoints; nothing was held out to choose by"
    if score is not None:
        end = "highest" if settings.best.higher_is_better else "lowest"
        why = f"{metric} {score:.4f} at step {best.step}, {end} of {len(shelf.checkpoints)} checkpoints"
    run.tags({"best.checkpoint": best.name, "best.reason": why, "digest.weights": last.tags["digest.weights"]})
    entry = Registration(best.name, settings.register_as, "challenger", why) if settings.register_as else None
    table = {
        "best checkpoint": f"{best.name} ({why})",
        f"{settings.best.metric} before": before.get(metric),
        f"{settings.best.metric} best": score,
        f"{settings.best.metric} averaged": averaged.get(last.step, {}).get(metric),
        **newest(recorder.evaluations, best.step, [name for name in settings.evaluate.scores() if name != metric]),
        **_moved(before, shelf.metrics(best), _telling(settings)),
        "training loss": f"{steps.losses[min(steps.losses)]:.4f} -> {steps.mean_loss(settings.trainer.logging_steps):.4f}",
        **settings.algo.conclude(job),
        "steps": last.step,
        "time": f"{console.seconds(taken)} (predicted {console.seconds(plan.estimate.seconds)})",
        "answers scored": scoring.said(seconds) if scoring and scoring.times else None,
        "checkpoints": len(shelf.checkpoints),
        "registered": f"{settings.register_as} (alias challenger)" if entry else None,
        "weights digest": last.tags["digest.weights"][:16],
    }
    values = {
        "name": run.name,
        "best": best.name,
        "score": score,
        "digest.weights": last.tags["digest.weights"],
        "began": began,
        "seconds": seconds,
        "output": str(settings.output),
    }
    table = {key: value for key, value in table.items() if value is not None}
    return Result(
        f"{run.name}: trained",
        table,
        values,
        best=entry,
        score=score,
        higher_is_better=settings.best.higher_is_better,
        score_name=metric,
    )
