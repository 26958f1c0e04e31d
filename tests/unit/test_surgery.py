"""Operations of surgery on whole small models, carried out in this process."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from safetensors.torch import save_file

from mlops_llm import digest
from mlops_llm.entry.arguments import quote
from mlops_llm.errors import UserError
from mlops_llm.eval.metrics.bleu import Bleu
from mlops_llm.files import read_object
from mlops_llm.inference.engines.hf import Hf
from mlops_llm.models import load
from mlops_llm.models.ref import resolve
from mlops_llm.models.tensors import Tensors
from mlops_llm.record import MemoryRun
from mlops_llm.registry.decision import Evidence, decide
from mlops_llm.registry.policy import Policy
from mlops_llm.surgery.batch.identity import _is_sound
from mlops_llm.surgery.certificate import certify
from mlops_llm.surgery.config import Then
from mlops_llm.surgery.execution import carry_out, work
from mlops_llm.surgery.execution import made as carried_out
from mlops_llm.surgery.ops.average import Average
from mlops_llm.surgery.ops.ema import Ema
from mlops_llm.surgery.ops.export_gguf import ExportGguf
from mlops_llm.surgery.ops.merge_dare import MergeDare
from mlops_llm.surgery.ops.merge_linear import MergeLinear
from mlops_llm.surgery.ops.merge_lora import Format, MergeLora
from mlops_llm.surgery.ops.merge_mergekit import MergeMergekit
from mlops_llm.surgery.ops.merge_slerp import MergeSlerp
from mlops_llm.surgery.ops.merge_task_arithmetic import MergeTaskArithmetic
from mlops_llm.surgery.ops.merge_ties import Form, MergeTies
from mlops_llm.surgery.ops.prune_depth import PruneDepth
from mlops_llm.surgery.ops.quantize_fp16 import QuantizeFp16
from mlops_llm.surgery.planning import checked
from mlops_llm.surgery.typed import setting
from mlops_llm.surgery.vocabulary import Vocabulary
from tests import miniatures
from tests.surgeries import again, command, made, plan, request, written


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """base, a, b of one architecture; adapters x and y on base; other: another width."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", "a", "b")):
        miniatures.model(folder / name, seed=seed)
    miniatures.adapter(folder / "x", folder / "base", seed=1)
    miniatures.adapter(folder / "y", folder / "base", seed=2, rank=3, use_rslora=True)
    return folder


def ref(models: Path, *names: str) -> list[str]:
    return [str(models / name) for name in names]


OPERATIONS = {
    "linear": (MergeLinear(weights=[0.6, 0.4]), ("a", "b"), False),
    "slerp": (MergeSlerp(t=0.3), ("a", "b"), False),
    "task_arithmetic": (MergeTaskArithmetic(weights=[0.6, -0.4]), ("a", "b"), True),
    "ties": (MergeTies(density=0.5), ("a", "b"), True),
    "ties of the authors": (MergeTies(density=0.5, form=Form.authors), ("a", "b", "x"), True),
    "dare": (MergeDare(drop_rate=0.3, ties=True, normalize=True), ("a", "x"), True),
    "average": (Average(last=2), ("base", "a", "b"), False),
    "ema": (Ema(decay=0.5), ("a", "b"), False),
    "lora": (MergeLora(), ("x",), False),
    "adapter": (MergeLinear(keep_adapter=True), ("x", "y"), False),
    "mergekit": (MergeMergekit(method="model_stock"), ("a", "b"), True),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_gives_a_model_whose_certificate_passes_until_a_tensor_is_corrupted(models, here, name):
    op, parents, based = OPERATIONS[name]
    if name == "mergekit":
        pytest.importorskip("mergekit")
    base = {"base": str(models / "base")} if based else {}
    planned = plan(op, here / "out", models=ref(models, *parents), **base)
    done = made(op, here / "out", models=ref(models, *parents), **base)
    assert done.certificate.passed, done.certificate.text
    assert done.recipe["digest.weights"] == digest.weights(here / "out")
    assert {"logit_kl", "greedy_agreement", "finite", "template", "vocabulary"} <= {c.name for c in done.certificate.checks}
    assert json.loads((here / "out" / "certificate.json").read_text())["verdict"] == "passed"
    file = next(here.glob("out/*.safetensors"))
    places = digest.tensor_places(file)
    *_, start, stop = places[max(places)]
    whole = bytearray(file.read_bytes())
    whole[(start + stop) // 2] ^= 0x40
    file.write_bytes(whole)
    found = again(planned)
    assert not found.passed and "weights" in [each.name for each in found.failures]


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "mergekit"])
def test_a_writer_that_makes_other_numbers_is_found_though_its_digest_agrees(models, here, name):
    from safetensors.torch import load_file, save_file

    op, parents, based = OPERATIONS[name]
    planned = plan(op, here / "out", models=ref(models, *parents), **({"base": str(models / "base")} if based else {}))
    (here / "out").mkdir()
    planned.write(here / "out")
    (file,) = here.glob("out/*.safetensors")
    whole = load_file(file)
    one = next(each for each in whole if "layers.1.self_attn.q_proj" in each and "bias" not in each)
    for wrong in (
        torch.zeros_like(whole[one]),
        whole[one].flip(0).contiguous(),
        whole[one.replace("layers.1", "layers.0")].clone(),
    ):
        save_file(whole | {one: wrong}, file, {"format": "pt"})
        found = certify(planned, here / "out", digest.weights(here / "out")).failures
        assert found[0].name == "merged_again" and one in found[0].said
    save_file(whole, file, {"format": "pt"})
    assert certify(planned, here / "out", digest.weights(here / "out")).passed


def test_the_end_compares_with_all_models_and_after_averages_with_the_last(models, here):
    a, b, base = ref(models, "a", "b", "base")
    compare = "python -m mlops_llm.eval op=compare models=[{}] dataset=REF"
    assert plan(MergeLinear(), here / "out", models=[a, b, base]).next[1] == compare.format(f"{a},{b},{base},{{ref}}")
    for op in (Average(), Ema()):
        assert plan(op, here / "out", models=[a, b, base]).next[1] == compare.format(f"{base},{{ref}}")


def test_mergekits_slerp_begins_at_the_base_that_is_one_of_its_models(models, here):
    pytest.importorskip("mergekit")
    for base, other in (("a", "b"), ("x", "a")):
        op = MergeMergekit(method="slerp", parameters={"t": 0.0})
        written(op, here / base, models=ref(models, base, other), base=str(models / base))
        wanted = models / base if base == "a" else written(MergeLora(), here / "whole", model=str(models / base))
        begun, whole = miniatures.tensors(here / base), miniatures.tensors(wanted)
        for name in whole:
            torch.testing.assert_close(begun[name], whole[name], rtol=1e-5, atol=1e-6)


def test_an_adapter_is_merged_on_the_way_as_peft_merges_it(models, here):
    for name in ("x", "y"):
        written(MergeLora(), here / name, model=str(models / name))
        files = load.inspect(resolve(str(models / name)), load.ModelLoad())
        wanted = load.model(files, load.ModelLoad(), merge=True).state_dict()
        for tensor, found in miniatures.tensors(here / name).items():
            torch.testing.assert_close(found, wanted[tensor], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"modules_to_save": ["embed_tokens"], "target_modules": ["q_proj"]},
        {"alpha_pattern": {"q_proj": 3}, "rank_pattern": {"layers.1.self_attn.q_proj": 2}},
        {"bias": "lora_only"},
    ],
    ids=["dora", "embedding", "whole tensors", "patterns", "bias"],
)
def test_adapters_of_other_kinds_are_merged_too(models, here, settings):
    miniatures.adapter(here / "odd", models / "base", seed=5, **settings)
    done = made(MergeLora(), here / "out", model=str(here / "odd"))
    assert done.certificate.passed, done.certificate.text
    files = load.inspect(resolve(str(here / "odd")), load.ModelLoad())
    wanted = load.model(files, load.ModelLoad(), merge=True).state_dict()
    found, before = miniatures.tensors(here / "out"), miniatures.tensors(models / "base")
    for tensor in before:
        torch.testing.assert_close(found[tensor], wanted[tensor], rtol=1e-5, atol=1e-6)
    assert sum(not torch.equal(found[tensor], before[tensor]) for tensor in before) > 1 or "modules_to_save" in settings


def test_adapters_that_stay_an_adapter_are_the_same_model(models, here):
    names = {"models": ref(models, "x", "y")}
    written(MergeLinear(weights=[0.7, 0.3]), here / "whole", **names)
    made(MergeLinear(weights=[0.7, 0.3], keep_adapter=True), here / "kept", **names)
    written(MergeLora(), here / "merged", model=str(here / "kept"))
    one, other = miniatures.tensors(here / "whole"), miniatures.tensors(here / "merged")
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match=r"op\.keep_adapter: .*/a is no adapter; leave it out"):
        plan(MergeLinear(keep_adapter=True), here / "no", models=ref(models, "a", "x"))


def test_a_base_is_known_where_all_are_adapters_on_it(models, here):
    found = plan(MergeTies(), here / "out", models=ref(models, "x", "y"))
    assert [each.ref for each in found.sources if each.role == "base"] == [str(models / "base")]


def test_weights_in_files_number_formats_and_form(models, here):
    written(MergeLinear(), here / "many", models=ref(models, "a", "b"), shard_mb=1)
    assert len(list(here.glob("many/*.safetensors"))) == 1, "the model is small"
    miniatures.model(here / "wide", seed=4, hidden_size=256, intermediate_size=512)
    miniatures.model(here / "wide2", seed=5, hidden_size=256, intermediate_size=512, shard="1MB")
    names = [str(here / "wide"), str(here / "wide2")]
    written(MergeLinear(), here / "shards", models=names, shard_mb=2)
    assert len(list(here.glob("shards/*.safetensors"))) > 3
    load.model(load.inspect(resolve(str(here / "shards")), load.ModelLoad()), load.ModelLoad(), merge=True)
    from mlops_llm.models.load import Dtype

    done = made(MergeLinear(), here / "half", models=names, dtype=Dtype.bfloat16)
    assert done.certificate.passed and json.loads((here / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    assert {each.dtype for each in miniatures.tensors(here / "half").values()} == {torch.bfloat16}
    miniatures.adapter(here / "z", here / "wide", seed=1)
    written(MergeLora(format=Format.safetensors), here / "one", model=str(here / "z"), shard_mb=1)
    assert [file.name for file in here.glob("one/*.safetensors")] == ["model.safetensors"]


def test_logs_notes_and_what_lies_between(models, here):
    op = MergeLinear(save_log=True, save_intermediate=True, notes=["SFT 通用模型", "adapter"])
    done = made(op, here / "out", models=ref(models, "a", "x"))
    lines = (here / "out" / "merge.log").read_text().splitlines()
    assert len(lines) == len(Tensors(here / "out").names) and "model.norm.weight (32,) float32  away from: " in lines[-1]
    assert [each["note"] for each in done.recipe["sources"]] == ["SFT 通用模型", "adapter"]
    load.inspect(resolve(str(here / "run" / "intermediate" / "model-2")), load.ModelLoad())
    told = plan(MergeLinear(save_intermediate=True), here / "no", models=ref(models, "a", "b")).warnings
    assert "no model is an adapter" in told[0]


def test_the_plan_is_shown_and_nothing_is_done(models, here):
    found = plan(MergeSlerp(weights=[0.6, 0.4]), here / "out", models=ref(models, "a", "b"))
    shown = work(found, dry_run=True)
    assert shown.table["method"] == "SLERP (t = 0.4)" and "tied to the embeddings" in shown.table["output head"]
    assert not (here / "out").exists() and [path.name for path in here.iterdir()] == []


@pytest.mark.parametrize(
    ("op", "settings", "said"),
    [
        (MergeLinear(), {"dataset": "sales_eval", "metric": {"bleu": Bleu()}}, "dataset, metric: nothing is scored without"),
        (MergeLinear(), {"benchmark": ["gsm8k"]}, "benchmark: nothing is scored without then.evaluate=true"),
        (MergeLinear(), {"dataset": "sales_eval", "then": Then(evaluate=True)}, ""),
        (QuantizeFp16(), {"dataset": "sales_eval", "metric": {"bleu": Bleu()}}, ""),
        (QuantizeFp16(), {"metric": {"bleu": Bleu()}}, "metric: nothing is scored without dataset=REF then.evaluate=true"),
        (
            QuantizeFp16(),
            {"dataset": "sales_eval", "benchmark": ["gsm8k"]},
            "benchmark: nothing is scored without then.evaluate",
        ),
        (ExportGguf(), {"dataset": "sales_eval"}, "dataset: nothing is scored without then.evaluate=true"),
    ],
)
def test_what_nothing_would_read_is_told(op, settings, said, models, here, capfd):
    names = ref(models, "a", "b") if isinstance(op, MergeLinear) else ref(models, "a")
    work(op.plan(request(op, here / "out", models=names, engine=Hf(), **settings)), dry_run=True)
    err = capfd.readouterr().err
    assert (said in err) if said else ("nothing is scored" not in err)


def grown(folder: Path, seed: int, token: str, ordinary: str = "") -> Path:
    """A model with a token of its own at the end, and maybe one without merges."""
    miniatures.model(folder, seed=seed, vocab_size=1025 + bool(ordinary))
    told = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    if ordinary:
        told["model"]["vocab"][ordinary] = 1025
    told["model"]["vocab"][token] = 1024
    told["added_tokens"].append({**told["added_tokens"][0], "id": 1024, "content": token})
    (folder / "tokenizer.json").write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
    return folder


def test_differing_vocabularies_are_refused_or_brought_together(here):
    names = [str(grown(here / "a", 1, "<|red|>")), str(grown(here / "b", 2, "<|blue|>", "zebra"))]
    a, b = (miniatures.tensors(Path(name))["model.embed_tokens.weight"] for name in names)
    with pytest.raises(
        UserError, match=r"vocabularies differ: .*only in .*/b: <\|blue\|>, zebra; only in .*/a: <\|red\|>; op\.voc"
    ):
        plan(MergeLinear(), here / "no", models=names)
    first = made(MergeLinear(vocabulary=Vocabulary.first), here / "first", models=names)
    assert first.certificate.passed, first.certificate.text
    found = miniatures.tensors(here / "first")["model.embed_tokens.weight"]
    torch.testing.assert_close(found[:1024], (a[:1024] + b[:1024]) / 2)
    torch.testing.assert_close(found[1024], a[1024], msg="only the first has it")
    union = made(MergeLinear(vocabulary=Vocabulary.union), here / "union", models=names)
    assert union.certificate.passed, union.certificate.text
    found = miniatures.tensors(here / "union")["model.embed_tokens.weight"]
    assert found.shape[0] == 1027 == json.loads((here / "union" / "config.json").read_text())["vocab_size"]
    torch.testing.assert_close(found[1024:], torch.stack([a[1024], b[1024], b[1025]]))
    tokenizer = load.tokenizer(resolve(str(here / "union")))
    assert tokenizer("<|red|>您好<|blue|>").input_ids[0::2][0] == 1024 and tokenizer("<|blue|>").input_ids == [1025]
    assert len(tokenizer) == 1027


def test_reward_models_are_merged_with_their_heads(here):
    from transformers import AutoModelForSequenceClassification

    for seed, name in enumerate(("a", "b")):
        miniatures.model(here / name, seed=seed)
        torch.manual_seed(seed)
        config = miniatures.config("qwen2", num_labels=1)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(here / name)
    done = made(MergeLinear(), here / "out", models=[str(here / "a"), str(here / "b")])
    assert done.certificate.passed and "scores" in {each.name for each in done.certificate.checks}
    assert "score.weight" in miniatures.tensors(here / "out")
    assert load.inspect(resolve(str(here / "out")), load.ModelLoad(), load.Task.reward).task is load.Task.reward


def free(monkeypatch, size: int) -> None:
    """As if so many bytes of memory were free."""
    monkeypatch.setattr("mlops_llm.train.machine.host_free", lambda: size)


def test_models_too_large_to_be_opened_are_not_asked_and_the_end_says_so(models, here, monkeypatch, capsys):
    plans = [
        plan(MergeLinear(), here / "merged", models=ref(models, "a", "b")),
        plan(MergeLora(), here / "exact", model=str(models / "x")),
    ]
    free(monkeypatch, 10)
    merged, exact = (carried_out(each) for each in plans)
    assert not merged.certificate.passed and not merged.certificate.failures
    assert merged.certificate.checks[-1].name == "not_asked"
    wanted = "its outputs are not asked: 194 kB of memory are needed to open a whole model and 10 B are free"
    assert merged.certificate.said == f"not measured ({wanted}): not promotable"
    assert merged.certificate.grid.title == "certificate: not measured"
    assert read_object(here / "merged" / "certificate.json")["verdict"] == "not measured"
    assert _is_sound({**merged.recipe, "folder": here / "merged"}), "a batch does not make it again for that"
    assert merged.certificate.grid.rows[-1][:2] == ("not asked", "outputs")
    assert "the outputs are not asked: 194 kB" in capsys.readouterr().err
    assert [each.name for each in exact.certificate.failures] == ["not_asked"], "its limits could not be checked"
    assert exact.certificate.verdict == "failed"


def test_a_model_that_nothing_was_measured_of_is_registered_but_no_policy_promotes_it(models, here, monkeypatch):
    planned = plan(MergeLinear(), here / "merged", models=ref(models, "a", "b"), name="sales")
    free(monkeypatch, 10)
    run = MemoryRun()
    done = carry_out(planned, run)
    assert not done.failed and done.best and done.best.model == "sales", "the command did what it was told"
    assert done.values["certificate.verdict"] == "not measured"
    (checkpoint,) = run.checkpoints
    told = Evidence(1, None, certificate=checkpoint.tags["certificate"], operation=checkpoint.tags["operation"])
    decision = decide(Policy(), told)
    assert not decision.passed
    assert decision.reasons == [
        "certificate: its outputs were not measured: there was no memory to ask the models; "
        "where there is, rebuild of its recipe.json makes it again"
    ]


def test_what_does_not_fit_into_memory_is_refused_with_what_would(models, here, monkeypatch):
    (here / "out").mkdir()
    big = dataclasses.replace(
        plan(MergeLinear(), here / "new", models=ref(models, "a", "b")),
        memory=3_000_000_000,
        lighter={"dtype=bfloat16": 1_500_000_000, "op=quantize_int4": 40_000_000},
    )
    free(monkeypatch, 1_000_000_000)
    with pytest.raises(
        UserError, match=r"^memory: 3\.0 GB are needed and 1\.0 GB are free; this fits: op=quantize_int4 \(40\.0 MB\)$"
    ):
        checked(big)
    free(monkeypatch, 1_000)
    with pytest.raises(UserError, match=r"are needed and 1 kB are free; free some, or take a machine with more"):
        checked(big)
    free(monkeypatch, 100_000)
    small = dataclasses.replace(big, memory=10)
    assert checked(small).warnings[-1] == (
        "the certificate opens a whole model, and 194 kB are not free: no output will be asked, and no policy promotes it; "
        "model_load.dtype=bfloat16 needs 97 kB"
    )


def test_a_pruning_that_would_load_more_than_there_is_names_the_smaller_numbers(models, here, monkeypatch):
    size = load.inspect(resolve(str(models / "a")), load.ModelLoad()).parameters
    free(monkeypatch, 3 * size)
    with pytest.raises(UserError, match=r"^memory: .* this fits: model_load\.dtype=bfloat16 \(97 kB\)$"):
        plan(PruneDepth(layers=[1]), here / "out", model=str(models / "a"))


def test_a_sweep_that_would_load_more_than_there_is_ends_with_2_before_anything_is_recorded(models, here, jsonl, monkeypatch):
    rows = jsonl([{"prompt": "a", "response": "b"}])
    names = ref(models, "a", "b")
    free(monkeypatch, plan(MergeSlerp(), here / "one", models=names).memory + 1000)
    words = [f"models=[{','.join(names)}]", f"dataset={rows}", "metric=[perplexity]", "output=out"]
    said = command(here, "op=sweep", *words, code=2)
    assert "are free; this fits: single merges by op=merge_slerp (" in said and not (here / "out").exists()
    assert not (here / "mlflow.db").exists()


def broken(models: Path, here: Path, name: str, spoil) -> str:
    """A copy of model `a` with one thing wrong."""
    folder = here / name
    tensors = miniatures.tensors(models / "a")
    folder.mkdir()
    for file in (models / "a").iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    spoil(folder, tensors)
    if tensors:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


def test_nan_in_a_parent_is_named_and_nothing_is_left(models, here):
    def spoil(folder, tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")

    bad = broken(models, here, "bad", spoil)
    with pytest.raises(UserError, match=r"bad: tensor model\.layers\.1\.mlp\.up_proj\.weight holds NaN or infinity"):
        made(MergeLinear(), here / "out", models=[str(models / "b"), bad])
    assert sorted(path.name for path in here.iterdir()) == ["bad"]


def test_a_truncated_shard_is_refused(models, here):
    bad = broken(models, here, "bad", lambda folder, tensors: None)
    file = Path(bad) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors: is cut off: 100 bytes are missing \(tensor "):
        plan(MergeLinear(), here / "out", models=[str(models / "b"), bad])


def test_models_that_do_not_fit_are_refused_with_the_first_difference(models, here):
    a = str(models / "a")
    deep = str(miniatures.model(here / "deep", num_hidden_layers=3))
    wide = str(miniatures.model(here / "wide", intermediate_size=64))
    llama = str(miniatures.model(here / "llama", "llama", tie_word_embeddings=True))
    untied = str(miniatures.model(here / "untied", tie_word_embeddings=False))
    for other, said in {
        deep: r"model\.layers\.2\.input_layernorm\.weight: layers differ: .*/deep has it \(32,\), .*/a has not",
        wide: r"model\.layers\.0\.mlp\.down_proj\.weight: layers differ: it is \(32, 48\) in .*/a and \(32, 64\) in .*/wide",
        llama: "models: architectures differ: model_type is qwen2 in .*/a and llama in .*/llama",
        untied: "models: architectures differ: tie_word_embeddings is True in .*/a and False in .*/untied",
    }.items():
        with pytest.raises(UserError, match=said):
            plan(MergeLinear(), here / "out", models=[a, other])


def test_other_settings_and_templates_are_told(models, here):
    def spoil(folder, tensors):
        told = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(
            json.dumps(told | {"rms_norm_eps": 1e-3, "rope_parameters": {"rope_type": "default", "rope_theta": 5.0}})
        )
        (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")

    other = broken(models, here, "other", spoil)
    told = plan(MergeLinear(), here / "out", models=[str(models / "a"), other]).warnings
    assert "rms_norm_eps is 1e-06 in" in told[0] and "rope_parameters is {" in told[1] and "'rope_theta': 5.0" in told[1]
    assert told[2].startswith("chat templates differ: the result has that of")


@pytest.mark.parametrize(
    ("op", "settings", "said"),
    [
        (lambda: MergeSlerp(), {"models": ["a"]}, "models: names 1, and merge_slerp takes 2; name them"),
        (lambda: MergeSlerp(), {"models": ["a", "b", "base"]}, "models: names 3, and merge_slerp takes 2"),
        (lambda: MergeLinear(), {"models": ["a"]}, "models: names 1, and merge_linear takes 2 or more"),
        (lambda: MergeLinear(), {"models": ["a", "a"]}, "models: names .*a twice"),
        (lambda: MergeLinear(), {"models": []}, "models: names 0"),
        (lambda: MergeLinear(), {"model": "a"}, "model: is given, but a merge takes several"),
        (lambda: MergeLinear(weights=[1.0]), {"models": ["a", "b"]}, r"op\.weights: has 1 weights for 2 models"),
        (lambda: MergeLinear(weights=[0.6, 0.6]), {}, r"op\.weights: sum to 1\.2, not to 1; give op\.weights=\[0\.5,0\.5\]"),
        (lambda: MergeLinear(weights=[1.5, -0.5]), {}, r"op\.weights: has -0\.5; .*op=merge_task_arithmetic"),
        (lambda: MergeLinear(notes=["x"]), {"models": ["a", "b"]}, r"op\.notes: has 1 notes for 2 models"),
        (lambda: MergeLinear(), {"models": ["a", "b"], "base": "base"}, "base: is given, and merge_linear needs none"),
        (
            lambda: MergeTies(),
            {"models": ["a", "b"]},
            "base: merge_ties needs what the models were trained from; give base=REF",
        ),
        (lambda: MergeTies(), {"models": ["a", "x"]}, "base: merge_ties needs what the models were trained from"),
        (lambda: MergeTies(density=0.0), {}, r"op\.density: is 0\.0; give a number above 0, up to 1"),
        (lambda: MergeDare(drop_rate=1.0), {}, r"op\.drop_rate: is 1\.0"),
        (lambda: MergeDare(normalize=True), {}, r"op\.normalize: divides by the weights, which sum to 1"),
        (lambda: MergeSlerp(t=1.2), {}, r"op\.t: is 1\.2; give a number from 0 to 1"),
        (lambda: MergeSlerp(t=0.3, weights=[0.6, 0.4]), {}, r"op\.t: is 0\.3, and op\.weights gives the second model 0\.4"),
        (lambda: Average(last=3), {"models": ["a", "b"]}, r"op\.last: is 3, and there are 2 checkpoints"),
        (lambda: Average(), {}, "models: names no models; give .*run=RUN"),
        (lambda: Average(), {"models": ["a"], "run": "r"}, "run: is given beside models"),
        (lambda: Ema(start_step=5), {"models": ["a", "b"]}, r"op\.start_step: is 5, and the last checkpoint is of step 0"),
        (lambda: MergeLora(), {"model": "a"}, "a: is a whole model, no adapter"),
        (
            lambda: MergeLora(),
            {"model": "x", "base": "a"},
            r"a: the adapter was trained on .*base \(digest .*not on these weights",
        ),
        (lambda: MergeLora(), {}, "model: names no model"),
        (lambda: MergeLinear(), {"models": ["a", "nowhere"]}, "nowhere: there is no such model folder"),
        (lambda: MergeMergekit(), {"models": ["a", "b"]}, r"op\.method: names no method"),
        (
            lambda: MergeMergekit(method="model_stok"),
            {"models": ["a", "b"]},
            "no method 'model_stok' .did you mean model_stock?",
        ),
        (lambda: MergeMergekit(method="ties"), {"models": ["a", "b"]}, "base: mergekit's ties needs what the models"),
        (
            lambda: MergeMergekit(method="slerp"),
            {"models": ["a", "b"]},
            r"base: mergekit's slerp takes two models and begins at one of them \(t = 0\); name that one here too: base=.*a$",
        ),
        (
            lambda: MergeMergekit(method="slerp"),
            {"models": ["a", "b"], "base": "base"},
            "base: mergekit's slerp takes two models",
        ),
        (lambda: MergeMergekit(method="linear"), {"models": ["a", "a"]}, "models: names .*a twice"),
        (lambda: MergeMergekit(method="linear"), {"model": "a"}, "model: is given, but a merge takes several"),
        (lambda: MergeMergekit(method="linear", parameters=[1]), {}, r"op\.parameters: is \[1\]; give settings"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(models, here, op, settings, said):
    named = {
        name: [str(models / each) for each in value] if name == "models" else str(models / value) if name != "run" else value
        for name, value in settings.items()
    }
    with pytest.raises(UserError, match=said):
        plan(op(), here / "out", **named)


def test_a_model_by_two_names_and_checkpoints_of_one_step_are_warned_of(models, here):
    a, b = ref(models, "a", "b")
    told = plan(MergeLinear(), here / "out", models=[a, b, f"{a}/."]).warnings
    assert told[0].endswith("are the same model, which so counts twice")
    assert plan(Ema(), here / "out", models=[a, b]).warnings[0] == f"{b} is of step 0, as {a} is, so it counts nothing"


def test_the_next_commands_can_be_typed_whatever_models_are_called():
    assert setting("models", ["A", "模型", "{ref}"]) == "models=[A,模型,{ref}]"
    for name in ("模型 甲", "a,b", "it's", "x=[1]", "$HOME", "a (2)"):
        (typed,) = shlex.split(setting("models", ["A", name, "{ref}"]).replace("{ref}", "runs:/r/merged"))
        assert OverridesParser.create().parse_override(quote(typed)).value() == ["A", name, "runs:/r/merged"]


def test_an_output_that_exists_and_a_full_disk_are_refused(models, here, monkeypatch):
    (here / "out").mkdir()
    with pytest.raises(UserError, match="out: exists already; choose another output="):
        plan(MergeLinear(), here / "out", models=ref(models, "a", "b"))
    (here / "file").touch()
    with pytest.raises(UserError, match="file: is a file, and the output is to lie in it; choose another output="):
        plan(MergeLinear(), here / "file" / "new" / "out", models=ref(models, "a", "b"))
    monkeypatch.setattr("mlops_llm.files.free_bytes", lambda folder: 1000)
    with pytest.raises(UserError, match=r"MB are needed and 1 kB are free; free some disk"):
        plan(MergeLinear(), here / "new", models=ref(models, "a", "b"))


def test_a_disk_that_fills_up_leaves_nothing(models, here, monkeypatch):
    from mlops_llm.models.tensors import ShardWriter

    def full(self, name, tensor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ShardWriter, "write", full)
    with pytest.raises(UserError, match="the disk filled up while the new weights were written; nothing is left"):
        made(MergeLinear(), here / "out", models=ref(models, "a", "b"))
    assert list(here.iterdir()) == []


MEASURE = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
from mlops_llm.surgery.ops.merge_slerp import MergeSlerp
from tests.surgeries import plan, written
folder = Path(sys.argv[1])
torch.set_num_threads(1)
written(MergeSlerp(), folder / "warm", models=[str(folder / "s1"), str(folder / "s2")])
planned = plan(MergeSlerp(), folder / "out", models=[str(folder / "a"), str(folder / "b")], shard_mb=128)
(folder / "out").mkdir()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
planned.write(folder / "out")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, planned.memory)
"""


def random_model(folder: Path, seed: int) -> None:
    """200 million numbers, written by our own writer, since making the model itself would take longer than merging it."""
    from mlops_llm.models.tensors import Shape, ShardWriter

    config = miniatures.config(
        "llama", hidden_size=1024, intermediate_size=4096, num_hidden_layers=10, vocab_size=32000, tie_word_embeddings=True
    )
    shapes = {"model.embed_tokens.weight": (32000, 1024), "model.norm.weight": (1024,)}
    for layer in range(config.num_hidden_layers):
        for name, shape in {"up_proj": (4096, 1024), "gate_proj": (4096, 1024), "down_proj": (1024, 4096)}.items():
            shapes[f"model.layers.{layer}.mlp.{name}.weight"] = shape
        for name in ("q", "k", "v", "o"):
            shapes[f"model.layers.{layer}.self_attn.{name}_proj.weight"] = (1024, 1024)
    folder.mkdir()
    config.save_pretrained(folder)
    writer = ShardWriter(
        folder, {name: Shape("BF16", shape, 2 * torch.Size(shape).numel()) for name, shape in shapes.items()}, 128_000_000
    )
    drawn = torch.randn(1 << 20, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)
    for name, shape in sorted(shapes.items()):
        count = torch.Size(shape).numel()
        writer.write(name, drawn.repeat(count // len(drawn) + 1)[:count].reshape(shape))
    writer.close()
    for name in miniatures.BESIDE:
        (folder / name).write_bytes((miniatures.tiny.folder() / name).read_bytes())


@pytest.mark.slow
def test_memory_is_one_tensor_a_model_and_a_shard(here):
    random_model(here / "a", 0)
    shutil.copytree(here / "a", here / "b", copy_function=os.link)
    for seed, name in enumerate(("s1", "s2")):
        miniatures.model(here / name, "llama", seed)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(here), str(Path(__file__).parents[2])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    used, planned = map(int, done.stdout.split()[-2:])
    tensor, shard = 32000 * 1024 * 2, 128_000_000
    assert used * 1024 < 2 * tensor + shard, f"{used / 1e3:.0f} MB"
    assert used * 1024 < 1.5 * planned, "the plan knows it"
    assert len(list(here.glob("out/*.safetensors"))) > 2
