"""Artifacts of a record on another machine: their addresses are folders there, and its server hands them over.

A local record gives its artifacts addresses like `file:///home/me/mlruns/sales/…`. A process that was sent to another machine
and writes to this record through a server must not take them for folders of its own.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any
from urllib.parse import urlsplit
from urllib.request import pathname2url

ROOT = "MLOPS_LLM_ARTIFACTS"
"""Variable: the address (`file:///…`) of the folder, on the record's machine, that the record's server hands over."""


def root() -> str:
    """That address; empty where artifacts are where they say."""
    return os.environ.get(ROOT, "").rstrip("/")


def holds(location: str) -> bool:
    """Whether an artifact address is within the folder that the server hands over."""
    return _below(location) is not None


def register() -> None:
    """Let MLflow find such artifacts, in this process, if the environment names a folder."""
    if root():
        _register()


@cache
def _register() -> None:
    from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry as registry

    for scheme in ("file", ""):
        registry.register(scheme, _repository)


def _repository(artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> Any:
    """MLflow's access to artifacts: over the server within its folder, else this machine's own."""
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    below = _below(artifact_uri)
    if below is None:
        return LocalArtifactRepository(artifact_uri, tracking_uri, registry_uri)
    return MlflowArtifactsRepository(
        f"mlflow-artifacts:/{below}", tracking_uri or os.environ["MLFLOW_TRACKING_URI"], registry_uri
    )


def _below(location: str) -> str | None:
    """What stands behind the root in an address; None where it is not below it."""
    base = root()
    if not base:
        return None
    given = location if urlsplit(location).scheme else f"file://{pathname2url(location)}"
    return given.removeprefix(f"{base}/") if given.startswith(f"{base}/") else None
