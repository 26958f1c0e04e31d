"""Rebuild the embedded model: `python -m mlops_llm.models.tiny OUT [--seed N] [--steps N]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlops_llm import digest
from mlops_llm.models.tiny.build import build


def main() -> None:
    """Train, then print where the model is and the digest of its weights."""
    parser = argparse.ArgumentParser(prog="python -m mlops_llm.models.tiny", description=main.__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder that does not exist yet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=700)
    chosen = parser.parse_args()
    out = build(chosen.out, seed=chosen.seed, steps=chosen.steps)
    print(out, digest.weights(out))


if __name__ == "__main__":
    main()
