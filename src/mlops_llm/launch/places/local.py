"""`launch=local`."""

from __future__ import annotations

from dataclasses import dataclass

from mlops_llm.component import component
from mlops_llm.launch.place import Place


@component("launch", "local")
@dataclass
class Local(Place):
    """Run the command here and now."""
