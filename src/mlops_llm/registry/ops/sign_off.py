"""`op=sign_off`."""

from __future__ import annotations

import getpass
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Optional

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.record import Result, Run
from mlops_llm.registry.config import Registry, Work


@component("op", "sign_off")
@dataclass
class SignOff:
    """Say as a person that a version may become the champion, for policies that ask for it."""

    records: ClassVar[bool] = True
    by: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Who signs; null is the user of this machine."""
    note: str = ""
    """What was looked at, for those who read it later."""

    def prepare(self, request: Registry) -> Work:
        """Find the version."""
        from mlops_llm.registry import subject
        from mlops_llm.registry.evidence import SIGNED
        from mlops_llm.tracking.store import connect

        who = self.by or getpass.getuser()
        if not re.fullmatch(r"[\w. -]{1,100}", who):
            raise UserError(f"'{who}' is no name", "op.by", "take letters, digits, blanks and . - _")
        store = connect()
        version = subject.version(store, request)

        def work(run: Run) -> Result:
            told = f"{datetime.now(UTC).isoformat(timespec='seconds')} {self.note}".strip()[:2000]
            store.client.set_model_version_tag(version.model, str(version.version), f"{SIGNED}{who}", told)
            run.tags({"registered": f"{version.model}/{version.version}", "model": version.ref, "signed_off": who})
            table = {"version": version.ref, "signed off by": who, "note": self.note}
            return Result(f"sign_off {version.model}", table, {"version": version.version, "by": who})

        return work
