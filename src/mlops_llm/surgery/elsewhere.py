"""Work in the Python of another environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlops_llm import console
from mlops_llm.errors import RequestError, UserError
from mlops_llm.files import expanded
from mlops_llm.surgery import oneshot


def interpreter(python: str | None, modules: tuple[str, ...], install: str, why: str) -> str:
    """The Python that has the modules.

    Args:
        python: as a person names it; None is this one.
        modules: what must be importable there.
        install: arguments of pip that bring them.
        why: why they are not here.

    Raises:
        UserError: it has them not; the command is told that makes an environment.
    """
    torch = version("torch")
    remedy = (
        f"make an environment for it: {os.path.basename(sys.executable)} -m venv quantize && quantize/bin/pip install "  # noqa: PTH119
        f"{install.replace('TORCH', f'torch=={torch}')}; then give op.python=quantize/bin/python"
    )
    if python is None:
        missing = next((each for each in modules if find_spec(each) is None), None)
        if missing:
            raise UserError(f"needs {missing}, {why}", "op.python", remedy)
        return sys.executable
    path = expanded(python).absolute()
    if not path.is_file() or not os.access(path, os.X_OK):
        raise UserError("is no Python", str(path), remedy)
    asked = f"import importlib.util as u; print([m for m in {list(modules)} if u.find_spec(m) is None])"
    done = subprocess.run([path, "-I", "-c", asked], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode or done.stdout.strip() != "[]":
        said = done.stdout.strip() if not done.returncode else (done.stderr.strip().splitlines() or ["it does not start"])[-1]
        raise UserError(f"lacks {said.strip('[]')}" if not done.returncode else said, str(path), remedy)
    return str(path)


def quantize(python: str, request: Mapping[str, Any], layers: int, log: Path | None) -> None:
    """Quantize a folder in another Python; what its libraries say goes to a file.

    Args:
        python: from `interpreter`.
        request: see `oneshot.main`.
        layers: how many are quantized, for progress.
        log: the file; None keeps nothing.

    Raises:
        UserError: it fails; what it said last is told.
    """
    said: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mlops_llm-quantize-") as name:
        file = Path(name) / "request.json"
        file.write_text(json.dumps(dict(request)), encoding="utf-8")
        command = [python, "-I", str(Path(oneshot.__file__).absolute()), str(file)]
        told = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
        process = subprocess.Popen(
            command, cwd=name, env=told, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        progress, done = console.Progress("quantizing", layers), 0
        try:
            assert process.stdout
            for line in process.stdout:
                said.append(line.rstrip())
                if "METRIC - error" in line and done < layers:
                    done += 1
                    progress.at(done)
            process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            progress.close()
            if log:
                log.parent.mkdir(parents=True, exist_ok=True)
                log.write_text("\n".join(said) + "\n", encoding="utf-8")
    if process.returncode:
        last = next((each.strip() for each in reversed(said) if each.strip()), f"code {process.returncode}")
        where = f"all that it said is in {log}" if log else "run it in a folder of a run to see all"
        raise RequestError(f"the quantization failed: {last}", python, where)
