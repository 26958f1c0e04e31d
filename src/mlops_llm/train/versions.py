"""What trains on a machine: other code would learn something else there, or wait for the others for ever."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import mlops_llm
from mlops_llm import digest

_LIBRARIES = ("torch", "transformers", "trl", "accelerate", "peft", "deepspeed")


def here() -> dict[str, str]:
    """Versions of Python and of the libraries, and the digest of this package's files."""
    folder = Path(mlops_llm.__file__).parent
    files = {str(each.relative_to(folder)): digest.raw(each) for each in sorted(folder.rglob("*.py"))}
    found = {"Python": platform.python_version(), "mlops_llm": digest.row(files)[:12]}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def differ(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """What another machine has in another version; empty where nothing is."""
    names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    return ", ".join(f"{name} is {there.get(name, 'missing')} there and {here.get(name, 'missing')} here" for name in names)
