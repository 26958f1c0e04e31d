"""What an evaluation took, as its run says, and whether that compares with another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlops_llm.tracking.ledger import RunRow

SPEED = {
    "seconds_a_sample": "perf/seconds_a_sample",
    "tokens_per_second": "perf/tokens_per_second",
    "peak_memory_bytes": "perf/peak_memory_bytes",
    "peak_gpu_memory_bytes": "perf/peak_gpu_memory_bytes",
}
"""What was measured -> its metric."""
_CONDITIONS = {
    "rows": "tags.data.evaluation.digest.canonical",
    "engine": "params.choice.engine",
    "batch size": "params.sampling.batch_size",
    "answer length": "params.sampling.max_new_tokens",
    "sampling": "params.sampling.temperature",
    "number format": "params.model_load.dtype",
    "processor": "tags.host.cpu",
    "GPU": "tags.host.gpu",
    "torch": "tags.version.torch",
    "transformers": "tags.version.transformers",
}
"""What seconds, tokens and memory depend on besides the model."""


def measured(run: RunRow) -> dict[str, float]:
    """What was measured of an evaluation, in seconds, tokens and bytes; only what was asked anew was."""
    return {name: run.metrics[key] for name, key in SPEED.items() if key in run.metrics}


def others(one: RunRow, other: RunRow) -> list[str]:
    """Conditions in which two evaluations differ; where there are none their speeds compare."""
    found = [name for name, key in _CONDITIONS.items() if _value(one, key) != _value(other, key)]
    engines = [{key: value for key, value in run.params.items() if key.startswith("engine.")} for run in (one, other)]
    return found if engines[0] == engines[1] or "engine" in found else [*found, "settings of the engine"]


def why_not(runs: Mapping[str, RunRow | None]) -> str:
    """Why the speeds of models do not compare; nothing where they do.

    Args:
        runs: model -> its evaluation, None where there is none.
    """
    untimed = [ref for ref, run in runs.items() if run is None or "seconds_a_sample" not in measured(run)]
    if untimed:
        return f"the record has no evaluation of {', '.join(untimed)} in which all was asked anew"
    there = [run for run in runs.values() if run]
    differ = _first(there)
    return f"the evaluations of the record differ in {', '.join(differ)}" if differ else ""


def _first(runs: Sequence[RunRow]) -> list[str]:
    return list(dict.fromkeys(name for each in runs[1:] for name in others(runs[0], each)))


def _value(run: RunRow, key: str) -> str:
    kind, _, name = key.partition(".")
    return (run.params if kind == "params" else run.tags).get(name, "")
