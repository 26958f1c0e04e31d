from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mlops_llm import digest
from mlops_llm.errors import UserError
from mlops_llm.models.tensors import Shape, ShardWriter, Tensors, by_layer, cast, coded, shards

KINDS = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int8, torch.bool, torch.float8_e4m3fn]


def some() -> dict[str, torch.Tensor]:
    coins = torch.Generator().manual_seed(0)
    found = {f"t{number}": torch.randn(3, number + 1, generator=coins).to(kind) for number, kind in enumerate(KINDS)}
    return found | {"empty": torch.zeros(0, 4), "one": torch.tensor(2.5)}


def write(folder, tensors, most=10**9):
    writer = ShardWriter(folder, {name: coded(each) for name, each in tensors.items()}, most)
    for name in sorted(tensors):
        writer.write(name, tensors[name])
    return writer.close()


@pytest.mark.parametrize("most", [10**9, 40, 1])
def test_what_is_written_is_what_safetensors_reads(tmp_path, most):
    tensors = some()
    written = write(tmp_path, tensors, most)
    files = sorted(tmp_path.glob("*.safetensors"))
    found = {name: each for file in files for name, each in load_file(file).items()}
    assert found.keys() == tensors.keys()
    for name, each in tensors.items():
        assert found[name].dtype is each.dtype and torch.equal(found[name].float(), each.float())
    assert written == digest.weights(tmp_path), "computed on the way"
    index = tmp_path / "model.safetensors.index.json"
    assert index.exists() == (len(files) > 1)
    if index.exists():
        told = json.loads(index.read_text())["weight_map"]
        assert told.keys() == tensors.keys() and {*told.values()} == {file.name for file in files}


def test_what_safetensors_writes_is_read(tmp_path):
    tensors = some()
    save_file({name: tensors[name] for name in list(tensors)[:4]}, tmp_path / "a.safetensors")
    save_file({name: tensors[name] for name in list(tensors)[4:]}, tmp_path / "b.safetensors")
    with Tensors(tmp_path) as found:
        assert found.names == sorted(tensors) and "t1" in found and "t99" not in found
        for name, each in tensors.items():
            assert torch.equal(found.read(name).float(), each.float()) and found.shape(name) == coded(each)
        assert found.read("t0").add_(1.0) is not None, "memory of its own"
        assert torch.equal(found.read("t0"), tensors["t0"])


def test_memory_that_passes_on_holds_each_tensor_until_the_next(tmp_path):
    tensors = some()
    write(tmp_path, tensors)
    with Tensors(tmp_path, passing=True) as found:
        for name, each in tensors.items():
            assert torch.equal(found.read(name).float(), each.float())
        large, small = found.read("t6"), found.read("t0")
        assert large.data_ptr() == small.data_ptr()


@pytest.mark.parametrize("cut", [1, 20, 100_000])
def test_a_file_that_is_cut_off_is_refused(tmp_path, cut):
    file = tmp_path / "model.safetensors"
    save_file(some(), file)
    file.write_bytes(file.read_bytes()[: -min(cut, file.stat().st_size - 4)])
    with pytest.raises(UserError, match=r"model\.safetensors: is (cut off: \d+ bytes are missing|no whole safetensors file)"):
        Tensors(tmp_path)


def test_two_files_with_one_tensor_are_refused(tmp_path):
    for name in ("a", "b"):
        save_file({"t": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(UserError, match=r"b\.safetensors: holds t, as a\.safetensors does"):
        Tensors(tmp_path)


def test_a_writer_takes_what_was_announced_and_nothing_else(tmp_path):
    shapes = {"a": Shape("F32", (2,), 8), "b": Shape("F32", (2,), 8)}
    with pytest.raises(ValueError, match="b came where a was to come"):
        ShardWriter(tmp_path, shapes, 99).write("b", torch.zeros(2))
    with pytest.raises(ValueError, match=r"a is torch\.float32 \(3,\), announced was F32 \(2,\)"):
        ShardWriter(tmp_path, shapes, 99).write("a", torch.zeros(3))
    writer = ShardWriter(tmp_path, shapes, 99)
    writer.write("a", torch.zeros(2))
    with pytest.raises(ValueError, match="b was not written"):
        writer.close()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 60))
def test_shards_hold_all_in_order_and_no_more_than_they_may(sizes, most):
    shapes = {f"{number:03d}": Shape("I8", (size,), size) for number, size in enumerate(sizes)}
    found = shards(shapes, most)
    assert [name for each in found for name in each] == list(shapes)
    for each in found:
        assert len(each) == 1 or sum(shapes[name].bytes for name in each) <= most


def test_whole_numbers_keep_their_format():
    assert cast(Shape("F32", (2, 3), 24), "bfloat16") == Shape("BF16", (2, 3), 12)
    assert cast(Shape("I64", (2,), 16), "bfloat16") == Shape("I64", (2,), 16)


def test_tensors_are_told_by_layer():
    names = ["lm_head.weight", "model.embed_tokens.weight", "model.layers.10.mlp.up.weight", "model.norm.weight"]
    assert [layer for _, layer in by_layer(names)] == ["lm_head", "embed_tokens", "layer 10", "norm"]
