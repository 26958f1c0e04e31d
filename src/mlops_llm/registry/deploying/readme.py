"""README.md of a deployment folder: how to start each server, and how to see that it is the right one."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from mlops_llm.registry.deploying import manifest, modelfile, servers
from mlops_llm.registry.deploying.servers import Served
from mlops_llm.tracking.registered import VersionRow

NAME = "README.md"


def text(served: Served, there: Collection[str], remarks: Sequence[str], version: VersionRow | None) -> str:
    """Write the README.

    Args:
        served: how vLLM is started.
        there: names of the files that start a server.
        remarks: what a person must know of Ollama.
        version: as which the model is registered, if it is.
    """
    of = f", which is {version.ref}" if version else ""
    parts = [
        f"# {served.name}",
        "",
        f"A model to be served from this folder{of}. What it is made of, its scores and the digest of every file stand in "
        f"`{manifest.NAME}`. 由此文件夹提供模型服务；来源、得分与每个文件的摘要见 `{manifest.NAME}`。",
        "",
        "## Check the files 检查文件",
        "",
        *_bash(f"sha256sum --check --quiet {manifest.SUMS}", "python -m mlops_llm.registry op=verify model=."),
        *(_vllm(served) if servers.SCRIPT in there else _gguf(served)),
        *_ollama(served, modelfile.NAME in there, remarks),
        *_asked(served),
        "",
    ]
    return "\n".join(parts)


def _vllm(served: Served) -> list[str]:
    return [
        "## vLLM",
        "",
        f"Answers on http://127.0.0.1:{served.port} (`SERVE_PORT`, `SERVE_HOST`); where `{served.key}` is set, clients must "
        "give its value as their key. 只监听本机；设置了该变量时，客户端须以其值为密钥。",
        "",
        *_bash(f"sh {servers.SCRIPT}"),
        "## Docker",
        "",
        f"The image `vllm/vllm-openai:{served.tag}` needs an NVIDIA GPU; `VLLM_TAG` takes another release. The first form "
        "mounts `model/` for reading only, the second puts it into an image. 需要 NVIDIA GPU。",
        "",
        *_bash(
            "docker compose up --detach --wait",
            f"docker build -t {served.image} .",
            f'export VLLM_API_KEY="${served.key}"',
            f"docker run --rm --gpus all --ipc=host -p 127.0.0.1:{served.port}:8000 -e VLLM_API_KEY {served.image}",
        ),
    ]


def _gguf(served: Served) -> list[str]:
    window = f" -c {served.context}" if served.context else ""
    return [
        "## llama.cpp",
        "",
        "The model is a GGUF, which vLLM does not open. 此模型为 GGUF，vLLM 不能读取。",
        "",
        *_bash(f"llama-server -m model/*.gguf --alias {served.name} --host 127.0.0.1 --port {served.port}{window} --jinja"),
    ]


def _ollama(served: Served, is_there: bool, remarks: Sequence[str]) -> list[str]:
    said = [f"- {each}" for each in remarks]
    command = _bash(f"ollama create {served.image} -f {modelfile.NAME}", f"ollama run {served.image}") if is_there else []
    return ["## Ollama", "", *command, *said, *([""] if said else [])]


def _asked(served: Served) -> list[str]:
    body = {
        "model": served.name,
        "messages": [{"role": "user", "content": "您好"}],
        "temperature": 0,
        "max_tokens": 64,
    }
    address = f"http://127.0.0.1:{served.port}"
    return [
        "## Ask it 提问",
        "",
        *_bash(
            f"curl -fsS {address}/health",
            f'curl -fsS {address}/v1/models -H "Authorization: Bearer ${served.key}"',
            f'curl -fsS {address}/v1/chat/completions -H "Authorization: Bearer ${served.key}" \\',
            f"  -H 'Content-Type: application/json' -d '{json.dumps(body, ensure_ascii=False)}'",
        ),
        f"Ollama answers the same questions on http://127.0.0.1:11434 as `{served.image}`. Ollama 的地址为 http://127.0.0.1:11434。",
    ]


def _bash(*lines: str) -> list[str]:
    return ["```bash", *lines, "```", ""]
