"""What a version must show before it becomes the champion: data, in `conf/policy`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from math import isfinite
from typing import Optional

from mlops_llm.component import component
from mlops_llm.errors import UserError


class Demand(Enum):
    """What the primary score must be beside the champion's."""

    better = "better"
    """Significantly better by a paired test on the same rows (p at most 0.05)."""
    not_worse = "not_worse"
    """Not worse by more than a margin: the 95 % interval of the difference ends within it."""


@dataclass
class Floor:
    """A bound of a score on rows that are protected."""

    score: str = ""
    """Name of a score of an evaluation: score/bleu."""
    dataset: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Rows: the name of a dataset, NAME@LABEL, or a path; null is for a benchmark, whose scores name it: score/gsm8k/…."""
    limit: Optional[int] = None  # noqa: UP045
    """Rows that count, from the first on; null is all."""
    bound: float = 0.0
    """Least value, or the largest where smaller is better."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        _check_limit(self.limit, "policy.floors.limit")
        if not isfinite(self.bound):
            raise UserError(f"bound: is {self.bound}", "policy.floors", "give a number")


@component("policy", "gate")
@dataclass
class Policy:
    """A version becomes the champion when it passes everything that is asked here."""

    name: str = "gate"
    """What the policy is called."""
    dataset: Optional[str] = None  # noqa: UP045
    """Rows of the primary score: the name of a dataset, NAME@LABEL, or a path; null asks for no score."""
    limit: Optional[int] = None  # noqa: UP045
    """Rows that count, from the first on; null is all."""
    primary: str = "score/bleu"
    """The score that decides, by which a version is compared with the champion on the same rows."""
    demand: Demand = Demand.better
    """better than the champion, or not_worse by more than policy.margin; the first champion has nobody beside it."""
    margin: float = 0.0
    """How much worse not_worse may be, in units of the primary score."""
    floors: list[Floor] = field(default_factory=list)
    """Bounds on protected rows: [{score: score/exact_match, dataset: sales_eval, bound: 0.5}]."""
    certificate: bool = True
    """The certificate of what an operation made must have passed; a training has none."""
    overlap: Optional[float] = None  # noqa: UP045
    """Most share of the rows asked that the model may have met in training; null allows any, also one that nobody knows."""
    agreement: Optional[float] = None  # noqa: UP045
    """Least rank correlation of judge and people on the policy's dataset (see eval op=calibrate); null asks for none."""
    own_code: bool = False
    """Whether a version may run Python code of its own (model_load.trust_remote_code)."""
    sign_off: int = 0
    """People who must have signed the version off (op=sign_off)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        _check_limit(self.limit, "policy.limit")
        for name in ("margin", "overlap", "agreement"):
            value = getattr(self, name)
            if value is not None and not isfinite(value):
                raise UserError(f"is {value}", f"policy.{name}", "give a number")
        if self.margin < 0:
            raise UserError(f"is {self.margin}", "policy.margin", "give a number from 0")
        if self.overlap is not None and not 0 <= self.overlap <= 1:
            raise UserError(f"is {self.overlap}", "policy.overlap", "give a share from 0 to 1, or null")
        if self.agreement is not None and not -1 <= self.agreement <= 1:
            raise UserError(f"is {self.agreement}", "policy.agreement", "give a correlation from -1 to 1, or null")
        if self.sign_off < 0:
            raise UserError(f"is {self.sign_off}", "policy.sign_off", "give a number from 0")
        if self.dataset is None and (self.overlap is not None or self.agreement is not None):
            name = "overlap" if self.overlap is not None else "agreement"
            raise UserError("asks for rows, and none are named", f"policy.{name}", "give policy.dataset=REF, or null")

    def check(self) -> None:
        """See that every floor names its score.

        Raises:
            UserError: one does not.
        """
        for each in self.floors:
            if not each.score:
                raise UserError("names no score", "policy.floors", "write [{score: score/bleu, dataset: REF, bound: 20}]")


def _check_limit(limit: int | None, where: str) -> None:
    if limit is not None and limit < 1:
        raise UserError(f"is {limit}", where, "give a whole number from 1, or null")
