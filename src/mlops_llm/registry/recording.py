"""What a decision writes down: on the version, in the run, and for a person."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from mlops_llm.component import plain
from mlops_llm.record import Grid, Run
from mlops_llm.registry.decision import Decision, Evidence
from mlops_llm.registry.policy import Policy
from mlops_llm.tracking.registered import VersionRow
from mlops_llm.tracking.store import Store

ARTIFACT = "decision.json"
LONGEST = 4000
"""Characters of a tag of a version; the run's artifact has all."""
PROMOTED, REFUSED, FORCED = "promoted", "refused", "forced"


def verdict(decision: Decision, *, force: bool) -> str:
    """What becomes of the version: `promoted`, `refused`, or `forced` where the policy says no."""
    return PROMOTED if decision.passed else FORCED if force else REFUSED


def values(policy: Policy, evidence: Evidence, decision: Decision, became: str, reason: str) -> dict[str, Any]:
    """The decision as JSON, with all evidence."""
    return {
        "verdict": became,
        "reason": reason,
        "policy": plain(policy)["settings"],
        "version": decision.version,
        "champion": decision.champion,
        "checks": [asdict(each) for each in decision.checks],
        "reasons": decision.reasons,
        "evidence": asdict(evidence),
    }


def grid(model: str, decision: Decision, became: str) -> Grid:
    """For a person."""
    rows = [["ok" if each.passed else "NO", each.name, each.said] for each in decision.checks]
    title = f"policy {decision.policy} on {model} version {decision.version}: {became}"
    return Grid(title, ["", "asked", "found"], rows or [["ok", "nothing", "the policy asks for nothing"]])


def record(told: Mapping[str, Any], decision: Decision, model: str, became: str, run: Run) -> None:
    """Keep a decision in its run."""
    run.artifact(ARTIFACT, json.dumps(told, ensure_ascii=False, indent=1))
    table: dict[str, list[Any]] = {
        "passed": [each.passed for each in decision.checks],
        "asked": [each.name for each in decision.checks],
        "found": [each.said for each in decision.checks],
    }
    run.artifact("checks.json", table)
    run.tags(
        {
            "registered": f"{model}/{decision.version}",
            "decision": became,
            "decision.policy": decision.policy,
            "decision.why": "; ".join(decision.reasons)[:LONGEST],
            "decision.against": str(decision.champion or ""),
        }
    )


def mark(store: Store, version: VersionRow, decision: Decision, became: str, reason: str, run: Run) -> None:
    """Say on a version what was last decided of it."""
    checks = json.dumps([asdict(each) for each in decision.checks], ensure_ascii=False)
    tags = {
        "decision": became,
        "decision.policy": decision.policy,
        "decision.why": "; ".join(decision.reasons),
        "decision.reason": reason,
        "decision.checks": checks if len(checks) <= LONGEST else "too long; see the run's decision.json",
        "decision.against": str(decision.champion or ""),
        "decision.run": run.name,
        "decision.time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for key, value in tags.items():
        short = value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…"
        store.client.set_model_version_tag(version.model, str(version.version), key, short)
