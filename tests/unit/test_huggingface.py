"""Our metrics for the library evaluate, and its metrics for us; without a network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mlops_llm.errors import UserError
from mlops_llm.eval.huggingface import as_evaluate
from mlops_llm.eval.metric import Item
from mlops_llm.eval.metrics.bleu import Bleu
from mlops_llm.eval.metrics.hf import Hf, _loaded
from mlops_llm.eval.metrics.rouge import Rouge

evaluate = pytest.importorskip("evaluate")
ANSWERS, WANTED = ["我喜欢喝茶", "您好请问有货吗"], ["我喜欢喝水", "您好请问有货"]
ITEMS = [Item(answer, [wanted, "别的"]) for answer, wanted in zip(ANSWERS, WANTED, strict=True)]


def _trusted(*given: Any, **more: Any) -> Hf:
    return Hf(*given, trust_remote_code=True, **more)


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder for the code of their metrics; a process can import it from one place only."""
    return str(tmp_path_factory.mktemp("modules"))


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, modules: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", modules)
    monkeypatch.syspath_prepend(modules)
    for name in [name for name in sys.modules if name.split(".")[0] == "evaluate_modules"]:  # of another test's cache
        monkeypatch.delitem(sys.modules, name)
    _loaded.cache_clear()


def test_ours_are_theirs():
    both = evaluate.combine([as_evaluate("bleu", n=2), as_evaluate("rouge"), as_evaluate("regex", pattern="^您好")])
    found = both.compute(predictions=ANSWERS, references=WANTED)
    rows = [Item(answer, [wanted]) for answer, wanted in zip(ANSWERS, WANTED, strict=True)]
    assert found == pytest.approx({**Bleu(n=2).score(rows).total, **Rouge().score(rows).total, "regex": 0.5})
    several = as_evaluate("bleu").compute(predictions=ANSWERS, references=[list(item.references) for item in ITEMS])
    assert several == Bleu().score(ITEMS).total
    one = as_evaluate("label")
    for answer, label in (("是物流", "物流"), ("售前", "物流")):
        one.add(prediction=answer, reference=label)
    assert one.compute()["label_accuracy"] == 0.5 and one.name == "label"


def test_what_texts_do_not_tell_is_refused():
    for name, said in (("perplexity", "how likely"), ("latency", "how answers"), ("blue", "did you mean bleu")):
        with pytest.raises(UserError, match=said):
            as_evaluate(name)


THEIRS = """
import datasets
import evaluate

class Shared(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("string"), "references": %s})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)
    def _compute(self, predictions, references, scale=1):
        shares = [scale * len(set(a) & set(b[0] if isinstance(b, list) else b)) for a, b in zip(predictions, references)]
        if scale < 0:
            raise ArithmeticError("below 0")
        return {"shared": sum(shares), "each": shares, "said": "text", "few": [1, 2, 3]}
"""


@pytest.fixture
def theirs(tmp_path: Path) -> str:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "shared.py").write_text(THEIRS % "datasets.Value('string')")
    return str(tmp_path / "shared")


def test_theirs_are_ours(theirs):
    found = _trusted(theirs).score(ITEMS)
    assert found.total == {"hf_shared": 10.0} and found.items == {} and "module:shared" in found.signature
    each = _trusted(theirs, "each", settings={"scale": 2}).score(ITEMS)
    assert each.total == {"hf_shared_each": 10.0} and each.items == {"hf_shared_each": [8.0, 12.0]}
    assert each.signature != found.signature


def test_theirs_is_not_run_unasked(tmp_path):
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "evil.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    with pytest.raises(UserError, match=r"is not run; read it, and if you trust it: metric\.hf\.trust_remote_code=true"):
        Hf(str(tmp_path / "evil")).score(ITEMS)
    assert not (tmp_path / "marker").exists()


def test_theirs_may_take_several_references(theirs):
    Path(theirs, "shared.py").write_text(THEIRS % "datasets.Sequence(datasets.Value('string'))")
    assert _trusted(theirs).score(ITEMS).total == {"hf_shared": 10.0}


def test_what_cannot_be_loaded_or_scored_is_one_line(theirs, tmp_path):
    for name, said in (
        ("", r"metric\.hf\.name: is empty"),
        (
            "no_such_metric",
            r"'no_such_metric' cannot be loaded; it is looked for on the hub, which needs a network \(HF_HUB_OFFLINE",
        ),
        (str(tmp_path), "cannot be loaded; check the name"),
    ):
        with pytest.raises(UserError, match=said):
            _trusted(name).check([Item("", ["a"])])
    with pytest.raises(UserError, match="answer 1 of 1 has no reference"):
        _trusted(theirs).check([Item("")])
    for settings, value, said in (
        ({"scale": -1}, None, r"cannot score the answers \(below 0\)"),
        ({}, "said", "gives no number 'said'; choose one of: shared, each, few"),
        ({}, "few", "3 numbers of 2 answers"),
    ):
        with pytest.raises(UserError, match=said):
            _trusted(theirs, value, settings=settings).score(ITEMS)
