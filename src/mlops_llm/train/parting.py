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
    their numbers are those of a training that nothing interrupted. Several processes that train together agree at the end of
    each step whether one of them was asked, and save at the same one.
    """

    def __init__(self, cycle: int = 1) -> None:
        """Save at multiples of `cycle` steps only: in between, a round of sampled answers is not used up."""
        self._cycle = cycle
        self._leaves = False
        self.aside: int | None = None
        """Step of the checkpoint that only serves to go on."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Save now, or after the evaluation that is due."""
        if state.global_step >= state.max_steps or not _asked():
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
            ranks.wait()  # the first has published it by now
            console.say(f"told to stop: saved at step {state.global_step}")
            stopping.stop()

    def _save(self, state: Any, control: Any) -> None:
        if not control.should_save:
            self.aside, control.should_save = state.global_step, True


def _asked() -> bool:
    """Whether this process or one that trains with it is to stop; without a moment to save none ever waits for that."""
    if ranks.count() == 1:
        return stopping.asked()
    return stopping.grace() > 0 and ranks.some(stopping.asked())
