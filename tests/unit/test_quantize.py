"""Quantization: what is stored is what the formula says, loads like any other model, and is certified by what it lost."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mlops_llm.errors import RequestError, UserError
from mlops_llm.eval import speed
from mlops_llm.eval.config import Cache
from mlops_llm.inference.engines.hf import Hf
from mlops_llm.inference.engines.vllm import Vllm
from mlops_llm.models import digested, gptq, load, packed
from mlops_llm.models.load import Dtype, ModelLoad
from mlops_llm.models.ref import resolve
from mlops_llm.models.tensors import Shape
from mlops_llm.surgery import elsewhere, forms
from mlops_llm.surgery.forms import group_size
from mlops_llm.surgery.ops.quantize_bf16 import QuantizeBf16
from mlops_llm.surgery.ops.quantize_fp16 import QuantizeFp16
from mlops_llm.surgery.ops.quantize_gptq import QuantizeGptq
from mlops_llm.surgery.ops.quantize_int4 import QuantizeInt4
from mlops_llm.surgery.ops.quantize_int8 import QuantizeInt8
from mlops_llm.surgery.ops.quantize_w4a16 import QuantizeW4A16
from mlops_llm.surgery.ops.quantize_w8a16 import QuantizeW8A16
from tests import miniatures
from tests.surgeries import again, made, plan

LAYER = "model.layers.1.mlp.up_proj"


def inspected(folder: Path) -> load.Files:
    return load.inspect(resolve(str(folder)), ModelLoad())


def opened(folder: Path):
    return load.model(inspected(folder), ModelLoad(dtype=Dtype.float32), merge=True).eval()


def written(op, folder: Path, **settings) -> Path:
    """A model in its new form, without a certificate."""
    planned = plan(op, folder, engine=Hf(), **settings)
    folder.mkdir()
    planned.write(folder)
    return folder


def logits(folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        return opened(folder)(torch.arange(40)[None] + 20).logits


# numbers


def is_nearest(stored: np.ndarray, plain: np.ndarray, scale: np.ndarray) -> bool:
    """Whether whole numbers are the nearest that there are, whichever way halves go."""
    return bool(np.abs(plain / scale - stored).max() <= 0.5 + 1e-4)


def test_int8_is_rounding_to_the_nearest_with_a_scale_for_each_row(tmp_path):
    folder = miniatures.model(tmp_path / "model")
    stored = miniatures.tensors(written(QuantizeInt8(), tmp_path / "out", model=str(folder)))
    plain = miniatures.tensors(folder)[f"{LAYER}.weight"].double().numpy()
    scale = np.abs(plain).max(1, keepdims=True) / 127.5
    np.testing.assert_allclose(stored[f"{LAYER}._weight_scale"].double().numpy(), scale, rtol=1e-6)
    assert is_nearest(stored[f"{LAYER}._weight_qdata"].numpy(), plain, scale)


def test_int4_is_rounding_to_the_nearest_with_a_scale_for_each_group(tmp_path):
    folder = miniatures.model(tmp_path / "model", "llama")
    model = opened(written(QuantizeInt4(group_size=8), tmp_path / "out", model=str(folder)))
    model(torch.tensor([[1]]))  # compressed-tensors unpacks at the first pass
    plain = miniatures.tensors(folder)[f"{LAYER}.weight"].double().numpy().reshape(48, 4, 8)
    scale = np.abs(plain).max(-1, keepdims=True) / 7.5
    found = model.get_submodule(LAYER).weight.detach().double().numpy().reshape(48, 4, 8) / scale
    np.testing.assert_allclose(found, np.rint(found), atol=1e-4)
    assert is_nearest(found, plain, scale)


def test_gptq_words_are_unpacked_as_they_were_packed():
    rng = np.random.default_rng(0)
    numbers, scales = rng.integers(0, 16, (32, 16)), rng.random((4, 16)).astype(np.float32)
    zeros, group = rng.integers(0, 15, (4, 16)), np.repeat(np.arange(4), 8)
    wanted = ((numbers - zeros[group] - 1) * scales[group]).T
    words = sum(numbers[place::8].astype(np.uint32) << np.uint32(4 * place) for place in range(8)).astype(np.uint32)
    packed_zeros = sum(zeros[:, place::8].astype(np.uint32) << np.uint32(4 * place) for place in range(8)).astype(np.uint32)
    parts = {
        "qweight": torch.from_numpy(words.view(np.int32)),
        "qzeros": torch.from_numpy(packed_zeros.view(np.int32)),
        "scales": torch.from_numpy(scales),
        "g_idx": torch.from_numpy(group.astype(np.int32)),
    }
    found = gptq.weight(parts, {"bits": 4, "sym": False, "format": "gptq"})
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)
    symmetric = gptq.weight(parts, {"bits": 4, "sym": True, "format": "gptq"})
    np.testing.assert_allclose(symmetric.numpy(), ((numbers - 8) * scales[group]).T, rtol=1e-6)


# whole operations

OPERATIONS = {
    "int8": (QuantizeInt8, {}),
    "int8-activations": (QuantizeInt8, {"activations": True}),
    "int4": (QuantizeInt4, {}),
    "fp16": (QuantizeFp16, {}),
    "bf16": (QuantizeBf16, {}),
}
LESS = {"int8": 0.5, "int8-activations": 0.5, "int4": 0.4, "fp16": 0.51, "bf16": 0.51}
"""Of tiny's bytes, at most; a quarter of them are embeddings."""


@pytest.mark.parametrize("name", OPERATIONS)
def test_tiny_becomes_smaller_and_stays_itself(tmp_path, name):
    op, settings = OPERATIONS[name]
    found = made(op(**settings, measure=[]), tmp_path / "out", model="tiny", engine=Hf())
    assert found.certificate.passed, found.certificate.text
    told = {each.name: each.value for each in found.certificate.checks}
    assert told["size_ratio"] < LESS[name]
    assert told["logit_kl"] > 0
    assert math.isclose(told["perplexity"] / told["perplexity_before"], told["perplexity_ratio"])
    (said,) = (each.said for each in found.certificate.checks if each.name == "perplexity_before")
    assert said.endswith(
        "on 12 short questions that ship: so high a number says nothing of this model (dataset=REF takes rows that it is for)"
    )
    own = inspected(tmp_path / "out")
    assert own.parameters == inspected(resolve("tiny").folder).parameters
    assert digested.weights_digest(own.place) == found.recipe["digest.weights"]
    assert own.config["tie_word_embeddings"]


def test_what_is_said_on_the_way_is_of_the_output_not_of_its_draft(tmp_path, capsys):
    made(QuantizeBf16(measure=[]), tmp_path / "out", model="tiny", engine=Hf(), cache=Cache.off)
    said = "".join(capsys.readouterr())
    assert f"opening {tmp_path / 'out'}\n" in said and ".out." not in said


def test_speed_is_measured_of_files_that_are_there(tmp_path, monkeypatch):
    """The process that measures opens the draft, for the output is not there before its certificate."""
    asked = []

    def answered(settings):
        asked.append(inspected(resolve(settings.model).folder).parameters)
        return speed.Speed(((1.0, 100.0),), 10**6)

    monkeypatch.setattr(speed, "_in_a_process", answered)
    found = made(QuantizeInt8(), tmp_path / "out", model="tiny", engine=Hf())
    told = {each.name: each.value for each in found.certificate.checks}
    assert (told["hf_speed"], told["hf_tokens_per_second"]) == (1.0, 100.0)
    assert len(asked) == 2


def test_one_broken_tensor_makes_the_certificate_fail(tmp_path):
    planned = plan(QuantizeInt8(measure=[]), tmp_path / "out", model="tiny", engine=Hf())
    made(QuantizeInt8(measure=[]), tmp_path / "out", model="tiny", engine=Hf())
    breaking(tmp_path / "out")
    assert "weights" in {each.name for each in again(planned).failures}


@pytest.mark.parametrize("op", [QuantizeInt8(measure=[]), QuantizeInt4(measure=[]), QuantizeBf16(measure=[])])
def test_what_is_written_wrongly_is_told_by_its_numbers(tmp_path, op, monkeypatch):
    def broken(form, weights, files, folder, **settings):
        forms.write(form, weights, files, folder, **settings)
        return breaking(folder)

    monkeypatch.setattr("mlops_llm.surgery.quantizing.write", broken)
    found = made(op, tmp_path / "out", model="tiny", engine=Hf())
    assert "rounding" in {each.name for each in found.certificate.failures}


def breaking(folder: Path) -> str:
    """Turn the first layer's largest matrix upside down; return the digest as it is now."""
    file = folder / "model.safetensors"
    with safe_open(file, "pt") as handle:
        metadata, state = handle.metadata(), {each: handle.get_tensor(each) for each in handle.keys()}  # noqa: SIM118
    name = max((each for each in state if "layers.0.mlp.down_proj" in each), key=lambda each: state[each].numel())
    state[name] = state[name].flip(0).contiguous()
    save_file(state, file, metadata=metadata)
    return digested.digest_now(folder)


def test_files_of_any_size_give_the_same_model(tmp_path):
    one, many = (
        written(QuantizeInt8(), tmp_path / out, model=str(wide(tmp_path / "model")), shard_mb=most)
        for most, out in ((4000, "one"), (1, "many"))
    )
    assert len(list(many.glob("*.safetensors"))) > 1
    assert torch.equal(logits(one), logits(many))
    assert digested.digest_now(one) == digested.digest_now(many)


def wide(folder: Path) -> Path:
    return folder if folder.exists() else miniatures.model(folder, hidden_size=128, intermediate_size=2048)


def test_an_adapter_is_merged_on_the_way(tmp_path):
    base = miniatures.model(tmp_path / "base")
    adapter = miniatures.adapter(tmp_path / "adapter", base)
    written(QuantizeFp16(), tmp_path / "out", model=str(adapter))
    torch.testing.assert_close(logits(tmp_path / "out"), logits(adapter), atol=0.05, rtol=0.05)
    assert not torch.allclose(logits(tmp_path / "out"), logits(base), atol=0.5)


def test_a_scale_that_is_not_finite_is_found_when_it_is_opened(tmp_path):
    written(QuantizeInt4(), tmp_path / "out", model="tiny")
    state = load_file(tmp_path / "out" / "model.safetensors")
    state[f"{LAYER}.weight_scale"][2, 0] = torch.nan
    save_file(state, tmp_path / "out" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"{LAYER}.weight_scale holds NaN"):
        opened(tmp_path / "out")


def test_vllm_on_a_cpu_multiplies_packed_weights_in_sixteen_bits(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    written(QuantizeInt4(), tmp_path / "int4", model="tiny")
    written(QuantizeInt8(), tmp_path / "int8", model="tiny")
    assert Vllm().dtype(inspected(tmp_path / "int4"), ModelLoad()) is Dtype.bfloat16
    assert Vllm().dtype(inspected(tmp_path / "int4"), ModelLoad(dtype=Dtype.float16)) is Dtype.float16
    assert Vllm().dtype(inspected(tmp_path / "int8"), ModelLoad()) is Dtype.float32


# refused


def layers(**columns: int) -> dict[str, Shape]:
    return {f"{name}.weight": Shape("F32", (4, count), 16 * count) for name, count in columns.items()}


def test_groups_divide_every_layer():
    assert group_size(layers(a=256, b=128), None) == 128
    assert group_size(layers(a=576, b=1536), None) == 64
    assert group_size(layers(a=576, b=1536), 48) == 48
    with pytest.raises(UserError, match=r"a has 576 columns, .* groups of 128; op.group_size=96 or 192 divides"):
        group_size(layers(b=1536, a=576), 128)
    with pytest.raises(UserError, match=r"b has 100 columns, .* groups of 16; op.group_size=4 divides"):
        group_size(layers(a=128, b=100), None)
    with pytest.raises(UserError, match=r"a has 7 columns.*take op=quantize_int8"):
        group_size(layers(a=7, b=5), None)


@pytest.mark.parametrize(
    ("op", "settings", "said"),
    [
        (QuantizeInt4(group_size=128), {}, r"down_proj has 48 columns|q_proj has 32 columns"),
        (QuantizeFp16(), {"dtype": Dtype.float32}, "dtype: is float32, and the operation makes float16"),
        (QuantizeW4A16(python=sys.executable), {}, "lacks 'llmcompressor'|names no rows"),
        (QuantizeW8A16(python=__file__), {}, "is no Python"),
        (QuantizeW8A16(python="/nowhere/python"), {}, r"is no Python; make an environment for it: .* -m venv quantize"),
        (QuantizeGptq(), {}, r"needs gptqmodel, .* CUDA.*make an environment for it"),
        (QuantizeInt8(), {"dataset": "nothing_there"}, "nothing_there"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, op, settings, said):
    with pytest.raises(UserError, match=said) as caught:
        plan(op, tmp_path / "out", model=str(miniatures.model(tmp_path / "model")), engine=Hf(), **settings)
    assert "\n" not in str(caught.value)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model"]


def test_what_is_quantized_is_not_quantized_again(tmp_path):
    written(QuantizeInt8(), tmp_path / "out", model="tiny")
    for op in (QuantizeInt4(), QuantizeBf16()):
        with pytest.raises(UserError, match=r"weights are quantized \(torchao\); take the model that it was made of"):
            plan(op, tmp_path / "more", model=str(tmp_path / "out"), engine=Hf())
    written(QuantizeBf16(), tmp_path / "half", model="tiny")
    with pytest.raises(UserError, match="its numbers are bfloat16 already"):
        plan(QuantizeBf16(), tmp_path / "more", model=str(tmp_path / "half"), engine=Hf())


def test_numbers_beyond_float16_are_named(tmp_path):
    folder = miniatures.model(tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    state["model.layers.0.mlp.gate_proj.weight"][0, 0] = -7e4
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"gate_proj.weight holds 70000, and float16 ends at 65504"):
        made(QuantizeFp16(measure=[]), tmp_path / "out", model=str(folder), engine=Hf())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "settings",
    [{"most_kl": 0.0}, {"least_agreement": 1.1}, {"most_loss": 0.5}, {"samples": 0}, {"max_tokens": 2}, {"group_size": 1}],
)
def test_settings_have_their_ranges(settings):
    op = QuantizeInt4 if "group_size" in settings else QuantizeW4A16
    with pytest.raises(UserError, match=rf"op.{next(iter(settings))}: is "):
        op(**settings)


# rows, and another Python


@pytest.fixture
def stand_in(tmp_path) -> Path:
    """A Python that claims to have llm-compressor and does as the test says in $DOES."""
    file = tmp_path / "bin" / "python"
    file.parent.mkdir()
    file.write_text('#!/bin/sh\ncase "$2" in -c) echo "[]";; *) for last; do :; done; eval "$DOES";; esac\n')
    file.chmod(0o755)
    return file


def test_rows_that_are_too_few_or_too_short_are_refused(tmp_path, jsonl, stand_in):
    rows = jsonl([{"prompt": f"你好 {number}", "response": "好"} for number in range(5)])
    folder = str(miniatures.model(tmp_path / "model", hidden_size=64, intermediate_size=512))
    for samples, said in (
        (6, "has 5 rows, and 6 are wanted; op.samples=5"),
        (5, r"5 rows have \d+ tokens together, fewer than"),
    ):
        with pytest.raises(UserError, match=said):
            plan(
                QuantizeW4A16(calibration=str(rows), samples=samples, python=str(stand_in)),
                tmp_path / "out",
                model=folder,
                engine=Hf(),
            )


def test_the_other_python_gets_a_whole_folder_and_the_rows(tmp_path, jsonl, stand_in, monkeypatch):
    rows = jsonl([{"prompt": f"请问订单 {number} 什么时候发货？", "response": "两天之内发货。"} for number in range(40)])
    monkeypatch.setenv("DOES", f'cp "$last" {tmp_path}/request.json; echo METRIC - error 1; false')
    op = QuantizeW4A16(calibration=str(rows), samples=30, max_tokens=20, python=str(stand_in), measure=[])
    with pytest.raises(RequestError, match=r"the quantization failed: METRIC - error 1; all that it said is in .*quantize.log"):
        made(op, tmp_path / "out", model=str(miniatures.model(tmp_path / "model")), engine=Hf())
    told = json.loads((tmp_path / "request.json").read_text())
    assert (told["library"], told["bits"], told["group_size"], told["dtype"]) == ("llmcompressor", 4, 16, "float32")
    assert len(told["rows"]) == 30
    assert max(map(len, told["rows"])) == 20
    assert not (tmp_path / "out").exists()
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".out")]


def test_a_python_without_the_packages_is_named(tmp_path):
    with pytest.raises(UserError, match=r"python.*: lacks 'no_such_module'; make an environment for it"):
        elsewhere.interpreter(sys.executable, ("json", "no_such_module"), "TORCH x", "why")
    assert elsewhere.interpreter(None, ("json",), "x", "why") == sys.executable


def test_the_script_for_the_other_python_needs_nothing_of_ours():
    import ast

    tree = ast.parse(Path(elsewhere.oneshot.__file__).read_text())
    named = {
        (each.module or "") if isinstance(each, ast.ImportFrom) else each.names[0].name
        for each in ast.walk(tree)
        if isinstance(each, ast.Import | ast.ImportFrom)
    }
    assert not [each for each in named if each.startswith("mlops_llm")]


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("MLOPS_LLM_QUANTIZE_PYTHON"), reason="set MLOPS_LLM_QUANTIZE_PYTHON to a Python with llmcompressor"
)
@pytest.mark.parametrize("op", [QuantizeW4A16, QuantizeW8A16])
def test_llm_compressor_quantizes_in_its_own_environment(tmp_path, op):
    settings = {"calibration": "sales_sft", "samples": 64, "measure": [], "python": os.environ["MLOPS_LLM_QUANTIZE_PYTHON"]}
    found = made(op(**settings), tmp_path / "out", model="tiny", engine=Hf())
    assert found.certificate.passed, found.certificate.text
    own = inspected(tmp_path / "out")
    assert packed.form(own.config) == packed.COMPRESSED
    assert own.parameters == inspected(resolve("tiny").folder).parameters
    assert not (tmp_path / "out" / "recipe.yaml").exists()
