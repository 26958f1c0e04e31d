"""Any bytes give values or one line. `make fuzz` looks further, guided by coverage; what it found is replayed here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

FUZZ = Path(__file__).parents[2] / "fuzz"
KEPT = [
    (name, each)
    for name in TARGETS
    for kind in ("corpus", "crashes")
    for each in sorted((FUZZ / kind / name).glob("*"))
]  # fmt: skip
SEEDS = {name: [each.read_bytes() for other, each in KEPT if other == name] for name in TARGETS}


@pytest.mark.parametrize(("name", "file"), KEPT, ids=[f"{name}-{file.name[:20]}" for name, file in KEPT])
def test_what_was_found_once_is_found_no_more(name: str, file: Path) -> None:
    TARGETS[name](file.read_bytes())


def spoiled(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Seeds that are cut, doubled, or have other bytes somewhere; and any bytes."""

    @st.composite
    def one(draw: st.DrawFn) -> bytes:
        seed = bytearray(draw(st.sampled_from(seeds)))
        for _ in range(draw(st.integers(1, 4))):
            at, length = draw(st.integers(0, len(seed))), draw(st.integers(0, 8))
            seed[at : at + length] = draw(st.binary(max_size=8))
        return bytes(seed[: draw(st.integers(0, len(seed)))] if draw(st.booleans()) else seed)

    return st.one_of(
        one(), st.binary(max_size=200), st.text(max_size=60).map(lambda each: each.encode("utf-8", "surrogatepass"))
    )


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_give_values_or_one_line(name: str) -> None:
    assert SEEDS[name], f"give fuzz/corpus/{name} an input that is read well"

    @settings(max_examples=40)
    @given(spoiled(SEEDS[name]))
    @example(b"")
    def check(content: bytes) -> None:
        TARGETS[name](content)

    check()


def test_what_a_run_grows_is_kept_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    scratch, grown = tmp_path / "scratch", tmp_path / "grown"
    scratch.mkdir()
    told = {**os.environ, "SECONDS_EACH": "1", "FUZZ_GROWN": str(grown), "TMPDIR": str(scratch)}
    done = subprocess.run([sys.executable, str(FUZZ / "run.py"), "conditions"], env=told, capture_output=True, text=True)
    assert done.returncode == 0 and "found: nothing" in done.stdout, done.stdout + done.stderr
    assert list((grown / "conditions").iterdir()) and not list(scratch.iterdir())
