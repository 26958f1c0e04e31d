"""`op=deploy`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Optional

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.record import Result, Run
from mlops_llm.registry.config import Registry, Work

if TYPE_CHECKING:
    from mlops_llm.registry.deploying.deployment import Deployment, Plan


@component("op", "deploy")
@dataclass
class Deploy:
    """Write a folder from which another machine serves a model: files, manifest, what vLLM, Ollama and Docker read."""

    records: ClassVar[bool] = True
    folder: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """The folder; null is `deployment` in output. One that holds the same already is left as it is."""
    serve_as: Optional[str] = None  # noqa: UP045
    """What clients call the model; null is the registered model's name, else that of run or folder."""
    gguf: Optional[str] = None  # noqa: UP045
    """The same model as a GGUF, for Ollama: a folder or ref that op=export_gguf of surgery made."""
    context: Optional[int] = None  # noqa: UP045
    """Tokens of a prompt and its answer together; null is the model's own."""
    port: int = 8000
    """On which the server listens, of this machine alone."""
    api_key_env: str = "VLLM_API_KEY"
    """Variable whose value clients must give as their key, where it is set when the server starts."""
    tag: Optional[str] = None  # noqa: UP045
    """Of the image vllm/vllm-openai; null is that of the vLLM that is installed here, else a recent one."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.port < 65536:
            raise UserError(f"is {self.port}", "op.port", "give a number from 1 to 65535")
        if self.context is not None and self.context < 1:
            raise UserError(f"is {self.context}", "op.context", "give a whole number from 1, or null")
        if not re.fullmatch(r"[A-Za-z_]\w*", self.api_key_env, re.ASCII):
            raise UserError(f"'{self.api_key_env}' is no name of a variable", "op.api_key_env", "give one such as SALES_KEY")
        if self.tag is not None and not re.fullmatch(r"[\w][\w.-]{0,127}", self.tag, re.ASCII):
            raise UserError(f"'{self.tag}' is no tag of an image", "op.tag", "give one such as v0.32.0")
        if self.serve_as is not None and not re.fullmatch(r"[\w.-]{1,100}", self.serve_as):
            raise UserError(f"'{self.serve_as}' is no name for clients", "op.serve_as", "take letters, digits and . - _")

    def prepare(self, request: Registry) -> Work:
        """Find the model, and see that it can be handed on and the folder written."""
        from mlops_llm.models.ref import resolve
        from mlops_llm.registry import subject
        from mlops_llm.registry.deploying.deployment import Wish, planned
        from mlops_llm.tracking.registered import CHAMPION

        if not request.model and not request.name:
            raise UserError("names no model", "model", "give model=REF, or name=NAME version=champion")
        place = subject.place(replace(request, version=request.version or (None if request.model else CHAMPION)))
        other = resolve(self.gguf) if self.gguf else None
        wish = Wish(self.serve_as or "", self.port, self.api_key_env, self.context, self.tag or "", other)
        out = Path(self.folder) if self.folder else Path(request.output or ".") / "deployment"
        plan = planned(place, request.model_load, out, wish)

        def work(run: Run) -> Result:
            return _carried_out(plan, run)

        return work


def _carried_out(plan: Plan, run: Run) -> Result:
    """Write the folder, and record it on the version and in the run."""
    from mlops_llm.models import digested
    from mlops_llm.registry.deploying import manifest, modelfile, servers
    from mlops_llm.tracking.store import connect

    place, version = plan.files.place, plan.known.version
    run.uses(digested.as_recorded(place))
    found = plan.write(run.name)
    for name in (manifest.NAME, manifest.SUMS, "README.md", servers.SCRIPT, servers.IMAGE, servers.COMPOSE, modelfile.NAME):
        if (found.folder / name).is_file():
            run.artifact(name, found.folder / name)
    run.metrics({"model/bytes": float(sum(each["bytes"] for each in found.manifest["files"].values()))}, 0)
    facts = {"model": place.ref, "digest.weights": found.weights, "digest.template": found.template}
    run.tags(facts | ({"registered": f"{version.model}/{version.version}"} if version else {}))
    if version:
        told = {
            "deploy.folder": str(found.folder),
            "deploy.run": run.name,
            "deploy.time": datetime.now(UTC).isoformat(timespec="seconds"),
            "deploy.weights": found.weights,
        }
        for key, value in told.items():
            connect().client.set_model_version_tag(version.model, str(version.version), key, value)
    return _told(plan, found)


def _told(plan: Plan, found: Deployment) -> Result:
    """The deployment as a table."""
    from mlops_llm import console
    from mlops_llm.registry.deploying import servers

    told, version = found.manifest, plan.known.version
    size = sum(each["bytes"] for each in told["files"].values())
    starts = told["starts"]
    table = {
        "model": plan.files.place.ref,
        "registered": version.ref if version else None,
        "folder": str(found.folder) + ("" if found.is_new else " (was there already, unchanged)"),
        "served as": found.name,
        "size": f"{console.size(size)} in {len(told['files'])} files",
        "weights digest": found.weights[:16],
        "number format": told["packed"] or told["dtype"],
        "made of": " on ".join(f"{each['ref']} ({each['role']})" for each in told["made_of"]) if told["made_of"][1:] else None,
        "lineage": told["lineage"] or None,
        "starts": ", ".join(starts),
        "Ollama": "; ".join(told["ollama"]) or None,
        "next 1": f"sh {found.folder / servers.SCRIPT}" if servers.SCRIPT in starts else f"see {found.folder / 'README.md'}",
        "next 2": f"python -m mlops_llm.registry op=verify model={found.folder}",
    }
    values = {
        "folder": str(found.folder),
        "ref": plan.files.place.ref,
        "digest.weights": found.weights,
        "digest.template": found.template,
        "name": found.name,
        "new": found.is_new,
    }
    return Result(f"deploy {found.name}", {name: value for name, value in table.items() if value is not None}, values)
