"""The Hydra room: from a command line to typed settings, an open run, a result and an exit code."""

from mlops_llm.entry.job import Stage
from mlops_llm.entry.launch import launch

__all__ = ["Stage", "launch"]
