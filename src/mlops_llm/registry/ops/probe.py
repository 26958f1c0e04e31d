"""`op=probe`."""

from __future__ import annotations

import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Optional

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.models.load import Dtype
from mlops_llm.record import Result, Run
from mlops_llm.registry.config import Registry, Work

EXAMPLE = "http://127.0.0.1:8000/v1"


@component("op", "probe")
@dataclass
class Probe:
    """Prove by log-probabilities that a running server, wherever it is, answers with a model's weights and template."""

    records: ClassVar[bool] = True
    url: str = EXAMPLE
    """Address of the server; what speaks OpenAI's protocol and tells log-probabilities, such as vLLM or op=serve."""
    served_as: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Name of the model there; null takes the first that the server lists."""
    api_key_env: str = ""
    """Name of the environment variable with the key; empty where the server wants none."""
    dtype: Dtype = Dtype.auto
    """Number format that the server computes in; auto is that which op=serve would take here."""
    tolerance: Optional[float] = None  # noqa: UP045
    """Nats that a token may differ by; null is 0.02 in 32 bits, 0.25 in 16."""

    def __post_init__(self) -> None:
        """Check address and number format."""
        from mlops_llm.endpoint import check_address

        check_address(self.url, "op.url", EXAMPLE)
        if self.tolerance is not None and not 0 < self.tolerance < math.inf:
            raise UserError(f"is {self.tolerance}", "op.tolerance", "give nats above 0, or null")

    def prepare(self, request: Registry) -> Work:
        """Find the model and the server."""
        from mlops_llm.models import load
        from mlops_llm.registry import subject
        from mlops_llm.registry.deploying.deployment import deployment
        from mlops_llm.registry.serving import probe
        from mlops_llm.registry.serving.expected import expected

        place = subject.place(request)
        load.inspect(place, request.model_load)
        name = self.served_as or probe.first(self.url, self.api_key_env)
        dtype = load.dtype_of(self.dtype).name
        most = probe.tolerance(dtype) if self.tolerance is None else self.tolerance

        def work(run: Run) -> Result:
            with tempfile.TemporaryDirectory(prefix="mlops_llm-") as folder:
                made = deployment(place, request.model_load, Path(folder) / "model")
                wanted = expected(made.model, dtype)
            proof = probe.proven(self.url, name, wanted, most, key_env=self.api_key_env)
            run.tags(
                {"serve.address": self.url, "serve.ref": place.ref, "digest.weights": made.weights, "serve.proof": proof.why}
            )
            run.metrics({"probe/largest_difference": proof.largest, "probe/tokens": proof.tokens}, 0)
            said = "answers with" if proof.passed else "does not answer with"
            table = {"server": f"{name} at {self.url}", "template": f"compared by {proof.template}", "proof": proof.why}
            values = {"probe": asdict(proof), "weights": made.weights, "template": made.template}
            return Result(f"the server {said} {place.ref}", table, values, failed=not proof.passed)

        return work
