"""By whose clock heartbeats are told."""

from __future__ import annotations

import os
import subprocess
import sys

from mlops_llm.tracking import clock


def test_a_process_that_was_sent_here_tells_heartbeats_in_the_time_of_who_sent_it() -> None:
    """Until the server's answers tell a time."""
    told = "import time; from mlops_llm.tracking import clock; print(clock.now() - time.time())"
    done = subprocess.run(
        [sys.executable, "-c", told], env={**os.environ, clock.CLOCK: "3600"}, capture_output=True, text=True, check=True
    )
    assert abs(float(done.stdout) + 3600) < 1
