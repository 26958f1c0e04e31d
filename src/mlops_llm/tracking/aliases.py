"""The model registry: versions and aliases."""

from __future__ import annotations

from mlops_llm.tracking import checkpoints
from mlops_llm.tracking.store import Store


def register(store: Store, run: str, checkpoint: str, model: str, alias: str, description: str) -> str:
    """Register a run's checkpoint as a version of `model` and move `alias` to it; return the version.

    Registering the same checkpoint again finds the version that is there.
    """
    version = register_model(store, checkpoints.id_of(store, run, checkpoint), run, checkpoint, model, description)
    if alias:
        store.client.set_registered_model_alias(model, alias, version)
    return version


def register_model(store: Store, logged: str, run: str, checkpoint: str, model: str, description: str) -> str:
    """Register a LoggedModel as a version of `model`, or find the version that is there; return the version.

    Args:
        store: the record.
        logged: id of the LoggedModel.
        run: id of the run that made it; empty of weights from elsewhere.
        checkpoint: its name.
        model: the registered model, which is made where it is not there.
        description: of a new version.
    """
    from mlflow.exceptions import MlflowException

    client = store.client
    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"models:/{logged}"
    there = [each for each in client.search_model_versions(f"source_path = '{source}'") if each.name == model]
    if there:
        return str(max(int(each.version) for each in there))
    tags = {"checkpoint": checkpoint}
    made = client.create_model_version(model, source, run_id=run or None, description=description, model_id=logged, tags=tags)
    return str(made.version)
