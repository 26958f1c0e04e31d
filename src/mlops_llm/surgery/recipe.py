"""`recipe.json`: what a checkpoint was made of and how, enough to make it again with the same digest."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from mlops_llm.component import plain
from mlops_llm.surgery.planning import Planned

NAME = "recipe.json"
_PASSING = ("dry_run", "notes")
"""Settings of operations that change nothing of the weights."""


def recipe(planned: Planned, weights: str) -> dict[str, Any]:
    """The recipe of a finished checkpoint.

    Args:
        planned: what was done.
        weights: digest of the weights.
    """
    request = planned.request
    return {
        "operation": planned.operation,
        "method": planned.method,
        "settings": plain(request.op)["settings"],
        **({"more": dict(planned.settings)} if planned.settings else {}),
        "dtype": request.dtype.name,
        "seed": request.seed,
        "sources": [
            {
                "ref": each.stable,
                "named": each.ref,
                "role": each.role,
                "digest": each.digest,
                **({"weight": each.weight} if each.weight is not None else {}),
                **({"note": each.note} if each.note else {}),
            }
            for each in planned.sources
        ],
        "digest.weights": weights,
        "run": request.run_name,
        "versions": {name: version(name) for name in ("mlops-llm", "torch", "transformers", "safetensors")},
    }


def text(told: Mapping[str, Any]) -> str:
    """A recipe as JSON."""
    return json.dumps(told, indent=2, ensure_ascii=False, default=str) + "\n"


def command(told: Mapping[str, Any], output: str) -> str:
    """The command that makes a checkpoint again.

    Args:
        told: a recipe.
        output: the folder where it goes.
    """
    by_role = {role: [each["ref"] for each in told["sources"] if each["role"] == role] for role in ("parent", "base")}
    one = len(by_role["parent"]) == 1
    words = [
        f"op={told['operation']}",
        f"model={by_role['parent'][0]}" if one else f"models=[{','.join(by_role['parent'])}]",
        *([f"base={by_role['base'][0]}"] if by_role["base"] else []),
        *(
            f"op.{name}={_as_word(value)}"
            for name, value in told["settings"].items()
            if name not in _PASSING and value not in (None, [])
        ),
        f"dtype={told['dtype']}",
        f"seed={told['seed']}",
        f"output={output}",
    ]
    return shlex.join(["python", "-m", "mlops_llm.surgery", *words])


def _as_word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_as_word, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_as_word(each)}" for name, each in value.items()) + "}"
    return str(value)
