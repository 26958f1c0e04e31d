"""What a GGUF says of a model before its tensors: sizes, how positions are told, tokens, chat template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlops_llm.surgery.gguf_tokens import Vocabulary

if TYPE_CHECKING:
    import numpy


def rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """How positions are told, in either spelling of transformers."""
    told = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    kind = told.get("rope_type") or told.get("type") or "default"
    return {"rope_theta": config.get("rope_theta", 10000.0), **told, "rope_type": kind}


def describe(writer: Any, config: Mapping[str, Any], architecture: str, file_type: int) -> None:
    """Write the sizes of a model, and how it tells positions.

    Args:
        writer: of a GGUF.
        config: config.json of the model.
        architecture: llama.cpp's name of it.
        file_type: llama.cpp's number of the format of the matrices.
    """
    told = rope(config)
    heads = int(config["num_attention_heads"])
    size = int(config.get("head_dim") or int(config["hidden_size"]) // heads)
    # Not what a person calls it: the same model gives the same file whatever it is called.
    writer.add_name(str((config.get("architectures") or [architecture])[0]))
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)
    writer.add_context_length(int(config.get("max_position_embeddings") or 2048))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_layer_norm_rms_eps(float(config.get("rms_norm_eps", 1e-6)))
    writer.add_rope_freq_base(float(told["rope_theta"]))
    if told["rope_type"] == "linear":
        import gguf

        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(told["factor"]))


def words(writer: Any, known: Vocabulary) -> None:
    """Write tokens, merges and chat template."""
    writer.add_vocab_size(len(known.tokens))
    writer.add_tokenizer_model(known.model)
    writer.add_tokenizer_pre(known.pre)
    writer.add_token_list(list(known.tokens))
    writer.add_token_types(list(known.types))
    if known.merges:
        writer.add_token_merges(list(known.merges))
    if known.scores:
        writer.add_token_scores(list(known.scores))
        writer.add_add_space_prefix(known.space_prefix)
    for id, add in (
        (known.bos, writer.add_bos_token_id),
        (known.eos, writer.add_eos_token_id),
        (known.pad, writer.add_pad_token_id),
        (known.unknown, writer.add_unk_token_id),
    ):
        if id is not None:
            add(id)
    writer.add_add_bos_token(known.adds_bos)
    writer.add_add_eos_token(known.adds_eos)
    if known.template:
        writer.add_chat_template(known.template)


def frequencies(config: Mapping[str, Any]) -> numpy.ndarray[Any, Any] | None:
    """By what each frequency of positions is divided, where it is scaled as Llama 3.1 does it; else None.

    Long waves by the factor, short ones by 1, those between by what joins both (Llama 3 model card; transformers'
    `rope_type: llama3`).
    """
    import numpy

    told = rope(config)
    if told["rope_type"] != "llama3":
        return None
    size = int(config.get("head_dim") or int(config["hidden_size"]) // int(config["num_attention_heads"]))
    waves = 2 * numpy.pi * float(told["rope_theta"]) ** (numpy.arange(0, size, 2, dtype=numpy.float64) / size)
    factor, low, high = (float(told[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    share = (float(told["original_max_position_embeddings"]) / waves - low) / (high - low)
    share = numpy.clip(share, 0.0, 1.0)
    return (1 / ((1 - share) / factor + share)).astype(numpy.float32)
