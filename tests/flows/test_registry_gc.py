"""Checkpoints are deleted for a budget by a command; what an alias was made of never is."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from unittest import mock

import pytest

from mlops_llm import digest
from mlops_llm.errors import UserError
from mlops_llm.record import MemoryRun
from mlops_llm.registry.checkup import Digests, checkup
from mlops_llm.registry.collecting import carry_out, collected
from mlops_llm.registry.config import Registry
from mlops_llm.registry.finding import State
from mlops_llm.registry.ops.gc import CollectGarbage
from mlops_llm.registry.sweeping import protected, sweep
from mlops_llm.tracking import checkpoints
from mlops_llm.tracking.environment import host, process_tags
from mlops_llm.tracking.store import Store, connect_to, local_path
from tests.surgeries import command


def safetensors(number: int) -> bytes:
    """A file of a thousand bytes, other ones for each number."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [900], "data_offsets": [0, 900]}}).ljust(92).encode()
    return struct.pack("<Q", len(header)) + header + bytes([number]) * 900


class Shelf:
    """A record with runs whose checkpoints are files of a thousand bytes each, in the record and in the run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store: Store = connect_to(f"sqlite:///{folder / 'mlflow.db'}")
        self.experiment = self.store.experiment("sales")
        self.ids: dict[str, str] = {}

    def run(self, name: str, losses: dict[int, float], status: str = "FINISHED", **tags: str) -> str:
        client = self.store.client
        run = str(client.create_run(self.experiment, run_name=name, tags={"project": "sales", **tags}).info.run_id)
        for step, loss in losses.items():
            own = self.folder / "outputs" / name / f"checkpoint-{step}"
            own.mkdir(parents=True)
            weights = safetensors(len(self.ids))
            (own / "model.safetensors").write_bytes(weights)
            (own / "optimizer.pt").write_bytes(b"y" * 500)
            told = {"digest.weights": digest.weights(own), "checkpoint.uri": own.as_uri(), "checkpoint.storage": "hardlink"}
            named = {"source_run_id": run, "model_type": "checkpoint", "params": {"step": str(step)}}
            model = client.create_logged_model(self.experiment, own.name, tags={**told, **tags}, **named)
            place = local_path(model.artifact_location)
            assert place
            place.mkdir(parents=True)
            os.link(own / "model.safetensors", place / "model.safetensors")
            client.log_metric(run, "eval/loss", loss, step=step, model_id=model.model_id)
            client.finalize_logged_model(model.model_id, "READY")
            self.ids[f"{name}/{step}"] = model.model_id
        client.set_terminated(run, status) if status != "RUNNING" else None
        return run

    def champion(self, which: str, name: str) -> None:
        client = self.store.client
        client.create_registered_model(name)
        with mock.patch.dict(os.environ, MLFLOW_TRACKING_URI=self.store.address):
            made = client.create_model_version(name, f"models:/{self.ids[which]}")
        client.set_registered_model_alias(name, "champion", made.version)

    def there(self) -> set[str]:
        return {name for name in self.ids if (self.folder / "outputs" / name.replace("/", "/checkpoint-")).is_dir()}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    made = Shelf(tmp_path)
    made.run("sft", {2: 3.0, 4: 2.0, 6: 1.0}, base="tiny")
    made.run("spare", {2: 3.0, 4: 2.0}, base="tiny")
    parents = json.dumps([f"models:/{made.ids['sft/2']}", f"models:/{made.ids['sft/6']}"])
    made.run("merge", {0: 1.0}, operation="merge_linear", parents=parents)
    made.run("loose", {0: 1.0}, operation="merge_linear", parents=parents)
    made.champion("merge/0", "bot")
    return made


def test_what_goes_is_shown_first_and_then_deleted_but_its_numbers_stay(shelf: Shelf) -> None:
    folder, client = shelf.folder, shelf.store.client
    out = command(folder, "op=gc", "op.budget=8000", "project=sales", "run_name=plan", stage="registry")
    plan = json.loads((folder / "outputs/plan/result.json").read_text("utf-8"))
    assert plan["bytes"] == {"before": 7 * 1500, "after": 7500, "protected": 4500}, "two names are one content"
    names = {model: name for name, model in shelf.ids.items()}
    assert [(names[each["model"]], each["rank"]) for each in plan["going"]] == [
        ("sft/4", "dominated"),
        ("spare/2", "dominated"),
    ]
    folders = [{Path(each) for each in one["folders"]} for one in plan["going"]]
    assert all(
        folder / "outputs" / way in there
        for way, there in zip(("sft/checkpoint-4", "spare/checkpoint-2"), folders, strict=True)
    )
    assert "outputs/sft/checkpoint-4" in out.replace("\n", "")
    assert "the same command with op.dry_run=false" in out and len(shelf.there()) == 7
    out = command(folder, "op=gc", "op.budget=6000", "op.dry_run=false", "project=sales", "run_name=done", stage="registry")
    assert shelf.there() == {"sft/2", "sft/6", "merge/0", "spare/4"} and "loose/checkpoint-0" in out
    for name in ("sft/4", "spare/2", "loose/0"):
        model = client.get_logged_model(shelf.ids[name])
        assert model.tags["checkpoint.files"] == "removed" and model.tags["gc.run"] == "done"
        assert {each.key for each in model.metrics} == {"eval/loss"}
    assert model.tags["gc.lost"] == "nothing: its recipe makes the same weights again" and model.tags["parents"]
    again = command(folder, "op=gc", "op.budget=6000", "project=sales", stage="registry")
    assert "4 on this machine" in again and "what stays" in again and "what goes" not in again, "no table without a row"
    told = command(folder, "op=lineage", f"model=models:/{shelf.ids['sft/4']}", "project=sales", stage="registry")
    assert "sft/checkpoint-4" in told and "tiny" in told, "where it came from is known, also without its files"
    with pytest.raises(UserError, match=r"were removed \(op=gc, run done\)"):
        checkpoints.place_of(shelf.store, checkpoints.by_id(shelf.store, shelf.ids["sft/4"]))


def test_a_budget_below_what_is_protected_is_one_line(shelf: Shelf) -> None:
    said = command(shelf.folder, "op=gc", "op.budget=4kB", "project=sales", code=2, stage="registry")
    assert "op.budget: is 4 kB, and 4 kB are protected; give at least 4500, or move aliases first" in said
    for words, error in (([], "is not given"), (["op.budget=lots"], "'lots' is no size")):
        assert error in command(shelf.folder, "op=gc", *words, "project=sales", code=2, stage="registry")


def test_what_a_running_run_reads_stays_and_what_comes_from_elsewhere(shelf: Shelf) -> None:
    shelf.run("now", {2: 9.0, 4: 1.0}, "RUNNING", **{"base.checkpoint": shelf.ids["spare/4"], **process_tags()})
    shelf.store.client.set_logged_model_tags(shelf.ids["sft/4"], {"checkpoint.origin": "mine"})
    command(shelf.folder, "op=gc", "op.budget=11000", "project=sales", "run_name=p", stage="registry")
    kept = json.loads((shelf.folder / "outputs/p/result.json").read_text("utf-8"))["kept"]
    assert kept[shelf.ids["now/2"]] == "run now is running" and kept[shelf.ids["sft/4"]] == "comes from elsewhere"
    assert kept[shelf.ids["spare/4"]].startswith("the running now reads it")
    assert set(shelf.ids.values()) - set(kept) == {shelf.ids["spare/2"], shelf.ids["loose/0"]}


def test_what_somebody_began_to_use_since_the_plan_was_made_stays(shelf: Shelf, capfd: pytest.CaptureFixture[str]) -> None:
    planned = collected(shelf.store)
    plan = sweep(planned.nodes, planned.stored, 4500)
    assert {each.node.id for each in plan.going} >= {shelf.ids["spare/2"], shelf.ids["spare/4"], shelf.ids["loose/0"]}
    shelf.run("now", {}, "RUNNING", **{"base.checkpoint": shelf.ids["spare/4"], **process_tags()})
    parents = json.dumps([f"models:/{shelf.ids['spare/2']}"])
    shelf.run("late", {0: 1.0}, operation="merge_linear", parents=parents)
    shelf.champion("late/0", "other")
    assert carry_out(shelf.store, plan, "gc") == ["sft/checkpoint-4", "loose/checkpoint-0"]
    assert {"spare/2", "spare/4", "late/0"} <= shelf.there()
    said = capfd.readouterr().err
    assert "spare/checkpoint-4 stays, since meanwhile the running now reads it" in said
    assert "spare/checkpoint-2 stays, since meanwhile other@champion was made of it" in said


def test_all_that_an_adapter_may_lie_on_stays_and_goes_after_it(shelf: Shelf) -> None:
    shelf.run("twin", {2: 1.0, 4: 1.0}, **{"digest.weights": "t" * 64})
    shelf.run("lora", {2: 1.0})
    told = {"base": "./here", "base.digest": "t" * 64}
    (shelf.folder / "outputs/lora/checkpoint-2/mlops_llm.json").write_text(json.dumps(told), "utf-8")
    nodes = {each.id: each for each in collected(shelf.store).nodes}
    assert set(nodes[shelf.ids["lora/2"]].rests_on) == {shelf.ids["twin/2"], shelf.ids["twin/4"]}
    shelf.champion("lora/2", "adapted")
    assert {shelf.ids["twin/2"], shelf.ids["twin/4"]} <= set(protected(collected(shelf.store).nodes))


def test_a_checkpoint_that_cannot_be_read_stays_with_what_it_may_lie_on_and_the_rest_is_planned(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", shelf.store.address)
    shelf.run("twin", {2: 1.0}, **{"digest.weights": "t" * 64})
    shelf.run("lora", {2: 1.0, 4: 2.0}, base="./here", **{"digest.base": "t" * 64})
    shelf.run("copy", {2: 1.0})
    of_lora = shelf.store.client.get_logged_model(shelf.ids["lora/2"]).tags["digest.weights"]
    shelf.store.client.set_logged_model_tags(shelf.ids["copy/2"], {"digest.weights": of_lora})
    shelf.run("made", {0: 1.0}, operation="merge_lora", parents=json.dumps([f"models:/{shelf.ids['lora/2']}"]))
    broken = shelf.folder / "outputs/lora/checkpoint-2/mlops_llm.json"
    broken.write_text('{"base": ', "utf-8")

    nodes = {name: each for each in collected(shelf.store).nodes for name in shelf.ids if shelf.ids[name] == each.id}
    assert f"{broken}: cannot be read (Expecting value" in nodes["lora/2"].kept
    assert nodes["lora/2"].rests_on == (shelf.ids["twin/2"],) and not nodes["made/0"].rebuildable
    result = CollectGarbage("8kB").prepare(Registry())(MemoryRun())
    ways = {each["model"]: each for each in result.values["going"]}
    safe = {"lora/2", "twin/2", "merge/0", "sft/2", "sft/6"}
    assert not {shelf.ids[name] for name in safe} & set(ways) and set(result.values["unread"]) == {shelf.ids["lora/2"]}
    assert "lora/checkpoint-2 stays, and what it may lie on: " in capfd.readouterr().err
    plan = {each.node.id: each for each in sweep(tuple(nodes.values()), collected(shelf.store).stored, -1).going}
    for name in ("lora/4", "copy/2", "made/0"):  # nothing stands for it that cannot be read
        each = plan[shelf.ids[name]]
        assert (each.rank.name, each.lost) == ("unique", "weights that nothing makes again")

    shelf.run("other", {2: 1.0}, base="./there")
    (shelf.folder / "outputs/other/checkpoint-2/recipe.json").write_text("[", "utf-8")
    assert all(each.kept for each in collected(shelf.store).nodes), "what it lies on is told by nothing"
    with pytest.raises(UserError, match=r"files of 2 of the checkpoints cannot be read; give at least \d+.*copy it again"):
        CollectGarbage("8kB").prepare(Registry())


def test_a_checkup_names_an_alias_whose_files_are_gone(shelf: Shelf) -> None:
    place = local_path(shelf.store.client.get_logged_model(shelf.ids["merge/0"]).artifact_location)
    assert place
    (place / "model.safetensors").unlink()
    found = {(each.state, each.what): each for each in checkup(shelf.store, Digests.none)}
    alias, of_files = found[State.broken, "alias"], found[State.broken, "files"]
    assert alias.said == "bot@champion: its folder is empty" and "op=rollback name=bot" in alias.remedy
    assert of_files.said == "merge/checkpoint-0: its folder is empty"
    place.rmdir()
    said = {(each.state, each.what): each.said for each in checkup(shelf.store, Digests.none)}
    assert said[State.broken, "alias"].startswith("bot@champion: the files of checkpoint-0 of run")


def test_a_checkup_names_what_is_broken_with_its_remedy(shelf: Shelf) -> None:
    folder, client = shelf.folder, shelf.store.client
    gone = shelf.folder / "mlruns"
    model = client.get_logged_model(shelf.ids["spare/2"])
    place = local_path(model.artifact_location)
    assert place and place.is_relative_to(gone)
    place.rename(place.with_name("elsewhere"))
    champion = local_path(client.get_logged_model(shelf.ids["merge/0"]).artifact_location)
    assert champion
    (champion / "model.safetensors").write_bytes(b"x" * 1000)
    shelf.run("dead", {}, "RUNNING", **{"run.host": host(), "run.process": "1:1.00"})
    shelf.run("foreign", {}, "RUNNING")
    out = command(folder, "op=doctor", "project=sales", "run_name=checked", code=1, stage="registry")
    assert out == ""
    told = json.loads((folder / "outputs/checked/result.json").read_text("utf-8"))["findings"]
    found = {(each["state"], each["what"]): each for each in told}
    assert "checkpoint-2" in found["broken", "files"]["said"] and found["broken", "files"]["remedy"]
    stale = {each["said"].split()[0]: each["remedy"] for each in told if each["what"] == "stale run"}
    assert stale["dead"] == "mended by this command" and "set_terminated" in stale["foreign"] and len(stale) == 2
    assert "cannot be read" in found["broken", "weights"]["said"]
    assert {"GPU", "vLLM", "queue", "disk", "fonts"} <= {each["what"] for each in told}
    run = client.search_runs([shelf.experiment], "attributes.run_name = 'dead'")[0]
    assert run.info.status == "KILLED"
