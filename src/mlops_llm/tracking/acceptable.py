"""What MLflow would refuse of runs, checkpoints and registered models, asked before anything of them is written."""

from __future__ import annotations

from collections.abc import Iterable

from mlops_llm.errors import first_line
from mlops_llm.tracking import champions
from mlops_llm.tracking.portable import PortableCheckpoint, PortableModel, PortableRun


def refused(runs: Iterable[PortableRun], checkpoints: Iterable[PortableCheckpoint], models: Iterable[PortableModel]) -> str:
    """What MLflow says against the first thing that it does not take, or what we cannot read in it; empty where all is well."""
    from mlflow.exceptions import MlflowException

    try:
        for run in runs:
            _run(run)
        for checkpoint in checkpoints:
            _checkpoint(checkpoint)
        for model in models:
            _model(model)
    except MlflowException as error:
        return first_line(error)
    return next((f"{model.name}: '{each}' is no move of the champion" for model in models for each in _no_moves(model)), "")


def _run(told: PortableRun) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils import validation

    for key, value in told.params.items():
        validation._validate_param(key, value)
    for key, value in told.tags.items():
        validation._validate_tag(key, value)
    for key in {row[0] for row in told.metrics}:
        validation._validate_metric_name(key)
    inputs = list[DatasetInput]()
    for each in told.inputs:
        data = Dataset(each["name"], each["digest"], each["source_type"], each["source"], each["schema"], each["profile"])
        inputs.append(DatasetInput(data, [InputTag(key, value) for key, value in each["tags"].items()]))
    validation._validate_dataset_inputs(inputs)


def _checkpoint(told: PortableCheckpoint) -> None:
    from mlflow.utils import validation

    validation._validate_logged_model_name(told.name)
    for key in {row[0] for row in told.metrics}:
        validation._validate_metric_name(key)


def _model(told: PortableModel) -> None:
    from mlflow.utils import validation

    validation._validate_model_name(told.name)
    for key, value in told.tags.items():
        validation._validate_registered_model_tag(key, value)
    for alias in told.aliases:
        validation._validate_model_alias_name(alias)
        validation._validate_model_alias_name_reserved(alias)
    for version in told.versions:
        for key, value in version.tags.items():
            validation._validate_model_version_tag(key, value)


def _no_moves(told: PortableModel) -> list[str]:
    return [key for key, text in told.tags.items() if key.startswith(champions.HISTORY) and not champions.is_move(text)]
