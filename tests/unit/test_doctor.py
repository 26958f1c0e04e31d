"""What a check-up says of a machine: each fault is made, most of them for real."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlops_llm.launch.jobs import Job
from mlops_llm.launch.place import Again, Command
from mlops_llm.launch.queue import Queue
from mlops_llm.registry import surroundings
from mlops_llm.registry.finding import State


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose packages come before those that are installed, in this process and in those that it starts."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def package(folder: Path, name: str, code: str = "", version: str = "", requires: str = "") -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code, "utf-8")
    if version:
        about = folder / f"{name}-{version}.dist-info"
        about.mkdir()
        lines = [
            "Metadata-Version: 2.1",
            f"Name: {name}",
            f"Version: {version}",
            *([f"Requires-Dist: {requires}"] if requires else []),
        ]
        (about / "METADATA").write_text("\n".join(lines) + "\n", "utf-8")


def test_a_torchvision_of_another_torch_is_found_by_importing_it(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "_COMPANIONS", ("torchvision",))
    package(packages, "torch", version="2.9")
    package(packages, "torchvision", "raise RuntimeError('operator torchvision::nms does not exist')", "0.1")
    (found,) = surroundings._companions()
    assert found.state is State.broken and found.remedy == "pip uninstall -y torchvision"
    assert found.said == "does not fit this torch (RuntimeError: operator torchvision::nms does not exist)"
    (packages / "torchvision/__init__.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n", "utf-8")
    assert [each.said for each in surroundings._companions()] == ["does not fit this torch (exit code -11)"]
    (packages / "torchvision/__init__.py").write_text("import time; time.sleep(60)\n", "utf-8")
    monkeypatch.setattr(surroundings, "_PATIENCE", 0.2)
    assert [each.said for each in surroundings._companions()] == [
        "does not fit this torch (importing it takes more than 0.2 s)"
    ]


def test_a_vllm_for_another_torch_or_without_its_files_is_broken(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(packages, "torch", version="2.9")
    package(packages, "vllm", version="9.9", requires="torch==2.8")
    found = surroundings._vllm()
    assert found.state is State.broken and found.said == "vllm 9.9 is made for torch==2.8, here is torch 2.9"
    assert found.remedy.startswith("pip install 'torch==2.8'")
    (packages / "vllm-9.9.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 9.9\n", "utf-8")
    assert surroundings._vllm().state is State.fine
    monkeypatch.setattr(surroundings, "find_spec", lambda name: None)
    assert surroundings._vllm().remedy == "pip install --force-reinstall vllm"


def test_a_gpu_that_torch_does_not_use_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho 'NVIDIA H100, 81559 MiB'\n", "utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = surroundings._gpu()
    assert (
        found.state is State.broken
        and found.said.startswith("NVIDIA H100, 81559 MiB is there")
        and "pytorch.org" in found.remedy
    )
    script.write_text("#!/bin/sh\nexit 9\n", "utf-8")
    assert surroundings._gpu().state is State.fine


@pytest.mark.parametrize(("free", "state"), [(10**12, State.fine), (3 * 10**9, State.warning), (10**8, State.broken)])
def test_a_disk_that_fills_has_its_remedy(free: int, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_LLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(surroundings, "free_bytes", lambda folder: free)
    own, cache = surroundings._disks()
    assert own.state is cache.state is state
    if state is not State.fine:
        assert "op=gc" in own.remedy and "MLOPS_LLM_CACHE" in cache.remedy


def test_fonts_without_chinese_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlops_llm.eval.figures.chinese_font", lambda: ())
    found = surroundings._fonts()
    assert found.state is State.warning and "pip install" in found.remedy


def test_jobs_that_nobody_works_at_are_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_LLM_QUEUE", str(tmp_path / "queue"))
    assert surroundings._worker().state is State.fine and not (tmp_path / "queue").exists(), "looking makes nothing"
    queue = Queue()
    queue.add(Job(Command("train", ("a=1",), "run", "id", "link", Again.resume), 2))
    found = surroundings._worker()
    assert found.state is State.broken and found.remedy == "python -m mlops_llm.launch op=work"
    with queue.only_worker():
        assert surroundings._worker().state is State.fine
