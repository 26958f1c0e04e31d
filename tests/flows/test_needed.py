"""What must stay when checkpoints are deleted: all that the registry's models came from, and what adapters lie on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlops_llm.record import Checkpoint
from mlops_llm.surgery.selection.freeing import beneath_adapters, freeing
from mlops_llm.tracking import checkpoints
from mlops_llm.tracking.aliases import register
from mlops_llm.tracking.forgetting import needed_by_registry
from mlops_llm.tracking.models import entered
from mlops_llm.tracking.store import Store
from tests.flows.test_lineage import made, on
from tests.flows.test_lineage import store as store  # a record that is written as trainings write it


def registered(store: Store, origin: tuple[str, str], model: str, alias: str = "") -> str:
    return register(store, origin[0], "checkpoint-4", model, alias, "")


def test_ancestors_of_an_alias_stay_by_the_role_that_they_had(store: Store) -> None:
    bottom = made(store, "n-bottom", base="tiny")
    teacher = made(store, "n-teacher", **on(bottom), **{"digest.weights": "1a" * 32})
    judge = made(store, "n-judge", base="tiny", **{"digest.weights": "2a" * 32})
    start = made(store, "n-start", base="tiny")
    student = made(
        store, "n-student", **on(start), teacher="models:/gone@champion", **{"digest.teacher": "1a" * 32}
    )  # the alias has moved on since
    params = {"reward.model.ref": "/a/folder"}
    tuned = made(store, "n-tuned", **on(student), params=params, **{"digest.reward.model": "2a" * 32})
    outsider = made(store, "n-outsider", base="tiny")
    registered(store, tuned, "n-sales", "champion")
    needed = needed_by_registry(store)
    assert {each: needed.get(model[1]) for each, model in {"tuned": tuned, "student": student, "start": start}.items()} == {
        "tuned": "n-sales@champion points to it",
        "student": "n-sales@champion was made of it",
        "start": "n-sales@champion was made of it",
    }
    assert needed[teacher[1]] == needed[bottom[1]] == "n-sales@champion learned from it, its teacher"
    assert needed[judge[1]] == "n-sales@champion learned from it, its reward model"
    assert outsider[1] not in needed


def test_a_registered_adapter_keeps_its_base_and_a_whole_model_without_alias_keeps_nothing(store: Store) -> None:
    base, other = made(store, "n-base", base="tiny"), made(store, "n-other", base="tiny")
    lower = made(store, "n-lower", **on(base), params={"choice.peft": "lora"})
    upper = made(store, "n-upper", **on(lower), params={"choice.peft": "qlora"})
    whole = made(store, "n-whole", **on(other), params={"choice.peft": "none"})
    version = registered(store, upper, "n-adapters")
    registered(store, whole, "n-wholes")
    needed = needed_by_registry(store)
    assert needed[lower[1]] == needed[base[1]] == f"the adapter n-adapters/{version} lies on it"
    assert other[1] not in needed and whole[1] not in needed, "is_registered keeps the version's own model"


def test_however_many_models_there_are_all_are_asked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [made(store, f"n-many-{number}", base="tiny") for number in range(3)]
    for number, each in enumerate(many):
        registered(store, each, f"n-many-{number}", "challenger")
    bases = [made(store, f"n-under-{number}", base="tiny") for number in range(3)]
    for number, each in enumerate(bases):
        registered(store, made(store, f"n-on-{number}", **on(each), params={"choice.peft": "lora"}), "n-on")
    for name in ("search_registered_models", "search_model_versions", "search_logged_models"):
        asked = getattr(store.client, name)
        monkeypatch.setattr(store.client, name, lambda *words, asked=asked, **more: asked(*words, **more | {"max_results": 1}))
    for name in ("get_registered_model", "get_model_version", "get_model_version_by_alias"):
        monkeypatch.setattr(store.client, name, None)  # of a thousand versions nobody asks one by one
    assert {each[1] for each in (*many, *bases)} <= needed_by_registry(store).keys()


def test_what_another_program_registered_is_passed_over(store: Store) -> None:
    mine = made(store, "n-mine", base="tiny")
    registered(store, mine, "n-mine", "champion")
    store.client.create_registered_model("n-foreign")
    version = store.client.create_model_version("n-foreign", "file:///elsewhere/model")
    store.client.set_registered_model_alias("n-foreign", "champion", version.version)
    assert needed_by_registry(store)[mine[1]] == "n-mine@champion points to it"


def test_an_adapter_that_knows_only_the_folder_of_its_base_keeps_the_checkpoint_with_these_weights(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "adapter").mkdir()
    told = {"base": str(tmp_path / "base"), "base.digest": "3a" * 32}
    (tmp_path / "adapter" / "mlops_llm.json").write_text(json.dumps(told), "utf-8")
    entered(store, store.experiment("lineage"), Checkpoint("n-adapter", 0, tmp_path / "adapter", {"digest.weights": "4a" * 32}))
    assert beneath_adapters(store)["3a" * 32] == "the adapter n-adapter lies on it"
    same, other = (made(store, f"n-folder-{end}", base="tiny", **{"digest.weights": end * 32}) for end in ("3a", "5a"))
    rows = [row for run, _ in (same, other) for row in checkpoints.of_run(store, run)]
    kept = {each.row.id: each.kept for each in freeing(store, rows, "none").fates}
    assert "lies on it" in kept[same[1]] and kept[other[1]] == "its files are not on this machine"
