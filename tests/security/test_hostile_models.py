"""Models whose author means harm: nothing of theirs is run, and one line says why they are not taken."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mlops_llm.errors import UserError
from mlops_llm.models import load, sandbox, template, tiny
from mlops_llm.models.load import ModelLoad
from mlops_llm.models.ref import resolve
from mlops_llm.models.tensors import places
from tests.security import hostile


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


@pytest.fixture(autouse=True)
def _nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers asks on a terminal whether code is to be run, and goes on where the answer is yes."""
    monkeypatch.setattr("builtins.input", lambda _="": "y")


def opened(folder: Path, how: ModelLoad | None = None) -> Any:
    """As each stage opens a model."""
    how = how or ModelLoad()
    files = load.inspect(resolve(str(folder)), how)
    template.ensure(load.tokenizer_of(files), str(folder))
    return load.model(files, how, merge=True)


def refused(folder: Path, how: ModelLoad | None = None) -> str:
    with pytest.raises(UserError) as caught:
        opened(folder, how)
    line = str(caught.value)
    assert "\n" not in line and "Re-running" not in line and caught.value.remedy
    return line


@pytest.mark.parametrize("torchs", [True, False])
@pytest.mark.parametrize("allowed", [True, False])
def test_pickled_weights_never_run(tmp_path: Path, marker: Path, torchs: bool, allowed: bool) -> None:
    folder = hostile.folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    hostile.pickled(folder / "pytorch_model.bin", marker, torchs=torchs)
    line = refused(folder, ModelLoad(allow_pickle=allowed))
    assert ("holds more than weights" if allowed else "loading them can run code") in line
    assert not marker.exists()


@pytest.mark.parametrize("decoy", ["", "adapter_model-1.safetensors", "adapter_model-00001-of-00002.safetensors"])
def test_pickled_adapters_never_run(tmp_path: Path, marker: Path, decoy: str) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    told = {"base_model_name_or_path": str(tiny.folder()), "peft_type": "LORA", "target_modules": ["q_proj"], "r": 2}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    hostile.pickled(folder / "adapter_model.bin", marker, torchs=True)
    if decoy:
        save_file({"a": torch.zeros(1)}, folder / decoy)
    assert "loading them can run code" in refused(folder)
    assert "holds more than weights" in refused(folder, ModelLoad(allow_pickle=True))
    assert not marker.exists()


def test_pickled_files_beside_the_weights_are_not_opened(tmp_path: Path, marker: Path) -> None:
    folder = hostile.folder(tmp_path / "model")
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "model.pkl", "tokenizer.pickle"):
        hostile.pickled(folder / name, marker, torchs=False)
    opened(folder)
    assert not marker.exists()


def test_code_of_a_model_is_not_run_unless_it_is_trusted(tmp_path: Path, marker: Path) -> None:
    folder = hostile.with_code(tmp_path / "model", marker)
    line = refused(folder)
    assert "Python code of its own (modeling_own.py), which is not run" in line
    assert "model_load.trust_remote_code=true" in line and not marker.exists()


def test_code_beside_a_model_that_needs_none_is_not_run(tmp_path: Path, marker: Path) -> None:
    folder = hostile.folder(tmp_path / "model", auto_map=hostile.AUTO)
    for name in ("modeling_own.py", "tokenization_own.py"):
        (folder / name).write_text(hostile.code(marker) + "from transformers import PreTrainedTokenizerFast as Own\n")
    told = json.loads((folder / "tokenizer_config.json").read_text())
    own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "tokenization_own.Own"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(told | own))
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(hostile.code(marker))
    for how in (ModelLoad(), ModelLoad(trust_remote_code=True)):
        opened(folder, how)
        assert not marker.exists()


def test_trusted_code_lies_in_the_folder(tmp_path: Path) -> None:
    elsewhere = {key: f"somebody/else--{name}" for key, name in hostile.AUTO.items()}
    folder = hostile.folder(tmp_path / "model", model_type="own", auto_map=elsewhere)
    assert "lies in another repository" in refused(folder, ModelLoad(trust_remote_code=True))
    folder = hostile.folder(tmp_path / "other", model_type="own", auto_map=hostile.AUTO)
    assert "its code modeling_own.py is missing" in refused(folder, ModelLoad(trust_remote_code=True))


TEMPLATES = {
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": "the chat template fails (access to attribute '__class__'",
    "{{ cycler.__init__.__globals__.os.popen('touch MARKER').read() }}": "access to attribute '__init__'",
    "{{ messages.append(messages[0]) }}": "the chat template fails",
    "{{ (messages|attr('__class__')).__mro__ }}": "the chat template fails",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}": "the chat template fails",
    "{% include '/etc/passwd' %}": "no loader for this environment",
    "{% for i in range(10**9) %}x{% endfor %}": "Range too big",
    "{{ 'x' * 10**10 }}": "more than 1,024 MiB of memory",
    "{{ '%099999999999d' % 3 }}": "more than 1,024 MiB of memory",
    "{{ messages[0].content.center(10**10) }}": "more than 1,024 MiB of memory",
    "{% set n = namespace(x='x') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}": "1,024 MiB of memory",
    "{{ 'x' * 3000000 }}": "more than 1,048,576 characters",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a %}{% endfor %}{% endfor %}": "does not end within",
    "{{ (9 ** (9 ** 9)) is none }}": "does not end within",
}


@pytest.mark.parametrize("text", TEMPLATES)
def test_templates_reach_nothing_and_end(tmp_path: Path, marker: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if endless := "within" in TEMPLATES[text]:
        monkeypatch.setattr(sandbox, "SECONDS", 1)
    folder = hostile.folder(tmp_path / "model")
    (folder / "chat_template.jinja").write_text(text.replace("MARKER", str(marker)))
    line = refused(folder)
    assert TEMPLATES[text] + " 1 s" * endless in line
    assert not marker.exists()


def _header(told: object, data: bytes = b"\0" * 8) -> bytes:
    text = told if isinstance(told, bytes) else json.dumps(told).encode()
    return struct.pack("<Q", len(text)) + text + data


def _tensor(dtype: object = "F32", shape: object = (2,), places: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": places}


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is no whole safetensors file"),
    "a header longer than the file": (struct.pack("<Q", 1 << 62) + b"{}", "is no whole safetensors file"),
    "no JSON": (_header(b"{" * 20), "is no whole safetensors file"),
    "deep": (_header(b'{"a":' + b"[" * 100_000), "is no whole safetensors file"),
    "a list": (_header([1]), "is no whole safetensors file"),
    "no line": (_header({"a": 3}), "is no whole safetensors file"),
    "cut off": (_header({"a": _tensor()}, b"\0" * 3), "is cut off: 5 bytes are missing (tensor a)"),
    "overlap": (_header({"a": _tensor(), "b": _tensor()}), "tensors a and b overlap"),
    "partly": (_header({"a": _tensor(), "b": _tensor(places=(4, 12))}, b"\0" * 12), "tensors a and b overlap"),
    "a hole": (_header({"a": _tensor(), "b": _tensor(places=(16, 24))}, b"\0" * 24), "belong to neither"),
    "no format": (_header({"a": _tensor("PICKLE")}), "of number format 'PICKLE', which safetensors does not know"),
    "a format of another size": (_header({"a": _tensor("F64")}), "has 8 bytes, and its shape takes 16"),
    "below 0": (_header({"a": _tensor(places=(-8, 0))}), "bytes that belong to no tensor"),
    "far below 0": (_header({"a": _tensor(places=(-800, -792))}), "of no whole numbers"),
    "more than it says": (_header({"a": _tensor()}, b"\0" * 80), "bytes that belong to no tensor"),
    "later than it may": (_header({"a": _tensor(places=(8, 16))}, b"\0" * 16), "bytes that belong to no tensor"),
    "no numbers": (_header({"a": _tensor(shape=(1.5,))}), "of no whole numbers"),
    "endless": (_header({"a": _tensor(shape=(1 << 80,))}), "of no whole numbers"),
    "backwards": (_header({"a": _tensor(places=(8, 0))}), "has -8 bytes, and its shape takes 8"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_safetensors_are_one_line(tmp_path: Path, name: str) -> None:
    content, said = BAD[name]
    folder = hostile.folder(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(content)
    assert said in refused(folder)


def test_good_safetensors_are_as_safetensors_says(tmp_path: Path) -> None:
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.bool, torch.float8_e4m3fn, torch.uint16)
    save_file({str(kind): torch.zeros(3, 2).to(kind) for kind in kinds}, tmp_path / "a.safetensors")
    assert set(places(tmp_path / "a.safetensors")) == {str(kind) for kind in kinds}
