"""The embedded model: a Qwen2 of half a million parameters that adds one-digit numbers and knows some shop talk.

It is real (trained, with a tokenizer and a chat template) and small enough to train in a test. `corpus` writes what it
was trained on, `build` trains it, `weights/` holds the result.
"""

from __future__ import annotations

from pathlib import Path


def folder() -> Path:
    """Return the folder with the shipped weights and tokenizer; treat it as read-only."""
    return Path(__file__).resolve().parent / "weights"
