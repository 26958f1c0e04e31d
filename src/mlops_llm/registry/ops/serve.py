"""`op=serve`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Optional

from mlops_llm.component import component, name_of
from mlops_llm.errors import UserError
from mlops_llm.registry.config import Registry, Work

if TYPE_CHECKING:
    from mlops_llm.registry.serving.following import Target

PORT = 8000
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@component("op", "serve")
@dataclass
class Serve:
    """Serve a model by OpenAI's protocol (chat, completions, models, health), proven by log-probabilities; Ctrl-C ends it."""

    records: ClassVar[bool] = True
    port: Optional[int] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Port that it listens on; null is 8000, of a check a free one."""
    host: str = "127.0.0.1"
    """Address that it listens on: this machine's own, or 0.0.0.0 for all, which wants a key."""
    api_key_env: str = ""
    """Name of the environment variable with the key that clients must know; empty asks for none."""
    follow: bool = False
    """Have the model answer that the alias points to, whenever it moves: no request is dropped, what fails stays out."""
    every: float = 2.0
    """Seconds between two looks at the alias."""
    drain: float = 600.0
    """Seconds that a model that was relieved has for the requests that it took on."""
    at_once: int = 256
    """Requests in work at most; more are told to come again (429)."""
    tolerance: Optional[float] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Nats that a token of the probe may differ by; null is 0.02 in 32 bits, 0.25 in 16."""
    check: bool = False
    """Start, prove, write the deployment folder, and end: for pipelines."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.port is not None and not 1 <= self.port <= 65535:
            raise UserError(f"is {self.port}", "op.port", "give a port from 1 to 65535, or null")
        for name in ("every", "drain"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"is {getattr(self, name)}", f"op.{name}", "give seconds above 0")
        if self.tolerance is not None and not 0 < self.tolerance < math.inf:
            raise UserError(f"is {self.tolerance}", "op.tolerance", "give nats above 0, or null")
        if self.at_once < 1:
            raise UserError(f"is {self.at_once}", "op.at_once", "give a whole number from 1")
        if self.host not in _LOOPBACK and not self.api_key_env:
            what = f"listens on {self.host}, where others can ask, without a key"
            raise UserError(what, "op.host", "name the variable that holds one: op.api_key_env=NAME")

    def prepare(self, request: Registry) -> Work:
        """Find the model, and see that port, key and engine are there."""
        from mlops_llm.endpoint import read_key
        from mlops_llm.models import code, load
        from mlops_llm.ports import free_port
        from mlops_llm.registry import subject
        from mlops_llm.registry.serving.service import Service, names_of, refuse_port
        from mlops_llm.registry.serving.starting import Starting
        from mlops_llm.tracking.store import connect

        engine = name_of(request.engine)
        if engine not in ("hf", "vllm"):
            raise UserError(f"{engine} cannot be served here", "engine", "take engine=hf or engine=vllm")
        request.engine.check()
        key = read_key(self.api_key_env, "op.api_key_env") if self.api_key_env else ""
        place = subject.place(request)
        alias = re.fullmatch(r"models:/([^/@]+)@(.+)", place.ref) or re.fullmatch(r"models:/([^/@]+)/(\d+)", place.ref)
        name, which = (alias[1], alias[2]) if alias else ("", "")
        if self.follow and "@" not in place.ref:
            what = f"follows {place.ref}, which is no alias and never moves"
            raise UserError(what, "op.follow", "name one: model=models:/NAME@champion")
        port = self.port or (free_port(self.host) if self.check else PORT)
        refuse_port(self.host, port)
        names = names_of(place, request.name or name, [place.ref])
        target = partial(_target, connect(), name, which) if alias else None
        now = target() if target else None
        place = replace(now.find(), ref=place.ref) if now else place  # the alias may have moved between two questions
        code.refuse(load.inspect(place, request.model_load).code, place.ref)
        service = Service(
            Starting(
                request.engine,
                request.model_load,
                names,
                port,
                self.api_key_env,
                Path(request.output or "."),
                self.tolerance,
            ),
            place,
            now.version if now else "",
            target if self.follow else None,
            self.host,
            port,
            key,
            self.at_once,
            self.every,
            self.drain,
            self.check,
        )
        return service.work


def _target(store: object, name: str, which: str) -> Target:
    """What a version's number or alias stands for now.

    Raises:
        UserError: it stands for nothing.
    """
    from mlops_llm.models.ref import resolve
    from mlops_llm.registry.serving.following import Target
    from mlops_llm.tracking import registered
    from mlops_llm.tracking.store import Store

    assert isinstance(store, Store)
    version = registered.model(store, name).aliases.get(which) if not which.isdecimal() else int(which)
    if version is None:
        raise UserError(f"'{name}' has no alias '{which}' any more", "model", "set it again: op=promote does")
    return Target(str(version), partial(resolve, f"models:/{name}/{version}"))
