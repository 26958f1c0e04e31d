"""Whether a version becomes the champion: policy and evidence in, decision and reasons out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlops_llm.eval.significance import LEVEL
from mlops_llm.registry.policy import Demand, Floor, Policy

PASSED, UNMEASURED = "passed", "not measured"


@dataclass(frozen=True)
class Value:
    """A score of a model on some rows."""

    value: float
    higher_is_better: bool
    run: str
    """Name of the evaluation."""
    rows: int = 0


@dataclass(frozen=True)
class Beside:
    """A version and the champion on the same rows; positive is better whichever end of the score is the good one."""

    gain: float
    low: float | None
    """Ends of the 95 % interval of the gain; None where too few samples are there to say."""
    high: float | None
    p: float
    count: int
    """Samples."""
    test: str


@dataclass(frozen=True)
class Evidence:
    """What the record knows of a version and of the champion."""

    version: int
    champion: int | None
    """None where there is none yet."""
    primary: Value | None = None
    of_champion: Value | None = None
    beside: Beside | None = None
    floors: Sequence[Value | None] = ()
    """Of each floor of the policy."""
    certificate: str = ""
    """`passed`, `failed`, `not measured`, or empty of what has none."""
    operation: str = ""
    """What made it, where that was no training."""
    overlap: float | None = None
    """Largest share over the rows asked; None where the model's past is not known."""
    agreement: float | None = None
    """Rank correlation of judge and people."""
    signed: Sequence[str] = ()
    """Who signed it off."""
    why: Mapping[str, str] = field(default_factory=dict)
    """Name of a check -> why its evidence is not there."""
    code: str = ""
    """Digest of Python code that is run when it is loaded; empty where none is."""


@dataclass(frozen=True)
class Check:
    """One demand of a policy."""

    name: str
    passed: bool
    said: str


@dataclass(frozen=True)
class Decision:
    """What became of a version."""

    policy: str
    version: int
    champion: int | None
    """At the time of the decision."""
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether everything that the policy asks for is there."""
        return all(each.passed for each in self.checks)

    @property
    def reasons(self) -> list[str]:
        """What speaks against it, or else for it."""
        against = [f"{each.name}: {each.said}" for each in self.checks if not each.passed]
        return against or [f"{each.name}: {each.said}" for each in self.checks] or ["the policy asks for nothing"]


def decide(policy: Policy, evidence: Evidence) -> Decision:
    """Hold a version against a policy; what is not known does not pass.

    Args:
        policy: what is asked for.
        evidence: what is known.
    """
    checks = list[Check]()
    if policy.dataset is not None:
        checks += _primary(policy, evidence)
    for number, (floor, value) in enumerate(zip(policy.floors, evidence.floors, strict=True), 1):
        checks.append(_floor(floor, value, evidence.why.get(f"floor {number}", ""), f"floor {number}"))
    if policy.certificate:
        checks.append(_certificate(evidence))
    if policy.overlap is not None:
        checks.append(_at_most("overlap", evidence.overlap, policy.overlap, evidence.why))
    if policy.agreement is not None:
        checks.append(_agreement(policy.agreement, evidence))
    if evidence.code:
        allow = "" if policy.own_code else "; policy.own_code=true allows it"
        said = f"it runs Python code of its own (digest {evidence.code[:12]}…){allow}"
        checks.append(Check("own code", policy.own_code, said))
    if policy.sign_off:
        names = list(dict.fromkeys(evidence.signed))
        said = f"{len(names)} of {policy.sign_off} people" + (f": {', '.join(names)}" if names else "")
        checks.append(Check("sign-off", len(names) >= policy.sign_off, said))
    return Decision(policy.name, evidence.version, evidence.champion, tuple(checks))


def _primary(policy: Policy, evidence: Evidence) -> list[Check]:
    own = evidence.primary
    if own is None or not math.isfinite(own.value):
        return [Check("primary", False, evidence.why.get("primary", f"{policy.primary} is not known"))]
    told = f"{policy.primary} {own.value:.4g} on {own.rows} rows of {policy.dataset}"
    if evidence.champion is None:
        return [Check("primary", True, f"{told}; there is no champion to compare with")]
    beside = evidence.beside
    if beside is None or evidence.of_champion is None:
        return [Check("primary", False, evidence.why.get("champion", "it cannot be compared with the champion"))]
    told += f", the champion (version {evidence.champion}) has {evidence.of_champion.value:.4g}"
    return [_better(told, beside) if policy.demand is Demand.better else _not_worse(told, beside, policy.margin)]


def _better(told: str, beside: Beside) -> Check:
    passed = beside.gain > 0 and beside.p <= LEVEL
    sure = "significantly better" if passed else "not significantly better"
    return Check("primary", passed, f"{told}: {sure} (gain {beside.gain:+.4g}, p = {beside.p:.2g}, {beside.test})")


def _not_worse(told: str, beside: Beside, margin: float) -> Check:
    if beside.low is None or beside.high is None:
        return Check("primary", False, f"{told}: {beside.count} samples are too few to tell")
    passed = beside.low >= -margin
    sure = "not worse" if passed else "it may be worse"
    ends = f"{beside.low:+.4g} to {beside.high:+.4g}"
    return Check("primary", passed, f"{told}: {sure} within {margin:g} (gain {beside.gain:+.4g}, 95 % {ends})")


def _floor(floor: Floor, value: Value | None, why: str, name: str) -> Check:
    where = f" on {floor.dataset}" if floor.dataset else ""
    if value is None or not math.isfinite(value.value):
        return Check(name, False, why or f"{floor.score}{where} is not known")
    passed = value.value >= floor.bound if value.higher_is_better else value.value <= floor.bound
    word = "at least" if value.higher_is_better else "at most"
    return Check(name, passed, f"{floor.score}{where} is {value.value:.4g}, wanted {word} {floor.bound:g}")


def _certificate(evidence: Evidence) -> Check:
    if not evidence.operation and not evidence.certificate:
        return Check("certificate", True, "a training needs none")
    if evidence.certificate == UNMEASURED:
        why = "there was no memory to ask the models; where there is, rebuild of its recipe.json makes it again"
        return Check("certificate", False, f"its outputs were {UNMEASURED}: {why}")
    passed = evidence.certificate == PASSED
    return Check("certificate", passed, evidence.certificate or f"what {evidence.operation} made has none")


def _at_most(name: str, value: float | None, most: float, why: Mapping[str, str]) -> Check:
    if value is None or not math.isfinite(value):
        return Check(name, False, why.get(name, "is not known"))
    return Check(name, value <= most, f"{value:.1%} of the rows were met in training, allowed are {most:.1%}")


def _agreement(least: float, evidence: Evidence) -> Check:
    value = evidence.agreement
    if value is None or not math.isfinite(value):
        return Check("agreement", False, evidence.why.get("agreement", "people and judge rated nothing in common"))
    return Check("agreement", value >= least, f"judge and people agree with {value:.2f}, wanted at least {least:g}")
