"""`hook=webhook`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite
from typing import Optional

from mlops_llm.component import component
from mlops_llm.endpoint import Endpoint, TransientError, pause_before
from mlops_llm.errors import UserError
from mlops_llm.registry.hook import Answered, Changed

_SHOWN = 300


@component("hook", "webhook")
@dataclass
class Webhook:
    """Posts the change as JSON to an address; what may pass (no connection, HTTP 429 and 5xx) is tried again."""

    url: str = ""
    """Address that is posted to, e.g. https://HOST/PATH."""
    api_key_env: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Environment variable with the key, which is sent as a bearer token."""
    timeout: float = 10.0
    """Seconds of one attempt."""
    tries: int = 5
    """Attempts at most, with growing pauses between them."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not (isfinite(self.timeout) and self.timeout > 0):
            raise UserError(f"is {self.timeout}", "hook.webhook.timeout", "give seconds above 0")
        if self.tries < 1:
            raise UserError(f"is {self.tries}", "hook.webhook.tries", "give a whole number from 1")

    def check(self) -> None:
        """See that the address is one, and the key there.

        Raises:
            UserError: they are not.
        """
        self._endpoint()

    def tell(self, changed: Changed) -> Answered:
        """Post until the server takes it."""
        try:
            endpoint = self._endpoint()
        except UserError as error:
            return Answered(False, 0, str(error))
        said = ""
        for attempt in range(1, self.tries + 1):
            try:
                return Answered(True, attempt, endpoint.once(asdict(changed), endpoint.beginning)[:_SHOWN] or "taken")
            except UserError as error:
                return Answered(False, attempt, str(error)[:_SHOWN])
            except TransientError as error:
                said = str(error)
                if attempt < self.tries:
                    endpoint.pause(pause_before(attempt - 1, error))
        return Answered(False, self.tries, said[:_SHOWN])

    def _endpoint(self) -> Endpoint:
        if not self.url:
            raise UserError("is empty", "hook.webhook.url", "give the address that is posted to")
        return Endpoint(
            self.url,
            self.api_key_env or "",
            timeout=self.timeout,
            settings=("hook.webhook.url", "hook.webhook.api_key_env"),
            example="https://HOST/PATH",
        )
