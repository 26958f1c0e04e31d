"""Versions are listed, promoted, taken back and explained by commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from unittest import mock
from xml.etree import ElementTree

import pytest
import yaml
from huggingface_hub import ModelCard

from mlops_llm.tracking import champions
from mlops_llm.tracking.store import Store, local_path
from tests.record import artifacts_of, checkpoints_of, client, run_of
from tests.surgeries import command

ASKED = ["policy.limit=4", "sampling.max_new_tokens=4", "op.evaluate=true"]
"""A policy on few rows, whose evidence is computed in seconds."""


def registry(folder: Path, *words: str, code: int = 0) -> str:
    return command(folder, *words, code=code, stage="registry")


def result(folder: Path, run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "outputs" / run / "result.json").read_text("utf-8"))
    return found


def aliases(store: Any, name: str) -> dict[str, int]:
    return {alias: int(number) for alias, number in store.get_registered_model(name).aliases.items()}


def test_the_way_of_a_model_from_its_first_champion_to_a_rollback(own):
    store = client(own)
    assert "nothing is registered yet" in registry(own, "op=list")
    first = ["op=promote", "name=bot", "model=runs:/mine/checkpoint-2", "op.policy=default"]
    said = registry(own, *first, "op.policy.limit=4", code=2)
    assert "policy: evidence is missing: version 1 was not evaluated on sales_eval[4] by score/bleu; op.evaluate=true" in said
    assert len(said.splitlines()) == 1 and not store.search_registered_models() and not (own / "outputs/registry").exists()
    out = registry(own, *first, *ASKED, "run_name=one")
    assert "there is no champion to compare with" in out and "promoted" in out and "one-evaluation-1" in out
    told = result(own, "one")
    assert told["verdict"] == "promoted" and told["version"] == 1 and told["champion"] is None
    assert told["evidence"]["overlap"] == 0.0 and told["evidence"]["primary"]["run"] == "one-evaluation-1"
    assert {"decision.json", "checks.json", "result.json"} <= artifacts_of(store, run_of(store, "one"))
    tags = store.get_model_version("bot", "1").tags
    assert tags["decision"] == "promoted" and tags["decision.run"] == "one" and json.loads(tags["decision.checks"])
    assert run_of(store, "one").data.tags["project"] == run_of(store, "mine").data.tags["project"]

    words = ["op=promote", "name=bot", "model=runs:/mine/checkpoint-6"]
    out = registry(own, *words, *ASKED, "policy=default", "run_name=two", code=1)
    told = result(own, "two")
    assert told["verdict"] == "refused" and not told["checks"][0]["passed"], "four rows show nothing"
    assert "not significantly better" in told["reasons"][0] and told["evidence"]["beside"]["count"] == 4
    assert aliases(store, "bot") == {"champion": 1}
    assert store.get_model_version("bot", "2").tags["decision"] == "refused"

    again = ["op=promote", "name=bot", "version=2", "policy=not_worse", "policy.limit=4"]
    out = registry(own, *again, "policy.margin=100", "run_name=three")
    assert "not worse within 100" in out and "evaluated now" not in out
    assert aliases(store, "bot") == {"champion": 2, "previous": 1}
    tags = store.get_model_version("bot", "2").tags
    out = registry(own, *again, "run_name=four")
    assert "promote bot: version 2 is the champion already" in out
    told = result(own, "four")
    assert told["verdict"] == "champion" and told["ref"] == "models:/bot/2" and "by three" in told["reasons"][0]
    assert len(champions.history(store.get_registered_model("bot").tags)) == 2 and aliases(store, "bot")["previous"] == 1
    assert store.get_model_version("bot", "2").tags == tags
    shutil.copytree(own / "outputs/mine/checkpoint-6", own / "twin")
    registry(own, "op=promote", "name=bot", f"model={own / 'twin'}", "policy=rated", "run_name=five")
    assert f"{own / 'twin'} has the same weights" in result(own, "five")["reasons"]
    assert len(store.search_model_versions("name = 'bot'")) == 2

    listed = registry(own, "op=list")
    assert "bleu on sales_eval[4]" in listed and "mine/checkpoint-6: sft of tiny on sales_sft" in listed
    out = registry(own, "op=rollback", "name=bot", "op.reason=it answers in English", "run_name=back")
    assert aliases(store, "bot") == {"champion": 1}
    moves = champions.history(store.get_registered_model("bot").tags)
    assert [(each.kind, each.version) for each in moves] == [("promote", 1), ("promote", 2), ("rollback", 1)]
    said = registry(own, "op=rollback", "name=bot", "op.reason=why", code=2)
    assert "'bot' had no champion before version 1" in said
    shown = registry(own, "op=show", "name=bot")
    assert "it answers in English" in shown and "rollback" in shown and "champions" in shown
    assert "last decision: promoted by policy not_worse" in registry(own, "op=show", "name=bot", "version=2")


def test_a_checkup_reads_the_weights_again(own):
    store = client(own)
    place = local_path(checkpoints_of(store, run_of(store, "mine"))["checkpoint-2"].artifact_location)
    assert place
    file = place / "model.safetensors"
    before = file.read_bytes()
    try:
        file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with mock.patch("mlops_llm.registry.surroundings.surroundings", list):
            registry(own, "op=doctor", "op.digests=every", "run_name=read", code=1)
    finally:
        file.write_bytes(before)
    (found,) = [each for each in result(own, "read")["findings"] if each["state"] == "broken"]
    assert found["what"] == "weights" and found["said"].startswith("checkpoint-2 of") and "is not the recorded" in found["said"]


def test_force_is_possible_and_loud_and_history_knows_it(own):
    words = ["op=promote", "name=forced", "policy=rated", "policy.limit=4", "model=runs:/mine/checkpoint-4"]
    said = registry(own, *words, "op.force=true", code=2)
    assert "op.force: overrides the policy, and nothing says why; give op.reason='…'" in said
    out = registry(own, *words, "op.force=true", "op.reason=the fair begins tomorrow", "run_name=loud")
    told, store = result(own, "loud"), client(own)
    assert told["verdict"] == "forced" and told["reason"] == "the fair begins tomorrow" and "forced" in out
    assert {each["name"] for each in told["checks"] if not each["passed"]} >= {"primary", "floor 1", "sign-off", "agreement"}
    moves = champions.history(store.get_registered_model("forced").tags)
    assert [(each.kind, each.reason) for each in moves] == [("force", "the fair begins tomorrow")]
    registry(own, "op=sign_off", "name=forced", "version=1", "op.by=王芳", "op.note=看过二十条回答")
    assert "看过二十条回答" in store.get_model_version("forced", "1").tags["signed_off.王芳"]


@pytest.fixture
def listener() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that fails once, then takes what it is told."""
    heard = list[dict[str, Any]]()

    class Ear(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(503 if len(heard) == 1 else 200)
            self.end_headers()
            self.wfile.write(b"thanks")

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Ear) as answering:
        Thread(target=answering.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{answering.server_address[1]}/deploy", heard
        answering.shutdown()


def test_hooks_are_told_again_where_they_fail_and_undo_nothing(own, listener):
    url, heard = listener
    script = own / "deploy.sh"
    script.write_text('#!/bin/sh\ncat > told.json\necho "$REGISTRY_MODEL $REGISTRY_VERSION $REGISTRY_EVENT"\nexit 3\n', "utf-8")
    script.chmod(0o755)
    hooks = ["hook=[command,webhook]", f"hook.command.run={script}", "hook.command.tries=2", f"hook.webhook.url={url}"]
    words = ["op=promote", "name=hooked", "policy=gate", "model=runs:/mine/checkpoint-2"]
    out = registry(own, *words, *hooks, "run_name=told")
    assert "1 failed; the champion stays" in out
    store = client(own)
    tags = run_of(store, "told").data.tags
    assert tags["hook.webhook"] == "told" and tags["hook.command"].startswith("failed: exit code 3")
    assert len(heard) == 2 and heard[1] == json.loads((own / "told.json").read_text("utf-8"))
    assert heard[1]["version"] == 1 and heard[1]["event"] == "promoted" and len(heard[1]["weights"]) == 64
    assert "hooks.json" in artifacts_of(store, run_of(store, "told"))
    assert aliases(store, "hooked") == {"champion": 1}
    out = registry(own, *words, *hooks, "hook.command.run=/bin/true", "run_name=once_more")
    assert "hook.command" in run_of(store, "once_more").data.tags and len(heard) == 2, "only whom the promotion did not reach"
    assert run_of(store, "once_more").data.tags["hook.command"] == "told"
    late = champions.Move(2, "promote", 7, 1, 1, "later", "", "me", "now", "")  # another one's, while this one was deciding
    moved = champions.move

    def overtaken(store: Store, name: str, *words: Any, **more: Any) -> Any:
        made = moved(store, name, *words, **more)
        store.client.set_registered_model_tag(name, "registry.history.000009", json.dumps(asdict(late) | {"number": 9}))
        return made

    with mock.patch.object(champions, "move", overtaken):
        registry(own, *words[:-1], "model=runs:/mine/checkpoint-4", *hooks, "run_name=slow")
    assert len(heard) == 2 and run_of(store, "slow").data.tags["hook.webhook"] == "not told: version 7 came after it"
    said = registry(own, *words[:-1], "model=tiny", "hook=[command]", "hook.command.run=./nothing-here", code=2)
    assert "hook.command.run: there is no command './nothing-here'" in said


def test_lineage_and_card_tell_where_a_model_comes_from(own):
    models = "models=[runs:/mine/checkpoint-2,runs:/mine/checkpoint-6]"
    command(own, "op=merge_linear", models, "run_name=both", "name=merged", "output=both")
    out = registry(own, "op=lineage", "model=models:/merged@challenger", "run_name=line")
    tree = [line.rstrip() for line in out.splitlines()]
    assert any(line.startswith("both/merged  (merge_linear") for line in tree)
    assert any(line.startswith("├─ mine/checkpoint-2  (sft") for line in tree)
    assert any("sales_sft" in line and "training" in line for line in tree) and any("tiny  (base" in line for line in tree)
    store = client(own)
    assert {"lineage.svg", "lineage.html"} <= artifacts_of(store, run_of(store, "line"))
    drawn = ElementTree.parse(own / "outputs/line/lineage.svg")
    words = [each.text or "" for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "both/merged" in words and "tiny" in words and any(each.startswith("sales_sft") for each in words)
    assert "both/merged" in (own / "outputs/line/lineage.html").read_text("utf-8")

    registry(own, "op=card", "model=models:/merged@challenger", "run_name=card")
    text = (own / "outputs/card/README.md").read_text("utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["library_name"] == "transformers" and front["base_model"] == ["tiny"] and "sales_sft" in front["datasets"]
    assert "merge_linear" in front["tags"] and "# merged" in text and "models:/merged/1" in text and "sales_sft" in text
    command(own, "model=runs:/mine/checkpoint-2", "dataset=sales_eval", "limit=3", "metric=[bleu]", "publish.rows=0",
            "sampling.max_new_tokens=4", "run_name=scored", stage="eval")  # fmt: skip
    registry(own, "op=card", "model=runs:/mine/checkpoint-2", "run_name=scored_card")
    front = yaml.safe_load((own / "outputs/scored_card/README.md").read_text("utf-8").split("---\n")[1])
    found = [each for each in front["model-index"][0]["results"] if each["dataset"]["name"] == "sales_eval[3]"]
    assert found[0]["metrics"][0]["type"] == "bleu" and found[0]["dataset"]["revision"]
    read = ModelCard.load(own / "outputs/scored_card/README.md")
    (score,) = [each for each in read.data.eval_results if each.dataset_name == "sales_eval[3]"]
    assert score.metric_type == "bleu" and score.dataset_revision and "batch_size 8" in read.text
    assert str(own) not in read.text.replace(f"output={own}", "") and "sales_sft.jsonl" not in read.text
    shutil.copytree(own / "outputs/mine/checkpoint-2", own / "lora")
    (own / "lora/adapter_config.json").write_text("{}", "utf-8")
    registry(own, "op=card", "model=./lora", "run_name=adapter_card")
    front = yaml.safe_load((own / "outputs/adapter_card/README.md").read_text("utf-8").split("---\n")[1])
    assert front["library_name"] == "peft"
    assert "runs:/tiny" not in registry(own, "op=lineage", "model=tiny", "run_name=base")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["op=promote"], "name: names no registered model"),
        (["op=promote", "name=bot/x", "model=tiny", "policy=gate"], "name: is 'bot/x', which names no registered model"),
        (["op=promote", "name=new", "model=./outputs", "policy=gate"], "./outputs: holds no model: config.json is missing"),
        (["op=promote", "name=bott"], "name: no registered model is called 'bott' (did you mean bot?)"),
        (["op=promote", "name=bot", "version=champio"], "'bot' has no alias 'champio' (did you mean champion?)"),
        (["op=promote", "name=bot", "version=9"], "'bot' has no version 9, or it was deleted; it has: 1, 2"),
        (["op=promote", "name=bot", "version=1", "model=tiny"], "model: is given beside version"),
        (["op=promote", "name=bot", "version=2", "policy=defalt"], "unknown policy 'defalt' (did you mean default?)"),
        (
            ["op=promote", "name=bot", "version=2", "policy.limit=4", "policy.primary=score/bleuu"],
            "version 2 has no score/bleuu (did you mean score/bleu?) on sales_eval[4]",
        ),
        (
            ["op=promote", "name=bot", "version=2", "policy.limit=5", "op.evaluate=true", "policy.primary=score/bleuu"],
            "policy: no metric gives 'score/bleuu' (did you mean score/bleu?)",
        ),
        (
            ["op=promote", "name=bot", "version=2", "policy.limit=3", "policy.primary=score/bleuu"],
            "op.evaluate=true does not compute it: no metric gives 'score/bleuu' (did you mean score/bleu?)",
        ),
        (["op=promote", "name=bot", "version=2", "policy=rated"], "and none is named; give judge=rubric_zh or"),
        (["op=promote", "name=bot", "version=2", "policy.dataset=sales_evil"], "sales_evil"),
        (["op=promote", "name=bot", "version=2", "policy.limit=99999"], "policy.limit: is 99999, sales_eval has"),
        (["op=rollback", "name=bot"], "op.reason: names no reason"),
        (
            ["op=rollback", "name=bot", "version=2", "op.reason=x"],
            "version: is not for a rollback, which leads to the champion",
        ),
        (["op=rollback", "name=empty", "op.reason=x"], "'empty' has no champion"),
        (["op=show"], "name: names no registered model"),
        (["op=card"], "model: names no model; give model=REF, or name=NAME version=champion"),
        (["op=lineage", "name=empty"], "is not given, and 'empty' has no alias 'challenger'; give version=N"),
        (["op=lineage", "model=models:/bot@nobody"], "'bot' has no alias 'nobody'"),
        (["op=promote", "name=bot", "version=2", "resume=x"], "resume"),
    ],
)
def test_bad_requests_are_one_line(own, words, error):
    store = client(own)
    if not store.search_registered_models("name = 'empty'"):
        store.create_registered_model("empty")
    before = len(store.search_runs([each.experiment_id for each in store.search_experiments()]))
    said = registry(own, *words, code=2)
    assert error in said and len(said.splitlines()) == 1
    assert len(store.search_runs([each.experiment_id for each in store.search_experiments()])) == before


def test_a_champion_without_evidence_is_named(own):
    store = client(own)
    registry(own, "op=promote", "name=unseen", "model=tiny", "policy=gate", "project=sales")
    words = ["op=promote", "name=unseen", "model=runs:/mine/checkpoint-2", "policy.limit=4"]
    said = registry(own, *words, code=2)
    assert "the champion (version 1) was not evaluated on sales_eval[4] by score/bleu" in said
    assert store.get_model_version("unseen", "1").source.startswith("models:/m-"), "weights from elsewhere are known by digest"
    out = registry(own, *words, *ASKED[1:], "policy.demand=not_worse", "policy.margin=100")
    assert "promoted" in out and aliases(store, "unseen")["previous"] == 1


def test_a_champion_whose_files_are_gone_and_a_failed_certificate(own):
    store = client(own)
    registry(own, "op=promote", "name=gone", "model=runs:/mine/checkpoint-4", "policy=gate")
    model = store.get_model_version("gone", "1").source.removeprefix("models:/")
    store.set_registered_model_alias("gone", "challenger", "1")
    store.set_logged_model_tags(model, {"certificate": "failed"})
    store.delete_registered_model_alias("gone", "champion")
    out = registry(own, "op=promote", "name=gone", "policy=gate", code=1)
    assert out == "" and store.get_model_version("gone", "1").tags["decision"] == "refused"
    store.set_logged_model_tags(model, {"certificate": "passed", "checkpoint.files": "removed"})
    assert "the files of checkpoint-4 were removed" in registry(own, "op=promote", "name=gone", "policy=gate", code=2)
    store.delete_logged_model_tag(model, "checkpoint.files")
    registry(own, "op=promote", "name=gone", "policy=gate")
    registry(own, "op=promote", "name=gone", "model=runs:/mine/checkpoint-6", "policy=gate")
    store.set_logged_model_tags(model, {"checkpoint.files": "removed"})
    said = registry(own, "op=rollback", "name=gone", "op.reason=why", code=2)
    assert "the files of checkpoint-4 were removed" in said and aliases(store, "gone")["champion"] == 2
    store.delete_logged_model_tag(model, "checkpoint.files")
