"""A model made ready to answer: its deployment folder, its process, and the proof that it is the one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.inference.server import Server
from mlops_llm.models import load
from mlops_llm.models.load import Dtype, Files, ModelLoad
from mlops_llm.models.ref import Place
from mlops_llm.registry.deploying.deployment import KEY, Deployment, deployment
from mlops_llm.registry.serving import probe
from mlops_llm.registry.serving.expected import Expected, expected
from mlops_llm.registry.serving.standing import Standing


class Serving(Protocol):
    """An engine that can be started as a server."""

    family: ClassVar[str]

    def dtype(self, files: Files, how: ModelLoad) -> Dtype:
        """The number format of arithmetic."""
        ...

    def serve(self, folder: Path, how: ModelLoad, names: Sequence[str]) -> AbstractContextManager[Server]:
        """Start it on a whole model, under some names; it asks for the server's key."""
        ...


@dataclass(frozen=True)
class Ready:
    """A model whose process runs and whose answers are proven."""

    standing: Standing
    deployment: Deployment
    dtype: str
    """Name of the number format that it computes in."""
    wanted: list[Expected]
    """What it must say."""
    proof: probe.Proof


@dataclass(frozen=True)
class Starting:
    """Starts models the same way, one after another."""

    engine: Serving
    how: ModelLoad
    names: tuple[str, ...]
    port: int
    """On which clients reach it; written down for other machines, too."""
    key_env: str
    """Name of the variable with their key."""
    output: Path
    """Where deployment folders are put, each in one of its own."""
    tolerance: float | None
    """Nats that a token may differ by; None is that of the number format."""

    def start(self, place: Place, version: str) -> Ready:
        """Start a model, and prove it.

        Args:
            place: of the model.
            version: of the registered model; empty where it is none.

        Raises:
            UserError: its files are broken, it does not start, or it does not answer as it must; its process has ended then.
        """
        out = self.output / (f"version-{version}" if version else "deployment")
        made = deployment(place, self.how, out, name=self.names[0], port=self.port, api_key_env=self.key_env or KEY)
        whole = load.inspect(Place(str(made.model), made.model), self.how)
        dtype = self.engine.dtype(whole, self.how).name
        console.detail(f"asking transformers what {place.ref} must say")
        wanted = expected(made.model, dtype)
        return self._run(place.ref, version, made, dtype, wanted)

    def again(self, ready: Ready) -> Ready:
        """Start a model again whose process has ended, from its deployment folder.

        Raises:
            UserError: it does not start, or does not answer as it must.
        """
        return self._run(ready.standing.ref, ready.standing.version, ready.deployment, ready.dtype, ready.wanted)

    def _run(self, ref: str, version: str, made: Deployment, dtype: str, wanted: list[Expected]) -> Ready:
        with ExitStack() as stack:
            console.say(f"starting {self.engine.family} with {ref}" + (f", version {version}" if version else ""))
            server = stack.enter_context(self.engine.serve(made.model, self.how, self.names))
            proof = self.prove(f"{server.address}/v1", dtype, wanted, key=server.key)
            if not proof.passed:
                raise UserError(f"does not answer as its weights and template say: {proof.why}", ref, _REMEDY)
            return Ready(Standing(server, ref, version, made.weights, stack.pop_all()), made, dtype, wanted, proof)

    def prove(self, address: str, dtype: str, wanted: list[Expected], *, key: str = "") -> probe.Proof:
        """Ask a live server what the model must say.

        Raises:
            UserError: it does not answer.
        """
        most = probe.tolerance(dtype) if self.tolerance is None else self.tolerance
        return probe.proven(address, self.names[0], wanted, most, key=key)


_REMEDY = "see that engine, template and files are those that were evaluated; op.tolerance=NATS allows more"
