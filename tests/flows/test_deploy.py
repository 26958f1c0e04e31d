"""`python -m mlops_llm.registry op=deploy`: a folder that is whole, says what it is, and answers as the model does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from mlops_llm import digest
from mlops_llm.inference.engine import Care, Request, Sampling
from mlops_llm.inference.engines.hf import Hf
from mlops_llm.models import load, tiny
from mlops_llm.models.load import ModelLoad
from mlops_llm.models.ref import Place, resolve
from mlops_llm.registry.deploying import placing
from mlops_llm.registry.deploying.deployment import deployment
from mlops_llm.registry.serving.expected import expected
from mlops_llm.registry.serving.probe import FULL, proven
from mlops_llm.surgery.ops.quantize_int8 import QuantizeInt8
from mlops_llm.tracking.store import connect_to
from tests import miniatures
from tests.ports import own_port
from tests.record import artifacts_of, checkpoints_of, client, run_of
from tests.surgeries import command, written

ASKED = "您好，请问这款产品有什么优惠？"


def registry(folder: Path, *words: str, code: int = 0) -> str:
    return command(folder, *words, code=code, stage="registry")


def told(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
    return found


def texts(folder: Path) -> str:
    """All that is written there, but for weights and vocabulary."""
    files = (each for each in folder.rglob("*") if each.is_file() and each.suffix not in (".safetensors", ".gguf"))
    return "\n".join(each.read_text("utf-8") for each in files if each.name != "tokenizer.json")


def answered(place: Path, how: ModelLoad | None = None) -> str:
    """What transformers says."""
    files = load.inspect(resolve(str(place)), how or ModelLoad())
    tokenizer = load.tokenizer_of(files)
    turns = [{"role": "user", "content": ASKED}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    with Hf().open(files, how or ModelLoad(), tokenizer, 512) as session:
        asked = [Request(0, turns, text, 0)]
        ((_, found),) = session.generate(asked, Sampling(temperature=0, max_new_tokens=24), Care())
    return str(found.text)  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory) -> Path:
    """A folder with a random adapter on `tiny`."""
    folder = tmp_path_factory.mktemp("adapted")
    miniatures.adapter(folder / "adapter", tiny.folder(), rank=2, target_modules=["q_proj", "v_proj"])
    return folder


def test_a_version_is_deployed_whole_and_says_what_it_is(beside):
    store = client(beside)
    (one,) = store.search_model_versions("name = 'sales'")
    logged = one.source.removeprefix("models:/")
    for name, value in (("score/bleu", 12.5), ("score/bleu_low", 11.0)):
        store.log_metric(one.run_id, name, value, model_id=logged, dataset_name="sales_eval", dataset_digest="ab12")
    out = registry(beside, "op=deploy", "name=sales", "version=challenger", "op.api_key_env=SALES_KEY", "run_name=deployed")
    folder = beside / "outputs" / "deployed" / "deployment"
    assert "models:/sales/1" in out and str(folder) in out
    found, run = told(folder), run_of(store, "first")
    row = next(each for each in checkpoints_of(store, run).values() if each.model_id == found["checkpoint"])
    assert found["registered"] == {"name": "sales", "version": 1, "aliases": ["challenger"], "ref": "models:/sales/1"}
    assert found["digest.weights"] == row.tags["digest.weights"] == digest.weights(folder / "model")
    assert found["digest.template"] == row.tags["digest.template"]
    assert (found["name"], found["dtype"], found["context"], found["ends"]) == ("sales", "float32", 512, ["<|im_end|>"])
    assert found["scores"] == [{"name": "score/bleu", "dataset": "sales_eval", "digest": "ab12", "value": 12.5}]
    assert found["lineage"].startswith("first/checkpoint-") and found["lineage"].endswith("<- tiny")
    assert found["deployed"]["run"] == "deployed" and found["deployed"]["by"] and found["deployed"]["time"]
    assert set(found["files"]) == {each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()} - {
        "manifest.json",
        "SHA256SUMS",
    }
    assert (folder / "model" / "model.safetensors").stat().st_nlink > 1, "weights take no room twice"
    assert all(each.stat().st_nlink == 1 for each in (folder / "model").glob("*.json"))
    assert str(beside) not in texts(folder) and str(Path.home()) not in texts(folder)
    assert os.access(folder / "serve_vllm.sh", os.X_OK) and "SALES_KEY" in (folder / "serve_vllm.sh").read_text()

    made = run_of(store, "deployed")
    written_down = {"manifest.json", "Modelfile", "serve_vllm.sh", "compose.yaml", "Dockerfile", "README.md"}
    assert written_down <= artifacts_of(store, made)
    assert [each.model_id for each in store.get_run(made.info.run_id).inputs.model_inputs] == [row.model_id]
    assert made.data.tags["registered"] == "sales/1" and made.data.tags["digest.weights"] == found["digest.weights"]
    tags = store.get_model_version("sales", "1").tags
    assert (tags["deploy.folder"], tags["deploy.run"]) == (str(folder), "deployed")
    assert made.data.tags["project"] == run.data.tags["project"]


def test_the_same_folder_again_is_fine_and_another_content_is_refused(beside):
    words = ["op=deploy", "model=runs:/first/last", "op.folder=kept"]
    registry(beside, *words)
    before = {each: each.stat().st_mtime_ns for each in (beside / "kept").rglob("*")}
    assert "was there already, unchanged" in registry(beside, *words)
    assert {each: each.stat().st_mtime_ns for each in (beside / "kept").rglob("*")} == before
    said = registry(beside, *words, "op.port=8001", code=2)
    assert said == f"error: {beside / 'kept'}: holds something else already; choose another folder, or remove it\n"
    assert "every file is as it was written" in registry(beside, "op=verify", "model=kept")
    (beside / "kept" / "Modelfile").write_text("FROM another\n")
    for again in (["op=verify", "model=kept"], words):
        said = registry(beside, *again, code=2)
        assert "Modelfile: was altered" in said and len(said.splitlines()) == 1
    (beside / "taken").mkdir()
    (beside / "taken" / "mine.txt").touch()
    assert "holds something else" in registry(beside, "op=deploy", "model=tiny", "op.folder=taken", code=2)
    assert [each.name for each in (beside / "taken").iterdir()] == ["mine.txt"]


def test_an_adapter_becomes_the_whole_model_that_it_is(adapted):
    registry(adapted, "op=deploy", "model=adapter", "op.folder=whole", "op.serve_as=sales")
    found = told(adapted / "whole")
    assert [(each["role"], each["ref"]) for each in found["made_of"]] == [
        ("adapter", "adapter"),
        ("base", tiny.folder().name),
    ]
    assert found["made_of"][0]["weights"] == digest.weights(adapted / "adapter")
    assert found["digest.weights"] == digest.weights(adapted / "whole" / "model") != found["made_of"][1]["weights"]
    assert not list((adapted / "whole" / "model").glob("adapter*")) and str(adapted) not in texts(adapted / "whole")
    same = answered(adapted / "adapter"), answered(adapted / "whole" / "model")
    assert same[0] == same[1] != answered(tiny.folder())
    assert "unchanged" in registry(adapted, "op=deploy", "model=adapter", "op.folder=whole", "op.serve_as=sales")


def test_packed_weights_are_handed_on_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(QuantizeInt8(), tmp_path / "int8", model="tiny")
    made = deployment(Place("int8", tmp_path / "int8"), ModelLoad(), tmp_path / "out", name="small", port=9000)
    assert (made.name, made.is_new, made.model) == ("small", True, tmp_path / "out" / "model")
    assert made.weights == digest.weights(tmp_path / "int8") == told(made.folder)["digest.weights"]
    assert (made.model / "model.safetensors").samefile(tmp_path / "int8" / "model.safetensors")
    assert told(made.folder)["packed"] == "torchao" and not (made.folder / "Modelfile").exists()
    assert any("does not read weights packed by torchao" in each for each in told(made.folder)["ollama"])
    assert answered(made.model) == answered(tmp_path / "int8")
    assert not deployment(Place("int8", tmp_path / "int8"), ModelLoad(), tmp_path / "out", name="small", port=9000).is_new


def test_of_two_at_once_the_second_finds_the_folder_of_the_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place, put, made = Place("tiny", tiny.folder()), placing.place, list[bool]()

    def meanwhile(*given: Any) -> None:
        monkeypatch.setattr(placing, "place", put)
        made.append(deployment(place, ModelLoad(), tmp_path / "out").is_new)
        put(*given)

    monkeypatch.setattr(placing, "place", meanwhile)
    assert not deployment(place, ModelLoad(), tmp_path / "out").is_new and made == [True]
    assert [each.name for each in tmp_path.iterdir()] == ["out"], "no draft is left"


def test_a_gguf_goes_along_if_it_is_this_model(tmp_path):
    for name, seed in (("one", 0), ("other", 1)):
        miniatures.model(tmp_path / name, seed=seed)
    gguf = tmp_path / "gguf"
    gguf.mkdir()
    (gguf / "model.gguf").write_bytes(b"GGUF")
    recipe = {
        "digest.weights": digest.raw(gguf / "model.gguf"),
        "sources": [{"role": "parent", "digest": digest.weights(tmp_path / "one")}],
    }
    said = registry(tmp_path, "op=deploy", "model=one", "op.gguf=gguf", code=2)
    assert "gguf: nothing says of which model it was made (recipe.json)" in said
    (gguf / "recipe.json").write_text(json.dumps(recipe))
    said = registry(tmp_path, "op=deploy", "model=other", "op.gguf=gguf", code=2)
    assert "gguf: was made of another model" in said and len(said.splitlines()) == 1
    registry(tmp_path, "op=deploy", "model=one", "op.gguf=gguf", "op.folder=out")
    assert "FROM ./gguf/model.gguf\n" in (tmp_path / "out" / "Modelfile").read_text()
    assert (tmp_path / "out" / "gguf" / "model.gguf").samefile(gguf / "model.gguf")
    assert "holds no GGUF file" in registry(tmp_path, "op=deploy", "model=one", "op.gguf=other", code=2)


def test_a_model_without_a_chat_template_takes_the_one_that_it_is_asked_with(tmp_path):
    (miniatures.model(tmp_path / "bare") / "chat_template.jinja").unlink()
    registry(tmp_path, "op=deploy", "model=bare", "op.folder=out")
    assert "<|im_start|>" in (tmp_path / "out" / "model" / "chat_template.jinja").read_text()
    assert "--chat-template model/chat_template.jinja" in (tmp_path / "out" / "serve_vllm.sh").read_text()
    assert not (tmp_path / "bare" / "chat_template.jinja").exists()


def test_what_cannot_be_deployed_is_told_in_one_line_and_leaves_nothing(beside, adapted):
    store, before = client(beside), sorted(beside.glob("outputs/*"))
    row = next(iter(checkpoints_of(store, run_of(store, "first")).values()))
    lost = beside / "lost"
    shutil.copytree(adapted / "adapter", lost)
    (lost / "adapter_config.json").write_text((lost / "adapter_config.json").read_text().replace(str(tiny.folder()), "/gone"))
    (lost / "mlops_llm.json").write_text(json.dumps({"base": "/gone", "base.digest": "0" * 64}))
    store.create_registered_model("away")
    tags = {"checkpoint.storage": "reference", "checkpoint.uri": (beside / "nowhere").as_uri()}
    tags["checkpoint.host"] = socket.gethostname()
    away = store.create_logged_model(row.experiment_id, "checkpoint-1", tags=tags)
    store.finalize_logged_model(away.model_id, "READY")
    version(beside, "away", away.model_id)
    version(beside, "away", row.model_id)
    store.delete_model_version("away", "2")
    for words, said in {
        "model=models:/sales@chalenger": "'sales' has no alias 'chalenger'; it has: challenger",
        "name=sales": "'sales' has no alias 'champion'",
        "name=away version=2": "'away' has no version 2, or it was deleted; it has: 1",
        "model=models:/away@champion": f"{beside / 'nowhere'}: the files of checkpoint-1",
        f"model={lost}": f"{lost}: the adapter's base '/gone' is gone",
        "model=tiny op.port=70000": "op.port: is 70000; give a number from 1 to 65535",
        "model=tiny op.context=513": "op.context: is 513, and the model takes 512 tokens",
        "model=tiny op.api_key_env=my-key": "op.api_key_env: 'my-key' is no name of a variable",
        "model=tiny op.tag=a:b": "op.tag: 'a:b' is no tag of an image",
        "": "model: names no model",
    }.items():
        found = registry(beside, "op=deploy", *words.split(), code=2)
        assert said in found and len(found.splitlines()) == 1, found
    assert sorted(beside.glob("outputs/*")) == before


def version(folder: Path, name: str, model: str) -> None:
    """Register a checkpoint; the first is the champion."""
    from mlops_llm.tracking.aliases import register_model

    store = connect_to(f"sqlite:///{folder / 'mlflow.db'}")
    with mock.patch.dict(os.environ, MLFLOW_TRACKING_URI=store.address):
        made = register_model(store, model, "", "checkpoint-1", name, "")
    if made == "1":
        store.client.set_registered_model_alias(name, "champion", made)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_the_script_starts_a_server_that_answers_as_the_adapter_does(adapted):
    made = deployment(
        Place("adapter", adapted / "adapter"), ModelLoad(), adapted / "served", name="sales", api_key_env="SALES_KEY"
    )
    port = own_port()
    more = {"SALES_KEY": "secret-of-the-test", "PYTHON": sys.executable, "SERVE_PORT": str(port)}
    words = ["--enforce-eager", "--kv-cache-memory-bytes", str(2**28)]
    log = (adapted / "vllm.log").open("wb")
    command = ["sh", str(made.folder / "serve_vllm.sh"), *words]
    process = subprocess.Popen(command, env=os.environ | more, stdout=log, stderr=log, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        until = time.monotonic() + 500
        while not reached(f"{address}/health"):
            assert process.poll() is None and time.monotonic() < until, (adapted / "vllm.log").read_text()[-3000:]
            time.sleep(0.5)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(f"{address}/v1/models", "", None)
        assert [each["id"] for each in ask(f"{address}/v1/models", "secret-of-the-test", None)["data"]] == ["sales"]
        turns = [{"role": "user", "content": ASKED}]
        body = {"model": "sales", "messages": turns, "temperature": 0, "max_tokens": 24}
        found = ask(f"{address}/v1/chat/completions", "secret-of-the-test", body)["choices"][0]["message"]["content"]
        assert found == answered(adapted / "adapter")
        proof = proven(f"{address}/v1", "sales", expected(made.model, "float32"), FULL, key="secret-of-the-test")
        assert proof.passed and proof.template == "token ids" and proof.tokens > 20
        other = proven(f"{address}/v1", "sales", expected(tiny.folder(), "float32"), FULL, key="secret-of-the-test")
        assert not other.passed, "the base alone is another model"
    finally:
        log.close()
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ask(address: str, key: str, body: dict[str, Any] | None) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    sent = urllib.request.Request(address, json.dumps(body).encode() if body else None, headers)
    with opener.open(sent, timeout=120) as answer:
        return json.loads(answer.read())


def reached(address: str) -> bool:
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=5).close()
    except OSError:
        return False
    return True
