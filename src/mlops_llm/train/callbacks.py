"""From the Hugging Face Trainer's events to the record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.record import Run
from mlops_llm.train import overfit, ranks
from mlops_llm.train.checkpoints import Curves, Shelf
from mlops_llm.train.config import Train
from mlops_llm.train.divergence import Divergence
from mlops_llm.train.parting import Parting
from mlops_llm.train.scoring import Scoring
from mlops_llm.train.steps import Steps

_CLOCKS = ("runtime", "samples_per_second", "steps_per_second", "num_tokens")
_OURS = {"reward": "reward/mean", "reward_std": "reward/std", "reward_accuracy": "reward_accuracy"}
"""TRL's keys of what methods share that learn from rewards, and the names that compare over all of them."""
_TOTALS = ("train_runtime", "train_loss", "total_flos", "train_samples_per_second", "train_steps_per_second")


def evaluation(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The record's numbers in what a Trainer's evaluation returns."""
    # The loss of a policy says nothing of how good it is; evaluations of one do not even compute it. Groups of equal rewards
    # tell of what a training can learn, and an evaluation asks for one answer to each prompt, which always equals itself.
    left_out = {"eval_loss", "eval_frac_reward_zero_std"} if "eval_reward" in metrics else set()
    return {
        f"eval/{key.removeprefix('eval_')}": value
        for key, value in metrics.items()
        if key.startswith("eval_") and key not in left_out and not key.endswith(_CLOCKS) and isinstance(value, int | float)
    }


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Writes one batch of numbers a logged step and publishes every saved checkpoint."""

    def __init__(
        self,
        run: Run,
        shelf: Shelf,
        steps: Steps,
        divergence: Divergence,
        complete: Any,
        so_far: Curves,
        settings: Train,
        scoring: Scoring | None = None,
        parting: Parting | None = None,
    ) -> None:
        """Keep where to write.

        Args:
            run: the record.
            shelf: publishes checkpoints.
            steps: the record of every step.
            divergence: looks at every step's loss.
            complete: called with a checkpoint's folder before it is published, to complete its files.
            so_far: `evaluations` and `rewards` before this process.
            settings: the deciding metric, and when the training is overfit and stops.
            scoring: scores answers, where that is wanted.
            parting: says which checkpoint is one to go on from only.
        """
        self._parting = parting or Parting()
        self._run, self._shelf, self._steps, self._complete = run, shelf, steps, complete
        self._evaluated: dict[int, dict[str, float]] = dict(so_far.get("evaluations", {}))
        self.rewards: dict[int, float] = dict(so_far.get("rewards", {}))
        """Step -> mean reward of the answers that were learned from."""
        self._best, self._how = settings.best, settings.overfit
        self._scoring = scoring
        self._has_loss = not settings.algo.rewarded  # the loss of a policy says nothing of how good it is
        self._samples = settings.algo.rewarded  # with broken weights the next round of answers cannot even be drawn
        self.divergence = divergence
        steps.heed = divergence.look
        self.overfit: int | None = None
        """Step of the evaluation at which the training was first found to be overfit."""
        self._say_overfit(overfit.first(*self._curves(), self._best.higher_is_better, self._how), again=True)
        self._progress: console.Progress | None = None
        self._note = ""
        self._stopped = False
        self._model: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Start the progress bar; score the answers of the model that the training starts from."""
        self._model = model
        self._progress = console.Progress("training", state.max_steps, state.global_step)
        if self._scoring and not state.global_step:
            self._score(0)
            if not args.eval_on_start:
                self._conclude(state, control)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock of the step."""
        self._steps.begin()

    def on_step_end(
        self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, model: Any = None, **kwargs: Any
    ) -> Any:
        """Close the step; the last one is always logged. After one that broke the weights nothing more is done."""
        self._steps.end(state.global_step, float(lr_scheduler.get_last_lr()[0]) if lr_scheduler else 0.0)
        if control.should_save or self._samples:
            self._steps.flush()
            self.divergence.check(state.global_step, model)
        if self.divergence.broken:
            control.should_training_stop = control.should_log = True
            control.should_save = control.should_evaluate = False
            return control
        if state.global_step >= state.max_steps:
            control.should_log = True
        elif self._progress:
            self._progress.at(state.global_step, self._note)
        if self._scoring and self._scoring.due(state.global_step, state.max_steps):
            self._score(state.global_step)
            if not control.should_evaluate:
                self._conclude(state, control)
                if control.should_training_stop and control.should_save:
                    control.should_evaluate = args.eval_strategy != "no"  # the last checkpoint is to have all its numbers
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Write the training numbers of a logged step."""
        logs = logs or {}
        if any(key.startswith("eval_") for key in logs) or any(key in logs for key in _TOTALS):
            return
        self._steps.flush()
        values = {f"train/{key}": value for key, value in logs.items() if isinstance(value, int | float)}
        values |= {ours: values[f"train/{theirs}"] for theirs, ours in _OURS.items() if f"train/{theirs}" in values}
        if "reward" in logs:
            self.rewards[state.global_step] = logs["reward"]
        # Both of these begin anew in the Trainer after a resume; ours go on.
        values["train/num_tokens"] = self._steps.tokens
        if "loss" in logs:
            values["train/loss"] = self._steps.mean_loss(args.logging_steps)
        rate = self._steps.rate()
        if rate is not None:
            values["perf/tokens_per_second"] = rate
        self._run.metrics(values, state.global_step)
        loss = f"loss {values['train/loss']:.4f}" if "loss" in logs else ""
        self._note = f"{loss} {rate or 0:,.0f} tokens/s".strip()

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Keep the evaluation for the checkpoint of this step, or write it at once where none is due."""
        values = {**self._evaluated.get(state.global_step, {}), **evaluation(metrics or {})}
        if not self._evaluated.keys() - {state.global_step}:
            if not self._has_loss and "eval/reward" not in values:
                remedy = "see that what rewards them works; what fails is in the warnings above"
                raise UserError("none of the first answers could be rewarded", "reward", remedy)
            self._shelf.check(values)
        self._evaluated[state.global_step] = values
        self._conclude(state, control)

    def _score(self, step: int) -> None:
        if self._scoring:
            self._evaluated[step] = {**self._evaluated.get(step, {}), **self._scoring.at(step)}

    def _conclude(self, state: Any, control: Any) -> None:
        """Judge the numbers of a step, once all are there, and write them at once where no checkpoint takes them."""
        if state.global_step:
            self._judge(state, control)
        if not control.should_save:
            self._shelf.note(self._evaluated[state.global_step], state.global_step)

    def _judge(self, state: Any, control: Any) -> None:
        """See whether the training has learned too much, or long enough."""
        curves, higher = self._curves(), self._best.higher_is_better
        if self.overfit is None and (found := overfit.reason(*curves, higher, self._how)):
            self._say_overfit((state.global_step, found))
        why = ranks.of_first(self.enough)
        if why and not self._stopped and state.global_step < state.max_steps:
            self._stopped = True
            self.divergence.check(state.global_step, self._model)
            control.should_training_stop = True
            if self.divergence.broken:
                return
            console.say(f"the training stops at step {state.global_step}: {why}")
            self._run.tags({"stopped.step": str(state.global_step), "stopped.reason": why})
            control.should_save = True
            if self._scoring and not self._scoring.due(state.global_step, state.max_steps):
                self._score(state.global_step)

    @property
    def enough(self) -> str:
        """Why the training stops, or would have stopped, at its newest evaluation; empty where it goes on."""
        if self.overfit is not None and self._how.stop:
            return "it is overfit (overfit.stop)"
        return overfit.exhausted(self._curves()[2], self._best.higher_is_better, self._how.patience)

    def _curves(self) -> tuple[dict[int, float], dict[int, float], dict[int, float]]:
        """Training loss by step; held-out loss and deciding metric by evaluation."""
        held, score = (
            {step: values[name] for step, values in self._evaluated.items() if step and name in values}
            for name in ("eval/loss", str(self._best.metric))
        )
        return self._steps.losses, held if self._has_loss else {}, score

    def _say_overfit(self, found: tuple[int, str] | None, again: bool = False) -> None:
        if found is None:
            return
        self.overfit, why = found
        self._shelf.mark({"overfit": why})
        if not again:
            console.warn(f"overfit from step {self.overfit} on: {why}")
            self._run.tags({"overfit.step": str(self.overfit), "overfit.reason": why})

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Publish the checkpoint that was just written."""
        self._steps.flush()
        ranks.wait()  # each process writes its random state
        if not ranks.first():
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._complete(folder)
        curves: Curves = {"evaluations": self._evaluated, "rewards": self.rewards, "rates": self._steps.rates}
        if self._parting.aside == state.global_step:
            self._shelf.set_aside(folder, state.global_step, curves)
            return
        self._shelf.add(folder, state.global_step, self._evaluated.get(state.global_step, {}), curves)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the last step with its numbers and take the progress bar away."""
        self._steps.flush()
        if self._progress:
            self._progress.at(state.global_step, self._note)
            self._progress.close()

    @property
    def evaluations(self) -> dict[int, dict[str, float]]:
        """Step -> numbers of its evaluation."""
        return self._evaluated
