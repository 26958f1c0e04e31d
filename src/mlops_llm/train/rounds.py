"""What a round of sampling needs of the prompts and of the model, once both are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlops_llm.errors import UserError
from mlops_llm.train.config import Train
from mlops_llm.train.prompts import Prompt
from mlops_llm.train.rollouts import Sampled


def check_round(settings: Train, prompts: int) -> None:
    """See that there are enough prompts for one round of sampling: a last one that is not full is left out of each pass.

    Raises:
        UserError: there are not; the nearest batch for which there are is named.
    """
    trainer, generations = settings.trainer, settings.algo.generations
    passes = settings.algo.rollout(trainer).answers // trainer.batch_size * settings.distributed.count
    needed = trainer.batch_size * passes // generations
    if prompts >= needed:
        return
    unit = generations // math.gcd(generations, passes)
    batch = prompts * generations // passes // unit * unit
    less = f"take trainer.batch_size={batch}" if batch else "lower algo.generations or algo.steps_per_generation"
    what = f"a round of sampling asks {needed} prompts, and there are {prompts} to train on"
    raise UserError(what, "trainer.batch_size", f"{less}, or give more rows")


def check_window(algo: Sampled, found: Sequence[Prompt], window: int | None) -> None:
    """See that each prompt and an answer together are no longer than what the model takes in.

    Args:
        algo: what samples.
        found: all prompts.
        window: tokens that the model takes in, where it says so.

    Raises:
        UserError: they are; the largest numbers with which they are not are named.
    """
    lengths = [len(one.ids) for one in found]
    if not window or max(lengths) + algo.max_new_tokens <= window:
        return
    room, short = window - max(lengths), window - algo.max_new_tokens
    full = sum(each > short for each in lengths)
    ways = [f"take algo.max_new_tokens={room}"] if room > 0 else []
    ways += [f"leave longer prompts out with algo.max_prompt_tokens={short}"] if min(lengths) <= short else []
    what = f"{full} of {len(lengths)} prompts (up to {max(lengths)} tokens) leave no room for it in the model's {window}"
    raise UserError(what, "algo.max_new_tokens", " or ".join(ways) or "take rows with shorter prompts")
