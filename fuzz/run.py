"""Fuzz what reads bytes from outside, guided by coverage (atheris): `make fuzz SECONDS=60 [TARGET=rows]`.

What a target makes of an input that it must not be able to make (any exception but a UserError, a hang, a file elsewhere) is
kept in fuzz/crashes/TARGET, from where the ordinary suite replays it; the corpus in fuzz/corpus/TARGET is what runs begin with.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "src")]
DEADLINE = 20
"""Seconds of one input, on a machine that does other things too."""


def one(name: str, seconds: int) -> None:
    """Fuzz one target in this process, which atheris ends."""
    import atheris

    with atheris.instrument_imports(include=["mlops_llm"]):
        from tests.fuzz.targets import LONGEST, TARGETS, folder

        work = TARGETS[name]
        for each in sorted((HERE / "corpus" / name).glob("*")):
            work(each.read_bytes())  # imports what it needs
    folder()
    crashes = HERE / "crashes" / name
    crashes.mkdir(parents=True, exist_ok=True)
    grown = tempfile.mkdtemp(prefix=f"fuzz-{name}-")
    limits = [f"-max_total_time={seconds}", f"-timeout={DEADLINE}", f"-max_len={LONGEST}", "-rss_limit_mb=4096"]
    told = [*limits, "-print_final_stats=1", f"-artifact_prefix={crashes}/", grown, str(HERE / "corpus" / name)]
    atheris.Setup([sys.argv[0], *told], work)
    atheris.Fuzz()


def main() -> int:
    """Fuzz one target, or each in a process of its own, and say what was found."""
    seconds, only = int(os.environ.get("SECONDS_EACH", "60")), sys.argv[1:]
    if len(only) == 2 and only[0] == "--one":
        one(only[1], seconds)
        return 0
    try:
        import atheris  # noqa: F401
    except ImportError:
        print("atheris is not installed: pip install atheris (Linux, Python 3.11); the suite fuzzes with hypothesis alone")
        return 2
    from tests.fuzz.targets import TARGETS

    failed = []
    for name in only or TARGETS:
        began = time.monotonic()
        done = subprocess.run([sys.executable, __file__, "--one", name], capture_output=True, text=True, errors="replace")
        said = done.stdout + done.stderr
        count = said.rpartition("stat::number_of_executed_units:")[2].split("\n", 1)[0].strip() or "?"
        found = "nothing" if not done.returncode else next((line for line in said.splitlines() if "Error" in line), said[-300:])
        print(f"{name:15} {count:>10} executions {time.monotonic() - began:6.0f} s  found: {found[:160]}", flush=True)
        if done.returncode:
            failed.append(name)
            (HERE / "crashes" / name).mkdir(parents=True, exist_ok=True)
            Path(tempfile.gettempdir(), f"fuzz-{name}.log").write_text(said)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
