from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import SMOKE, ok, train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `tiny` was trained once, as run `first`."""
    folder = tmp_path_factory.mktemp("trained")
    ok(train(folder, *SMOKE, "run_name=first", "seed=7"))
    return folder
