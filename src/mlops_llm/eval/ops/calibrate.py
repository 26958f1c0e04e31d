"""`op=calibrate`."""

from __future__ import annotations

from dataclasses import dataclass

from mlops_llm.component import component
from mlops_llm.eval.config import Eval, Work


@component("op", "calibrate")
@dataclass
class Calibrate:
    """Say how well model judges agree with people, and with each other, on a dataset's answers that both have rated."""

    def home(self, request: Eval) -> str:
        """The project of the ratings."""
        from mlops_llm.eval.people import calibration
        from mlops_llm.eval.people.imported import here

        return calibration.home(request, here())

    def prepare(self, request: Eval) -> Work:
        """Read what the record holds of the dataset, and compare it."""
        from mlops_llm.eval.people import calibration
        from mlops_llm.eval.people.imported import here

        found = calibration.calibrated(request, here())
        return lambda run: calibration.record(found, run)
