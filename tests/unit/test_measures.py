"""What is said of numbers that quantization and pruning measure."""

from __future__ import annotations

from mlops_llm.surgery.measures import shipped


def test_a_perplexity_that_says_nothing_is_said_to() -> None:
    assert shipped(12.0, "12 short questions", "dataset=REF") == (
        "12 short questions that ship (dataset=REF takes rows that it is for)"
    )
    assert shipped(19_860.0, "texts", "op.calibration=REF") == (
        "texts that ship: so high a number says nothing of this model (op.calibration=REF takes rows that it is for)"
    )
