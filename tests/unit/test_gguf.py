"""GGUF: what is written is what transformers and llama.cpp read, of every family; what cannot be written is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from mlops_llm.errors import UserError
from mlops_llm.models import digested, load, packed, tiny
from mlops_llm.models.load import ModelLoad
from mlops_llm.models.ref import resolve
from mlops_llm.surgery import llamacpp
from mlops_llm.surgery.gguf import FILE, Type, layout, neighbours, write
from mlops_llm.surgery.gguf_tokens import unmarked, vocabulary
from mlops_llm.surgery.ops.export_gguf import ExportGguf
from mlops_llm.surgery.ops.merge_lora import Format, MergeLora
from tests import miniatures
from tests.surgeries import again, made, plan

TALK = [
    "Hello, world! What's 12 + 345? The 3rd line, isn't it? def f(x): return x ** 2",
    "你好，世界！订单什么时候发货？ naïve café Привет мир 日本語",
]


def inspected(folder: Path) -> load.Files:
    return load.inspect(resolve(str(folder)), ModelLoad())


def sentencepiece(folder: Path) -> None:
    """Give a folder a tokenizer as Llama 2 and Mistral have: BPE over characters, `▁` for a space, else bytes."""
    from transformers import PreTrainedTokenizerFast

    own = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    own.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    own.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    own.train_from_iterator(TALK * 3, trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False))
    # Bytes are tokens like any other, not special ones.
    told = json.loads(own.to_str())
    told["added_tokens"] = [each for each in told["added_tokens"] if each["id"] < 3]
    own = Tokenizer.from_str(json.dumps(told))
    own.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    saved = PreTrainedTokenizerFast(
        tokenizer_object=own, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    shutil.rmtree(folder / "chat_template.jinja", ignore_errors=True)
    for name in miniatures.BESIDE:
        (folder / name).unlink(missing_ok=True)
    saved.save_pretrained(folder)


def small(folder: Path, family: str) -> Path:
    """A random model of a family, with sizes that tell heads and groups apart."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        family,
        vocab_size=1024,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=family == "qwen3",
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(len(family))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in miniatures.BESIDE:
        shutil.copyfile(tiny.folder() / name, folder / name)
    if family == "mistral":
        sentencepiece(folder)
    return folder


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "mistral"])
def test_llama_cpp_answers_as_transformers_does(tmp_path, family):
    found = made(ExportGguf(Type.f32), tmp_path / "out", model=str(small(tmp_path / "model", family)))
    assert found.certificate.passed, found.certificate.text
    told = {each.name: each.value for each in found.certificate.checks}
    assert told["llamacpp_tokens"] == 0
    assert told["llamacpp_agreement"] == 1.0
    assert told["llamacpp_logprob"] < 0.05
    assert told["logit_kl"] < 1e-6
    assert told.get("llamacpp_template") is (None if family == "mistral" else True)
    # It is a checkpoint like any other.
    again = inspected(tmp_path / "out")
    assert again.parameters == inspected(tmp_path / "model").parameters
    assert digested.weights_digest(again.place) == found.recipe["digest.weights"]


def test_one_broken_tensor_makes_the_certificate_fail(tmp_path):
    planned = plan(ExportGguf(Type.f16), tmp_path / "out", model=str(small(tmp_path / "model", "llama")))
    made(ExportGguf(Type.f16), tmp_path / "out", model=str(tmp_path / "model"))
    assert again(planned).passed
    import gguf

    file = tmp_path / "out" / FILE
    place = next(each for each in gguf.GGUFReader(file).tensors if each.name == "blk.1.attn_k.weight").data_offset
    content = bytearray(file.read_bytes())
    content[place : place + 512] = content[place + 512 : place + 1024]
    file.write_bytes(content)
    failed = {each.name for each in again(planned).failures}
    assert "weights" in failed
    assert {"llamacpp_logprob", "llamacpp_agreement"} & failed


def test_without_the_permutation_answers_are_others(tmp_path, monkeypatch):
    folder = small(tmp_path / "model", "llama")
    monkeypatch.setattr("mlops_llm.surgery.gguf.neighbours", lambda tensor, heads: tensor)
    found = made(ExportGguf(Type.f32), tmp_path / "out", model=str(folder))
    assert not found.certificate.passed


def test_matrices_take_the_wanted_format_and_norms_float32(tmp_path):
    folder = small(tmp_path / "model", "llama")
    for type, kinds in ((Type.f32, {"F32"}), (Type.f16, {"F32", "F16"}), (Type.q8_0, {"F32", "Q8_0"})):
        planned = layout(inspected(folder), ModelLoad(), type)
        write(planned, tmp_path / type.name)
        held = packed.gguf_tensors(tmp_path / type.name)
        assert {each.kind for each in held} == kinds
        assert all(each.kind == "F32" for each in held if len(each.shape) == 1)
        assert sum(each.bytes for each in held) == planned.bytes
        assert planned.fallen == 0


def test_rows_that_no_block_of_q8_0_divides_stay_in_float16(tmp_path):
    folder = miniatures.model(tmp_path / "model")  # rows of 48 in down_proj
    planned = layout(inspected(folder), ModelLoad(), Type.q8_0)
    assert planned.fallen == 2
    assert {name for name, kind in planned.kinds.items() if kind == "F16"} == {
        f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(2)
    }


@pytest.mark.parametrize("op", [ExportGguf(Type.f16), MergeLora(format=Format.gguf)])
def test_an_adapter_is_merged_on_the_way(tmp_path, op):
    base = small(tmp_path / "base", "qwen2")
    found = made(op, tmp_path / "out", model=str(miniatures.adapter(tmp_path / "adapter", base)))
    assert found.certificate.passed, found.certificate.text
    told = {each.name for each in found.certificate.checks}
    assert "llamacpp_agreement" in told
    assert "changed" in told


def test_neighbours_turn_as_halves_did():
    """Rotating pairs (2i, 2i+1) of the permuted rows is rotating halves of the plain ones."""
    size, heads = 8, 3
    rows, angle = torch.randn(heads * size, 5), torch.rand(size // 2)
    cos, sin = angle.cos(), angle.sin()
    plain, pairs = torch.randn(5), None
    plain = rows @ plain
    halves = plain.reshape(heads, 2, size // 2)
    turned = torch.stack([halves[:, 0] * cos - halves[:, 1] * sin, halves[:, 1] * cos + halves[:, 0] * sin], 1)
    pairs = neighbours(plain[:, None], heads).reshape(heads, size // 2, 2)
    other = torch.stack([pairs[..., 0] * cos - pairs[..., 1] * sin, pairs[..., 1] * cos + pairs[..., 0] * sin], -1)
    torch.testing.assert_close(neighbours(turned.reshape(-1, 1), heads).reshape(other.shape), other)


def test_marks_of_training_leave_the_template_and_nothing_else():
    template = "{%- for m in messages %}\n  {% generation %}\n{{ m.content }}{%- endgeneration -%}\n {{ 'x' }}{% endfor %}"
    text = unmarked(template)
    assert "generation" not in text
    import jinja2

    class Passing(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            next(parser.stream)
            return parser.parse_statements(["name:endgeneration"], drop_needle=True)

    said = [{"content": "a"}, {"content": "b"}]
    with_marks = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, extensions=[Passing]).from_string(template)
    without = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(text)
    assert with_marks.render(messages=said) == without.render(messages=said)


# refused


def changed(folder: Path, **settings) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return folder


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model_type": "gpt2"}, "is of the family 'gpt2'"),
        ({"use_sliding_window": True}, "sliding window"),
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "scales positions by 'longrope'"),
        ({"quantization_config": {"quant_method": "torchao"}}, r"weights are quantized \(torchao\)"),
        ({"hidden_act": "gelu"}, "activation"),
    ],
)
def test_what_llama_cpp_has_not_is_refused(tmp_path, settings, said):
    folder = changed(miniatures.model(tmp_path / "model"), **settings)
    with pytest.raises(UserError, match=said):
        plan(ExportGguf(), tmp_path / "out", model=str(folder))
    assert not (tmp_path / "out").exists()


def test_numbers_too_large_for_float16_are_refused_and_leave_nothing(tmp_path):
    folder = miniatures.model(tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    state["model.layers.1.mlp.up_proj.weight"][3, 4] = 1e5
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model.layers.1.mlp.up_proj.weight holds 100000, too large for float16"):
        made(ExportGguf(Type.f16), tmp_path / "out", model=str(folder))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model"]


def test_a_split_without_a_name_is_refused(tmp_path):
    tokenizer = load.tokenizer(resolve("tiny"))
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with pytest.raises(UserError, match=r"no name for .Punctuation, ByteLevel"):
        vocabulary(tokenizer, 1024, "mine")
    with pytest.raises(UserError, match="1024 tokens and the embedding 1000 rows"):
        vocabulary(load.tokenizer(resolve("tiny")), 1000, "mine")


def test_rows_without_a_token_are_unused():
    found = vocabulary(load.tokenizer(resolve("tiny")), 1030, "mine")
    assert len(found.tokens) == 1030
    assert list(found.tokens[1024:]) == [f"[PAD{place}]" for place in range(1024, 1030)]
    assert set(found.types[1024:]) == {5}
    assert set(found.types[:3]) == {3}


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    made(ExportGguf(Type.f16), tmp_path / "out", model=str(small(tmp_path / "model", "qwen2")))
    file = tmp_path / "out" / FILE
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(UserError, match="no whole GGUF file"):
        inspected(tmp_path / "out")
    with pytest.raises(UserError, match=r"llama\.cpp cannot read it"), llamacpp.opened(file):
        pass


def test_the_same_model_gives_the_same_file_whatever_it_is_called(tmp_path):
    folder = small(tmp_path / "model", "qwen3")
    shutil.copytree(folder, tmp_path / "other")
    for name in ("model", "other"):
        write(layout(inspected(tmp_path / name), ModelLoad(), Type.q8_0), tmp_path / f"{name}.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == (tmp_path / "other.gguf").read_bytes()
