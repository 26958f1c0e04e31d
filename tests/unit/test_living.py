"""A draft is a model only while the process lives that makes it; the kill itself is in tests/faults."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_llm.surgery.living import only_while_this_lives


@pytest.mark.parametrize("name", ["config.json", "adapter_config.json"])
def test_the_config_is_a_link_into_this_process_and_then_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"model_type": "qwen2"}', "utf-8")
    (tmp_path / "tokenizer.json").write_text("{}", "utf-8")
    with only_while_this_lives(tmp_path):
        assert (tmp_path / name).is_symlink() and not (tmp_path / "tokenizer.json").is_symlink()
        read = [sys.executable, "-c", f"print(open({str(tmp_path / name)!r}).read())"]
        for _ in range(2):  # another process reads it as well, from its beginning
            assert json.loads(subprocess.run(read, capture_output=True, text=True, check=True).stdout)["model_type"] == "qwen2"
        link = (tmp_path / name).readlink()
    assert not (tmp_path / name).is_symlink() and json.loads((tmp_path / name).read_text()) == {"model_type": "qwen2"}
    assert not link.exists()
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([name, "tokenizer.json"])


def test_what_breaks_leaves_no_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", "utf-8")
    with pytest.raises(RuntimeError), only_while_this_lives(tmp_path):
        raise RuntimeError
    assert not (tmp_path / "config.json").exists()
