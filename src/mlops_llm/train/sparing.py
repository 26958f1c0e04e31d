"""The change that makes a training fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mlops_llm import component
from mlops_llm.errors import UserError
from mlops_llm.train.config import Train
from mlops_llm.train.preflight import Case, Estimate, estimate
from mlops_llm.train.samplers.hf import Hf

_LADDERS = ("batch", "recompute", "lighter", "sampler", "offload", "adapter", "shorter")
"""What may change, in the order in which it is tried: what costs least comes first."""


def fitting(case: Case) -> tuple[list[str], Estimate] | None:
    """The first combination of changes that fits, as overrides, with what it needs; None where none does.

    Changes are added one after the other, each as far as it goes, until all fits; then each is taken back as far as it still
    fits, the last one first.
    """
    rungs = dict.fromkeys(_LADDERS, 0)
    for name in _LADDERS:
        rungs[name] = len(_ladder(name, _changed(case, rungs)[1].settings))
        if _fits(case, rungs):
            break
    else:
        return None
    for name in reversed(_LADDERS):
        rungs[name] = next(rung for rung in range(rungs[name] + 1) if _fits(case, {**rungs, name: rung}))
    words, changed = _changed(case, rungs)
    return words, estimate(changed)


def _changed(case: Case, rungs: Mapping[str, int]) -> tuple[list[str], Case]:
    """A case with some rungs of each ladder taken."""
    settings, words = case.settings, []
    for name, rung in rungs.items():
        if rung:
            said, settings = list(_ladder(name, settings).items())[rung - 1]
            words.append(said)
    return words, replace(case, settings=settings)


def _ladder(name: str, settings: Train) -> dict[str, Train]:
    """Overrides, each saving more than the one before -> the settings."""
    trainer = settings.trainer
    if name == "batch":
        return _batches(settings)
    if name == "recompute":
        if trainer.gradient_checkpointing:
            return {}
        changed = replace(trainer, gradient_checkpointing=True)
        return {"trainer.gradient_checkpointing=true": _with(settings, trainer=changed)}
    if name == "adapter":
        return {} if settings.peft.trains_adapter else {"peft=lora": _with(settings, peft=component.build("peft", "lora"))}
    if name == "sampler":
        sampled = settings.rollout != "???" and settings.algo.rollout(trainer) and settings.rollout != Hf()
        return {"rollout=hf": _with(settings, rollout=Hf())} if sampled else {}
    if name == "offload":
        return {words: _with(settings, distributed=how) for words, how in settings.distributed.lighter().items()}
    found = settings.algo.lighter() if name == "lighter" else settings.algo.shorter()
    return {words: _with(settings, algo=algo) for words, algo in found.items()}


def _batches(settings: Train) -> dict[str, Train]:
    """Smaller batches, as many rows an optimizer step, as far as the method allows."""
    trainer, made = settings.trainer, {}
    for batch in (each for each in range(trainer.batch_size - 1, 0, -1) if trainer.batch_size % each == 0):
        parts = trainer.gradient_accumulation_steps * trainer.batch_size // batch
        changed = replace(trainer, batch_size=batch, gradient_accumulation_steps=parts)
        candidate = _with(settings, trainer=changed)
        try:
            settings.algo.check(candidate)
        except UserError:
            continue
        made[f"trainer.batch_size={batch} trainer.gradient_accumulation_steps={parts}"] = candidate
    return made


def _with(settings: Train, **changes: object) -> Train:
    return replace(settings, **changes)  # type: ignore[arg-type]


def _fits(case: Case, rungs: Mapping[str, int]) -> bool:
    return estimate(_changed(case, rungs)[1]).fits
