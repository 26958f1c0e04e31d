"""What is left out of a model, how much of it, and that the rest is as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from safetensors.numpy import load_file as load_numpy

from mlops_llm import digest
from mlops_llm.errors import UserError
from mlops_llm.models import load
from mlops_llm.models.load import ModelLoad
from mlops_llm.models.ref import Place
from mlops_llm.surgery.pruning import as_llama, importance
from mlops_llm.surgery.pruning.amount import Of, amount, named
from mlops_llm.surgery.pruning.cut import Cut, best, without_layers
from mlops_llm.surgery.pruning.layout import Layout, Unit, layout
from mlops_llm.surgery.pruning.masked import masked
from mlops_llm.surgery.pruning.writing import config_of, written
from mlops_llm.surgery.weights import Weights, opened
from tests.families import FAMILIES, miniature

ROWS = [[5, 17, 3, 60, 22, 9, 41], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]]


def sizes(**changes: Any) -> Layout:
    usual: dict[str, Any] = {
        "family": "llama",
        "layers": 10,
        "width": 100,
        "heads": 8,
        "groups": 4,
        "head": 8,
        "hidden": 64,
        "parameters": 100_000,
        "of_layer": {Unit.neuron: 5_000, Unit.group: 2_000, Unit.layer: 7_100},
    }
    return Layout(**{**usual, **changes})


def weights(folder: Path) -> Weights:
    return opened(load.inspect(Place(str(folder), folder), ModelLoad()), ModelLoad())


def layout_of(folder: Path) -> Layout:
    found = weights(folder)
    return layout(found.config, found.shapes, str(folder))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_sizes_of_every_family_are_told_from_headers(family: str, tmp_path: Path) -> None:
    model = miniature(family, tmp_path / "m", layers=3)
    found = layout_of(tmp_path / "m")
    layer = model.model.layers[0]
    assert found.parameters == sum(each.numel() for each in model.parameters())
    assert found.of_layer[Unit.layer] == sum(each.numel() for each in layer.parameters())
    assert found.of_layer[Unit.neuron] == sum(each.numel() for each in layer.mlp.parameters())
    norms = sum(each.numel() for name, each in layer.self_attn.named_parameters() if "norm" in name)
    assert found.of_layer[Unit.group] == sum(each.numel() for each in layer.self_attn.parameters()) - norms


def test_unknown_families_and_foreign_tensors_are_refused_by_name(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=64)).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(UserError, match="family 'gpt2'"):
        layout_of(tmp_path / "gpt2")

    from safetensors.torch import load_file, save_file

    miniature("llama", tmp_path / "m")
    file = tmp_path / "m/model.safetensors"
    save_file(load_file(file) | {"model.layers.1.mlp.router.weight": torch.zeros(2)}, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.router\.weight"):
        layout_of(tmp_path / "m")


def test_a_config_that_contradicts_the_weights_is_refused(tmp_path: Path) -> None:
    miniature("qwen2", tmp_path / "m")
    config = tmp_path / "m/config.json"
    config.write_text(config.read_text().replace('"intermediate_size": 48', '"intermediate_size": 40'))
    with pytest.raises(UserError, match=r"mlp\.gate_proj\.weight has the shape \[48, 32\], and config.json says 40"):
        layout_of(tmp_path / "m")


@given(some.floats(0.005, 0.47), some.sampled_from(Of))
def test_what_goes_is_as_near_to_the_ratio_as_whole_units_come(ratio: float, of: Of) -> None:
    found = amount(sizes(), Unit.neuron, ratio, of)
    reached = found.gone / 100 if of is Of.unit else found.share
    half = 0.005 if of is Of.unit else 0.0025
    assert abs(reached - ratio) <= half + 1e-12
    assert found.parameters_gone == found.gone * 500  # a neuron is 50 numbers in each of 10 layers


def test_ratios_that_leave_nothing_or_take_nothing_name_the_nearest_that_works() -> None:
    for unit, most, least in ((Unit.group, "0.15", "0.05"), (Unit.layer, "0.639", "0.071")):
        with pytest.raises(UserError, match=f"leaves none .*; the largest that works is op.ratio={most}"):
            amount(sizes(), unit, 0.9, Of.parameters)
        with pytest.raises(UserError, match=f"less than half .*; the smallest that works is op.ratio={least}"):
            amount(sizes(), unit, 0.001, Of.parameters)
        assert amount(sizes(), unit, float(most), Of.parameters).kept == 1
        assert amount(sizes(), unit, float(least), Of.parameters).gone == 1
    with pytest.raises(UserError, match="leaves none: there is 1 of key/value groups"):
        amount(sizes(groups=1, of_layer={Unit.group: 9}), Unit.group, 0.5, Of.unit)


def test_the_width_that_stays_is_a_multiple_where_the_old_one_was() -> None:
    wide = sizes(width=1536, of_layer={Unit.neuron: 1536 * 10})
    assert amount(wide, Unit.neuron, 0.2, Of.unit, 64).kept % 64 == 0
    assert amount(sizes(width=1537, of_layer={Unit.neuron: 1537}), Unit.neuron, 0.2, Of.unit, 64).gone == 307


def test_layers_that_are_not_there_are_refused() -> None:
    assert named(sizes(), [3, 4]).parameters_gone == 2 * 7_100
    for layers, said in (([10], "names layer 10, and there are 0 to 9"), ([1, 1], "layer 1 twice"), ([*range(10)], "none")):
        with pytest.raises(UserError, match=said):
            named(sizes(), layers)


def test_importance_is_that_of_numpy_in_float64() -> None:
    draw = np.random.default_rng(0)
    activation, down = np.abs(draw.normal(size=6)), draw.normal(size=(4, 6))
    gate, up = draw.normal(size=(6, 4)), draw.normal(size=(6, 4))
    norms = np.sqrt((down**2).sum(0))
    found = importance.by_activation(torch.tensor(activation), torch.tensor(down))
    assert np.allclose(found, activation * norms, rtol=1e-6)
    found = importance.by_magnitude(torch.tensor(gate), torch.tensor(up), torch.tensor(down))
    assert np.allclose(found, np.sqrt((gate**2).sum(1)) * np.sqrt((up**2).sum(1)) * norms, rtol=1e-6)
    before, after = draw.normal(size=(2, 3, 5)), draw.normal(size=(2, 3, 5))
    cosine = (before * after).sum(-1) / np.sqrt((before**2).sum(-1) * (after**2).sum(-1))
    assert np.allclose(importance.block_influence(torch.tensor(before), torch.tensor(after)), 1 - cosine, rtol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_activations_are_those_that_a_forward_pass_computes(family: str, tmp_path: Path) -> None:
    """Against the model's own arithmetic, written out without hooks."""
    model = miniature(family, tmp_path / "m")
    with torch.no_grad():
        states = [model.model(torch.tensor([row]), output_hidden_states=True).hidden_states for row in ROWS]
        layer = model.model.layers[0]
        inner = [
            torch.nn.functional.silu(layer.mlp.gate_proj(x)) * layer.mlp.up_proj(x) for x in map(_second_norm(model), ROWS)
        ]
    mean = torch.cat([each[0] for each in inner]).abs().mean(0)
    wanted = mean * layer.mlp.down_proj.weight.norm(dim=0)
    assert torch.allclose(importance.neurons(model, ROWS)[0], wanted, rtol=1e-4)
    first = torch.cat([torch.cosine_similarity(each[0], each[1], dim=-1)[0] for each in states])
    assert importance.layers(model, ROWS)[0] == pytest.approx(float(1 - first.mean()), rel=1e-4)


def _second_norm(model: Any) -> Any:
    """What the first layer's feed-forward part is given."""
    layer = model.model.layers[0]

    def given(row: list[int]) -> Any:
        hidden = model.model.embed_tokens(torch.tensor([row]))
        rotation = model.model.rotary_emb(hidden, torch.arange(len(row))[None])
        attended, _ = layer.self_attn(layer.input_layernorm(hidden), position_embeddings=rotation, attention_mask=_causal(row))
        return layer.post_attention_layernorm(hidden + attended)

    return given


def _causal(row: list[int]) -> Any:
    return torch.full((1, 1, len(row), len(row)), float("-inf")).triu(1)


@pytest.mark.parametrize("unit", [Unit.neuron, Unit.group])
def test_a_dead_unit_is_the_least_important_and_costs_nothing(unit: Unit, tmp_path: Path) -> None:
    model = miniature("llama", tmp_path / "m")
    whole = model(torch.tensor([ROWS[0]])).logits
    for layer in model.model.layers:
        if unit is Unit.neuron:
            layer.mlp.down_proj.weight.data[:, 7] = 0
        else:
            layer.self_attn.o_proj.weight.data[:, 16:] = 0  # the second of two groups of two heads of 8
    scores = importance.neurons(model, ROWS) if unit is Unit.neuron else importance.groups(model, ROWS, 2)
    cut = best(layout_of(tmp_path / "m"), unit, scores, len(scores[0]) - 1)
    assert all((7 if unit is Unit.neuron else 1) not in kept for kept in cut.kept.values())
    dead = model(torch.tensor([ROWS[0]])).logits
    assert not torch.allclose(dead, whole)
    with masked(model, cut) as same:
        assert torch.allclose(same(torch.tensor([ROWS[0]])).logits, dead, atol=1e-6)


def test_a_masked_layer_passes_its_input_on_and_is_itself_again_afterwards(tmp_path: Path) -> None:
    model = miniature("qwen3", tmp_path / "m", layers=3)
    ids = torch.tensor([ROWS[1]])
    before = model(ids).logits
    with masked(model, without_layers(layout_of(tmp_path / "m"), [1])) as cut:
        without = cut(ids, use_cache=False).logits
    assert torch.equal(model(ids).logits, before)
    layers = model.model.layers
    model.model.layers = torch.nn.ModuleList([layers[0], layers[2]])
    model.config.num_hidden_layers = 2
    assert torch.allclose(model(ids, use_cache=False).logits, without, atol=1e-6)
    assert not torch.allclose(before, without)


def saved(folder: Path, cut: Cut, out: Path) -> Any:
    """The result of a cut as transformers loads it."""
    from transformers import AutoModelForCausalLM

    found = weights(folder)
    out.mkdir()
    told = written(found, cut, out, 30_000)
    assert told == digest.weights(out)
    (out / "config.json").write_text(json.dumps(config_of(cut, found.config)))
    model, report = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    return model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unit", Unit)
def test_what_is_written_loads_and_answers_as_the_masked_model(family: str, unit: Unit, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    model = miniature(family, folder, layers=11)  # names of layers sort as words
    sizes = layout_of(folder)
    if unit is Unit.layer:
        cut = without_layers(sizes, [1, 9])
    else:
        scores = importance.neurons(model, ROWS) if unit is Unit.neuron else importance.groups(model, ROWS, 2)
        cut = best(sizes, unit, scores, 31 if unit is Unit.neuron else 1)
        assert len(set(cut.kept.values())) > 1  # each layer has its own
    pruned = saved(folder, cut, tmp_path / "p")
    ids = torch.tensor([ROWS[1]])
    with torch.no_grad(), masked(model, cut) as whole:
        wanted, found = whole(ids, use_cache=False).logits, pruned(ids, use_cache=False).logits
    assert torch.allclose(wanted, found, atol=2e-5)
    assert not torch.allclose(model(ids).logits, found, atol=1e-2)
    assert pruned.lm_head.weight is pruned.model.embed_tokens.weight
    gone = {Unit.neuron: 17, Unit.group: 1, Unit.layer: 2}[unit] * sizes.parameters_of(unit)
    added = 11 * 32 if (family, unit) == ("qwen2", Unit.group) else 0  # written as Llama, whose output has a bias
    assert sum(each.numel() for each in pruned.parameters()) == sizes.parameters - gone + added


def test_weights_are_rows_and_columns_of_the_originals(tmp_path: Path) -> None:
    """By NumPy, from the files."""
    miniature("qwen3", tmp_path / "m")
    sizes = layout_of(tmp_path / "m")
    (tmp_path / "p").mkdir()
    neurons = Cut(sizes, Unit.neuron, {0: (1, 5, 40), 1: (0, 2, 47)})
    written(weights(tmp_path / "m"), neurons, tmp_path / "p", 10**9)
    old, new = (load_numpy(tmp_path / name / "model.safetensors") for name in ("m", "p"))
    assert set(new) == set(old)
    for name, values in new.items():
        kept = [1, 5, 40] if ".0." in name else [0, 2, 47]
        whole = old[name]
        cut = whole[:, kept] if "down_proj" in name else whole[kept] if "mlp." in name else whole
        assert np.array_equal(values, cut), name
    groups = Cut(sizes, Unit.group, {0: (1,), 1: (0,)})
    written(weights(tmp_path / "m"), groups, tmp_path / "p", 10**9)
    new = load_numpy(tmp_path / "p/model.safetensors")
    for name, values in new.items():
        first = ".0." in name
        query, key = (slice(16, 32), slice(8, 16)) if first else (slice(0, 16), slice(0, 8))
        whole = old[name]
        if "o_proj" in name:
            whole = whole[:, query]
        elif "q_proj" in name or "k_proj" in name or "v_proj" in name:
            whole = whole[query if "q_proj" in name else key]
        assert np.array_equal(values, whole), name


def test_the_config_of_a_model_with_fewer_layers_keeps_what_each_layer_is(tmp_path: Path) -> None:
    kinds = ["full_attention", "full_attention", "sliding_attention", "sliding_attention"]
    settings = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2}
    model = miniature("qwen2", tmp_path / "m", layers=4, **settings)
    assert model.config.layer_types == kinds
    pruned = saved(tmp_path / "m", without_layers(layout_of(tmp_path / "m"), [1]), tmp_path / "p")
    assert pruned.config.layer_types == [kinds[0], *kinds[2:]] and pruned.config.max_window_layers == 1
    with pytest.raises(UserError, match="sliding-window attention"):
        as_llama.check(weights(tmp_path / "m").config, "m")
