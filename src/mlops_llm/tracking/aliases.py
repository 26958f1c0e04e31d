"""The model registry: versions and aliases."""

from __future__ import annotations

from mlops_llm.tracking import ledger
from mlops_llm.tracking.store import Store


def register(store: Store, run: str, checkpoint: str, model: str, alias: str, description: str) -> str:
    """Register a run's checkpoint as a version of `model` and move `alias` to it; return the version.

    Registering the same checkpoint again finds the version that is there.
    """
    from mlflow.exceptions import MlflowException

    client = store.client
    logged = ledger.checkpoint_id(store, run, checkpoint)
    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"models:/{logged}"
    there = [each for each in client.search_model_versions(f"run_id = '{run}'") if each.name == model and each.source == source]
    version = (
        there[0]
        if there
        else client.create_model_version(
            model, source, run_id=run, description=description, model_id=logged, tags={"checkpoint": checkpoint}
        )
    )
    if alias:
        client.set_registered_model_alias(model, alias, version.version)
    return str(version.version)
