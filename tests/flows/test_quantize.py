"""`python -m mlops_llm.surgery op=quantize_…|export_gguf`: the new form is a checkpoint like any other."""

from __future__ import annotations

import json

from tests.commands import start


def surgery(folder, *words, stage="surgery"):
    process = start(folder, *words, stage=stage)
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


def test_a_quantized_model_is_evaluated_by_its_ref_and_says_what_it_lost(here):
    code, out, err = surgery(here, "op=quantize_int8", "model=tiny", "op.measure=[]", "run_name=small", "output=small")
    assert code == 0, out + err
    for said in ("certificate: passed", "perplexity ratio", "size ratio", "14 linear layers", "runs:/small/int8"):
        assert said in out
    told = json.loads((here / "small" / "recipe.json").read_text())
    assert (told["operation"], told["sources"][0]["ref"]) == ("quantize_int8", "tiny")
    code, out, err = surgery(
        here, "model=runs:/small/int8", "dataset=sales_eval", "metric=[perplexity]", "limit=4", stage="eval"
    )
    assert code == 0, out + err
    assert "perplexity" in out


def test_a_gguf_is_answered_by_llama_cpp_and_evaluated_by_its_ref(here):
    code, out, err = surgery(here, "op=export_gguf", "model=tiny", "op.type=q8_0", "run_name=exported", "output=exported")
    assert code == 0, out + err
    for said in ("llamacpp agreement", "conversations are written alike", "runs:/exported/gguf", "llama-server -m"):
        assert said in out
    code, out, err = surgery(
        here, "model=runs:/exported/gguf", "dataset=sales_eval", "metric=[perplexity]", "limit=4", stage="eval"
    )
    assert code == 0, out + err
    code, out, err = surgery(
        here, "model=runs:/exported/gguf", "dataset=sales_eval", "metric=[bleu]", "limit=4", "engine=llamacpp", stage="eval"
    )
    assert code == 0 and "llamacpp" in out, out + err


def test_what_cannot_be_is_told_in_one_line_and_leaves_nothing(here):
    bad = {
        "op=quantize_int4 op.group_size=100": "do not divide into groups of 100; op.group_size=64 or 128 divides",
        "op=quantize_w4a16 op.calibration=sales_sft": "op.python: needs llmcompressor",
    }
    for words, said in bad.items():
        code, out, err = surgery(here, *words.split(), "model=tiny", "output=out")
        assert code == 2, out + err
        assert said in err
        assert len(err.strip().splitlines()) == 1
    assert not (here / "out").exists()
    assert not (here / "outputs").exists()
