"""Fuzz what reads bytes from outside, guided by coverage (atheris): `make fuzz SECONDS=60 [TARGET=rows]`.

What a target makes of an input that it must not be able to make (any exception but a UserError, a hang, a file elsewhere) is
kept in fuzz/crashes/TARGET, from where the ordinary suite replays it; the corpus in fuzz/corpus/TARGET is what runs begin with.
What they find on the way is in fuzz/grown/TARGET (not in git; elsewhere with FUZZ_GROWN=FOLDER): the fewest inputs that reach
as much, from which the next goes on.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "src")]
GROWN = Path(os.environ.get("FUZZ_GROWN", HERE / "grown"))
DEADLINE = 20
"""Seconds of one input, on a machine that does other things too."""


def one(name: str, how: list[str]) -> None:
    """Fuzz one target in this process, which atheris ends, as its arguments say."""
    import atheris

    with atheris.instrument_imports(include=["mlops_llm"]):
        from tests.fuzz.targets import LONGEST, TARGETS, folder

        work = TARGETS[name]
        for each in sorted((HERE / "corpus" / name).glob("*")):
            work(each.read_bytes())  # imports what it needs
    folder()
    # To merge, libFuzzer starts itself again, by what it takes for its own name.
    atheris.Setup([shlex.join([sys.executable, __file__, "--one", name]), *how, f"-max_len={LONGEST}"], work)
    atheris.Fuzz()


def run(name: str, *how: str) -> subprocess.CompletedProcess[str]:
    """Fuzz one target in a process of its own; what it writes as a temporary file is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        words = [sys.executable, __file__, "--one", name, *how]
        told = {**os.environ, "TMPDIR": scratch}
        return subprocess.run(words, capture_output=True, text=True, errors="replace", env=told)


def fuzz(name: str, seconds: int) -> subprocess.CompletedProcess[str]:
    """Fuzz one target, and keep what its corpus has grown by."""
    crashes, grown, corpus = HERE / "crashes" / name, GROWN / name, HERE / "corpus" / name
    for each in (crashes, grown):
        each.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}", f"-timeout={DEADLINE}", "-rss_limit_mb=4096", "-print_final_stats=1"]
    done = run(name, *limits, f"-artifact_prefix={crashes}/", str(grown), str(corpus))
    with tempfile.TemporaryDirectory(prefix="fuzz-merged-") as folder:
        merged = Path(shutil.copytree(corpus, Path(folder) / name))
        if not run(name, "-merge=1", str(merged), str(grown)).returncode:
            for each in grown.iterdir():
                if not (merged / each.name).exists():
                    each.unlink()
    return done


def main() -> int:
    """Fuzz one target, or each in a process of its own, and say what was found."""
    seconds, only = int(os.environ.get("SECONDS_EACH", "60")), sys.argv[1:]
    if only[:1] == ["--one"]:
        one(only[1], only[2:])
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
        done = fuzz(name, seconds)
        said = done.stdout + done.stderr
        count = said.rpartition("stat::number_of_executed_units:")[2].split("\n", 1)[0].strip() or "?"
        found = "nothing" if not done.returncode else next((line for line in said.splitlines() if "Error" in line), said[-300:])
        print(f"{name:15} {count:>10} executions {time.monotonic() - began:6.0f} s  found: {found[:160]}", flush=True)
        if done.returncode:
            failed.append(name)
            Path(tempfile.gettempdir(), f"fuzz-{name}.log").write_text(said)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
