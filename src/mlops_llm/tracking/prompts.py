"""Prompts in MLflow's registry: a text that a run used has a name and a version there."""

from __future__ import annotations

import json
import re

from mlops_llm.errors import UserError
from mlops_llm.record import Run
from mlops_llm.tracking.run import MlflowRun
from mlops_llm.tracking.store import Store, connect

_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def check_name(name: str, setting: str) -> None:
    """See that a prompt can have this name.

    Raises:
        UserError: it holds characters that MLflow does not take.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"'{name}' cannot be a prompt's name", setting, "use English letters, digits, '-', '_' and '.'")


def used(run: Run, name: str, text: str) -> None:
    """Say that a run uses a prompt, in tags and, by them, on its page; a run that nobody keeps leaves the registry alone.

    Args:
        run: which uses it; its tag `prompt` is NAME/VERSION.
        name: of the prompt.
        text: whole.

    Raises:
        UserError: a registered model has the name.
    """
    if not isinstance(run, MlflowRun):
        return
    store = connect()
    version = keep(store, name, text)
    _list(store, name, store.client.get_run(run.id).info.experiment_id)
    linked = json.dumps([{"name": name, "version": str(version)}])
    run.tags({"prompt": f"{name}/{version}", "mlflow.linkedPrompts": linked})


def keep(store: Store, name: str, text: str) -> int:
    """The version of a prompt that has this text; a new one where none has.

    Raises:
        UserError: a registered model has the name.
    """
    from mlflow.exceptions import MlflowException

    client = store.client
    if client.get_prompt(name) is None:
        try:
            client.create_prompt(name)
        except MlflowException as error:
            if client.get_prompt(name) is None:  # else another process was faster
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                raise UserError(f"'{name}' is a registered model", "judge.name", "name the judge otherwise") from error
    token = None
    while True:
        page = client.search_prompt_versions(name, 100, token)
        for version in page:
            if version.template == text:
                return int(version.version)
        token = page.token
        if not token:
            return int(client.create_prompt_version(name, text).version)


def _list(store: Store, name: str, experiment: str) -> None:
    """Show a prompt among those of an experiment."""
    from mlflow.prompt.constants import PROMPT_EXPERIMENT_IDS_TAG_KEY

    prompt = store.client.get_prompt(name)
    ids = [each for each in (prompt.tags if prompt else {}).get(PROMPT_EXPERIMENT_IDS_TAG_KEY, "").split(",") if each]
    if experiment not in ids:
        store.client.set_prompt_tag(name, PROMPT_EXPERIMENT_IDS_TAG_KEY, f",{','.join([*ids, experiment])},")
