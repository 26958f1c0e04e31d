"""The dashboard of a Ray cluster, as far as jobs go: a light client of its REST API.

Ray's own client would want Ray here, of the cluster's release, and waits without an end for a dashboard that does not answer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlops_llm.endpoint import check_address
from mlops_llm.errors import UserError, first_line
from mlops_llm.launch.elsewhere import LostError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    import httpx

DEFAULT = "http://127.0.0.1:8265"
LARGEST = 100 * 2**20
"""Bytes that the dashboard takes in one request: `DASHBOARD_CLIENT_MAX_SIZE` of Ray."""
_PATIENCE, _STARTING, _UPLOADING = 10.0, 60.0, 300.0
_REMEDY = "see that the head runs (ray start --head), or name another: launch.address=http://HOST:8265"


class Dashboard:
    """Asks the dashboard at an address."""

    def __init__(self, address: str) -> None:
        """Check the address, without asking.

        Raises:
            UserError: it is none.
        """
        check_address(address, "launch.address", "http://HOST:8265")
        self.address = address.rstrip("/")

    def version(self) -> str:
        """The cluster's release of Ray."""
        return str(self._told("GET", "/api/version")["ray_version"])

    def has(self, package: str) -> bool:
        """Whether a package is in the cluster's store; it stays there for some minutes from now on."""
        return self._asked("GET", f"/api/packages/gcs/{package}", missing=True) is not None

    def upload(self, package: str, file: Path) -> None:
        """Put a package into the cluster's store."""
        self._asked("PUT", f"/api/packages/gcs/{package}", content=file.read_bytes(), timeout=_UPLOADING)

    def submit(self, job: Mapping[str, Any]) -> None:
        """Have a job run: a `JobSubmitRequest` of Ray, with an id of its own. A head that has just begun takes a while.

        Raises:
            UserError: the cluster refuses it.
        """
        until = time.monotonic() + _STARTING
        while True:
            try:
                self._asked("POST", "/api/jobs/", json=dict(job), timeout=60.0)
                return
            except LostError:
                with suppress(LostError):
                    if self.job(str(job["submission_id"])) is not None:
                        return  # only the answer was lost
                if time.monotonic() > until:
                    raise
            time.sleep(1)

    def job(self, job: str) -> dict[str, Any] | None:
        """What is known of a job; None where the cluster knows none of this id."""
        found = self._asked("GET", f"/api/jobs/{job}", missing=True)
        return None if found is None else dict(found.json())

    def logs(self, job: str) -> str:
        """All that a job has printed, with lines of Ray's own."""
        return str(self._told("GET", f"/api/jobs/{job}/logs")["logs"])

    def stop(self, job: str) -> None:
        """Ask a job to end."""
        self._asked("POST", f"/api/jobs/{job}/stop", missing=True)

    def resources(self) -> dict[str, float]:
        """What all nodes of now have together: CPU, GPU, memory in bytes, and resources of their own; empty where unknown."""
        told = self._told("GET", "/api/cluster_status")["data"]["clusterStatus"] or {}
        usage = (told.get("loadMetricsReport") or {}).get("usage") or {}
        return {name: float(total) for name, (_, total) in usage.items()}

    def _told(self, method: str, path: str) -> dict[str, Any]:
        found = self._asked(method, path)
        assert found is not None
        try:
            return dict(found.json())
        except ValueError as error:
            raise UserError("is no dashboard of Ray", self.address, _REMEDY) from error

    def _asked(self, method: str, path: str, *, missing: bool = False, **how: Any) -> httpx.Response | None:
        """An answer; None of what is not there, where that may be.

        Raises:
            LostError: nothing answers, or the dashboard cannot reach the rest of the cluster.
            UserError: it refuses.
        """
        with self._connected() as client:
            found = client.request(method, f"{self.address}{path}", **how)
        if found.status_code == 404 and missing:
            return None
        if found.status_code in (401, 403):
            remedy = "give it: export RAY_AUTH_TOKEN=…, or RAY_AUTH_TOKEN_PATH=FILE"
            raise UserError("the cluster wants its token", self.address, remedy)
        if found.status_code == 404:
            raise UserError("is no dashboard of Ray that takes jobs", self.address, _REMEDY)
        if found.status_code >= 400:
            said = [line for line in found.text.strip().splitlines() if line.strip(" .")] or [f"HTTP {found.status_code}"]
            kind = LostError if found.status_code >= 500 and "Error:" not in said[-1] else UserError
            raise kind(f"the cluster says: {said[-1][:300]}", self.address)
        return found

    @contextmanager
    def _connected(self) -> Iterator[httpx.Client]:
        import httpx

        known = token()
        headers = {"Authorization": f"Bearer {known}"} if known else {}
        is_here = urlsplit(self.address).hostname in ("127.0.0.1", "localhost", "::1")
        try:
            with httpx.Client(headers=headers, timeout=_PATIENCE, trust_env=not is_here, verify=_trusted()) as client:
                yield client
        except httpx.HTTPError as error:
            raise LostError(f"no dashboard of Ray answers ({first_line(error)})", self.address, _REMEDY) from error


@cache
def _trusted() -> ssl.SSLContext:
    """Whom a client trusts: read once, for reading it takes longer than a whole request."""
    import httpx

    context: ssl.SSLContext = httpx.create_ssl_context()
    return context


def token() -> str:
    """The cluster's token, where Ray itself looks for it; empty where there is none, or `RAY_AUTH_MODE` says disabled."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return ""
    if known := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return known
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    return file.read_text("utf-8").strip() if file.is_file() else ""
