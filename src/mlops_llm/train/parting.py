"""A training that is told to stop saves first: at the end of the step that it is in, to go on from there bit for bit."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from mlops_llm import console
from mlops_llm.launch import stopping
from mlops_llm.train import ranks


class Parting(TrainerCallback):  # type: ignore[misc]
    """Ends a training once it has saved, when this process is asked to stop; it comes after what records.

    Where no checkpoint is due at the step, the one it writes is set aside: no record names it, so that the checkpoints and
    their numbers are those of a training that nothing interrupted. Several processes that train together are ended by
    torchrun at once, and go on from the last regular checkpoint.
    """

    def __init__(self, cycle: int = 1) -> None:
        """Save at multiples of `cycle` steps only: in between, a round of sampled answers is not used up."""
        self._cycle = cycle
        self._leaves = False
        self.aside: int | None = None
        """Step of the checkpoint that only serves to go on."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Save now, or after the evaluation that is due."""
        if not stopping.asked() or ranks.count() > 1 or state.global_step >= state.max_steps:
            return control
        self._leaves = control.should_save or state.global_step % self._cycle == 0
        if self._leaves and not control.should_evaluate:
            self._save(state, control)
        return control

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Save after the evaluation, whose numbers are recorded by now."""
        if self._leaves:
            self._save(state, control)
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop."""
        if self._leaves:
            console.say(f"told to stop: saved at step {state.global_step}")
            stopping.stop()

    def _save(self, state: Any, control: Any) -> None:
        if not control.should_save:
            self.aside, control.should_save = state.global_step, True
