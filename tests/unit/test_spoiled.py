"""A layer is written wrongly before its digest is taken: each operation's certificate names it, by the limits that ship."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mlops_llm.inference.engines.hf import Hf
from mlops_llm.models import digested, load, tiny
from mlops_llm.surgery import companions
from mlops_llm.surgery.certificate import certify
from mlops_llm.surgery.gguf import FILE, Type
from mlops_llm.surgery.ops.export_gguf import ExportGguf
from mlops_llm.surgery.ops.prune_depth import PruneDepth
from mlops_llm.surgery.ops.prune_ffn import PruneFfn
from mlops_llm.surgery.ops.prune_heads import PruneHeads
from mlops_llm.surgery.ops.quantize_bf16 import QuantizeBf16
from mlops_llm.surgery.ops.quantize_fp16 import QuantizeFp16
from mlops_llm.surgery.ops.quantize_gptq import QuantizeGptq
from mlops_llm.surgery.ops.quantize_int4 import QuantizeInt4
from mlops_llm.surgery.ops.quantize_int8 import QuantizeInt8
from mlops_llm.surgery.ops.quantize_w4a16 import QuantizeW4A16
from mlops_llm.surgery.ops.quantize_w8a16 import QuantizeW8A16
from mlops_llm.surgery.planning import Check, Planned
from mlops_llm.surgery.pruning.amount import Of
from tests import miniatures
from tests.surgeries import plan

LAYER = "model.layers.1.self_attn.q_proj"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random numbers in three layers of the Llama family."""
    return miniatures.model(tmp_path_factory.mktemp("spoiled") / "model", "llama", hidden_size=64, num_hidden_layers=3)


@pytest.fixture(scope="module")
def trained() -> Path:
    """A model that has learned something: what rounding costs it is within the limits that ship."""
    return tiny.folder()


# what the other Python writes, by NumPy


def levels(plain: torch.Tensor, bits: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers (rows, columns) from 0, and scales (rows, groups)."""
    rows, half = len(plain), 2 ** (bits - 1)
    groups = plain.numpy().reshape(rows, -1, size)
    scale = np.abs(groups).max(-1) / (half - 0.5)
    return (np.clip(np.rint(groups / scale[..., None]), -half, half - 1) + half).reshape(rows, -1).astype(np.uint32), scale


def words(numbers: np.ndarray, bits: int) -> torch.Tensor:
    """32-bit words along the rows, the first number in the lowest bits."""
    each = 32 // bits
    made = sum(numbers[:, place::each] << np.uint32(bits * place) for place in range(each))
    return torch.from_numpy(np.ascontiguousarray(made.astype(np.uint32).view(np.int32)))


def compressed(plain: torch.Tensor, bits: int, size: int) -> Tensors:
    numbers, scale = levels(plain, bits, size)
    parts = {"weight_packed": words(numbers, bits), "weight_scale": torch.from_numpy(scale)}
    return parts | {"weight_shape": torch.tensor(plain.shape)}


def autogptq(plain: torch.Tensor, bits: int, size: int) -> Tensors:
    numbers, scale = levels(plain, bits, size)
    zeros = np.full((scale.shape[1], len(plain)), 2 ** (bits - 1) - 1, np.uint32)
    return {
        "qweight": words(numbers, bits).T.contiguous(),
        "qzeros": words(zeros, bits),
        "scales": torch.from_numpy(np.ascontiguousarray(scale.T)),
        "g_idx": torch.arange(plain.shape[1], dtype=torch.int32) // size,
    }


def elsewhere(made: Callable[..., Tensors], bits: int, config: dict[str, Any]) -> Callable[[Planned, Path], None]:
    """Writes what a library would write in its own Python."""

    def write(planned: Planned, folder: Path) -> None:
        source = planned.sources[0].files
        state: Tensors = {}
        for name, each in miniatures.tensors(source.place.folder).items():
            if "_proj.weight" not in name:
                state[name] = each
                continue
            size = each.shape[1] if bits == 8 else 16
            state |= {f"{name.removesuffix('weight')}{part}": one for part, one in made(each, bits, size).items()}
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        companions.copy(source, folder)
        companions.configure(source.config, folder, load.Dtype.float32, quantization_config=config)

    return write


def in_words(bits: int) -> dict[str, Any]:
    """What compressed-tensors says of itself in config.json."""
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        QuantizationStatus,
    )

    size: dict[str, Any] = {"strategy": "channel"} if bits == 8 else {"strategy": "group", "group_size": 16}
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(num_bits=bits, type="int", symmetric=True, **size))
    told = QuantizationConfig(
        config_groups={"group_0": scheme},
        quant_method="compressed-tensors",
        format="pack-quantized",
        quantization_status=QuantizationStatus.COMPRESSED,
        ignore=["lm_head"],
    )
    return dict(told.model_dump(mode="json"))


# what is spoiled


def of_layer(state: Tensors, ends: str = "") -> list[str]:
    return [name for name in state if name.startswith(f"{LAYER}.") and name.endswith(ends) and "shape" not in name]


def zero_scales(state: Tensors) -> None:
    for name in (each for each in of_layer(state) if "scale" in each):
        state[name] = torch.zeros_like(state[name])


def reversed_scales(state: Tensors) -> None:
    for name in (each for each in of_layer(state) if "scale" in each):
        state[name] = state[name].flip(1 if name.endswith(".scales") else 0).contiguous()


def zeroed(state: Tensors) -> None:
    for name in of_layer(state):
        state[name] = torch.zeros_like(state[name])


def swapped(state: Tensors) -> None:
    for name in of_layer(state):
        other = name.replace("layers.1.", "layers.0.")
        state[name], state[other] = state[other], state[name]


def one_row(state: Tensors) -> None:
    """Of all tensors but the scales, the last two rows change places."""
    for name in (each for each in of_layer(state) if "scale" not in each and "g_idx" not in each):
        state[name] = torch.cat([state[name][:-2], state[name][-2:].flip(0)])


def spoil(folder: Path, how: Callable[[Tensors], None]) -> None:
    file = folder / "model.safetensors"
    with safe_open(file, "pt") as opened:
        metadata, state = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    how(state)
    save_file(state, file, metadata=metadata)


ANYTHING = (zeroed, swapped, one_row)
PACKED = (zero_scales, reversed_scales, *ANYTHING)
OTHERS: dict[str, tuple[Any, int, Callable[..., Tensors]]] = {
    "w8a16": (QuantizeW8A16, 8, compressed),
    "w4a16": (QuantizeW4A16, 4, compressed),
    "gptq": (QuantizeGptq, 4, autogptq),
}
OPERATIONS = {
    "int8": (QuantizeInt8(measure=[]), PACKED),
    "int8 with activations": (QuantizeInt8(measure=[], activations=True), PACKED),
    "int4": (QuantizeInt4(measure=[]), PACKED),
    "fp16": (QuantizeFp16(measure=[]), ANYTHING),
    "bf16": (QuantizeBf16(measure=[]), ANYTHING),
    "ffn": (PruneFfn(ratio=0.3, of=Of.unit, samples=4), ANYTHING),
    "depth": (PruneDepth(layers=[2]), ANYTHING),
    "heads": (PruneHeads(ratio=0.5, of=Of.unit, samples=4), ANYTHING),
}


def failed(planned: Planned, folder: Path) -> set[str]:
    return {each.name for each in certify(planned, folder, digested.digest_now(folder)).failures}


def rounding(planned: Planned, folder: Path) -> Check:
    """What is found of the numbers, tensor by tensor."""
    assert planned.checks.numbers
    (check,) = planned.checks.numbers(folder)
    return check


def numbers_alone(planned: Planned) -> Planned:
    """Without the checks that open whole models, which would only take time here."""
    return dataclasses.replace(planned, checks=dataclasses.replace(planned.checks, more=None))


def spoiled_in_turn(planned: Planned, folder: Path, hows: tuple[Callable[[Tensors], None], ...]) -> None:
    """What is written passes; spoiled in any of these ways it does not, and the layer is named."""
    assert failed(planned, folder) == set()
    for how in hows:
        other = folder.with_name(how.__name__)
        shutil.copytree(folder, other)
        spoil(other, how)
        check = rounding(planned, other)
        assert check.passed is False and "self_attn.q_proj" in check.said, (how.__name__, check.said)
    assert "rounding" in failed(numbers_alone(planned), other), "and with it the certificate"


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_layer_that_is_written_wrongly_is_named(model: Path, trained: Path, here: Path, name: str) -> None:
    op, hows = OPERATIONS[name]
    planned = plan(op, here / "out", model=str(trained if hasattr(op, "measure") else model), engine=Hf())
    (here / "out").mkdir()
    planned.write(here / "out")
    spoiled_in_turn(planned, here / "out", hows)


@pytest.mark.parametrize("name", OTHERS)
def test_so_is_one_that_another_python_wrote(trained: Path, here: Path, jsonl: Callable[..., Path], name: str) -> None:
    op, bits, form = OTHERS[name]
    stand_in = here / "python"
    stand_in.write_text('#!/bin/sh\necho "[]"\n')
    stand_in.chmod(0o755)
    rows = jsonl([{"prompt": f"请问订单 {number} 什么时候发货？", "response": "两天之内发货。"} for number in range(40)])
    asked = op(calibration=str(rows), samples=30, python=str(stand_in), measure=[])
    planned = plan(asked, here / "out", model=str(trained), engine=Hf())
    config = {"quant_method": "gptq", "bits": bits, "group_size": 16, "sym": True} if name == "gptq" else in_words(bits)
    (here / "out").mkdir()
    elsewhere(form, bits, config)(planned, here / "out")
    spoiled_in_turn(planned, here / "out", PACKED)


@pytest.mark.parametrize("type", Type)
def test_so_is_one_of_a_gguf(model: Path, here: Path, type: Type) -> None:
    import gguf

    planned = numbers_alone(plan(ExportGguf(type), here / "out", model=str(model), engine=Hf()))
    (here / "out").mkdir()
    planned.write(here / "out")
    assert failed(planned, here / "out") == set()
    held = {each.name: each for each in gguf.GGUFReader(here / "out" / FILE).tensors}
    one, other = (held[f"blk.{layer}.attn_q.weight"] for layer in (1, 0))
    whole = (here / "out" / FILE).read_bytes()
    begin, end = int(one.data_offset), int(one.data_offset) + int(one.n_bytes)
    own, instead = whole[begin:end], whole[int(other.data_offset) :][: end - begin]
    half = len(own) // 2
    for wrong in (bytes(end - begin), instead, own[half:] + own[:half]):
        (here / "out" / FILE).write_bytes(whole[:begin] + wrong + whole[end:])
        check = rounding(planned, here / "out")
        assert check.passed is False and LAYER in check.said
    assert "rounding" in failed(planned, here / "out")


def test_what_is_missing_is_named(model: Path, here: Path) -> None:
    planned = numbers_alone(plan(QuantizeInt4(measure=[]), here / "out", model=str(model), engine=Hf()))
    (here / "out").mkdir()
    planned.write(here / "out")
    spoil(here / "out", lambda state: state.__delitem__(f"{LAYER}.weight_scale"))
    found = certify(planned, here / "out", digested.digest_now(here / "out"))
    assert f"{LAYER}.weight_scale is missing" in json.loads(found.text)["checks"][4]["said"]
