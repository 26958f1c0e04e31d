"""Where llm-compressor lives."""

from __future__ import annotations

from mlops_llm.surgery.elsewhere import interpreter


def python(named: str | None) -> str:
    """The Python that has llm-compressor.

    Raises:
        UserError: there is none; the command that makes an environment is told.
    """
    return interpreter(
        named,
        ("llmcompressor",),
        "TORCH 'llmcompressor>=0.14,<0.15'",
        "which is not in this environment, since it and vLLM want different releases of compressed-tensors",
    )
