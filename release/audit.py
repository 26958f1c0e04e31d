"""`make audit`: known vulnerabilities of what an installation consists of, by pip-audit, where its database can be reached.

Exit code 0 where nothing is known, 1 where something is, 2 without pip-audit, and 0 with a line that says so where nothing
could be asked: a machine without a network is no reason to stop, but silence would be taken for safety. pip-audit alone says
"No known vulnerabilities" there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from packages import installed
from packaging.utils import canonicalize_name

PATIENCE = 600
"""Seconds."""
KNOWN = "jinja2==3.1.2"
"""Has vulnerabilities that every database knows: where it is told of none, nothing was asked."""


def main() -> int:
    """Ask, and say what was found."""
    if find_spec("pip_audit") is None:
        print("error: pip-audit is not installed; type: make audit", file=sys.stderr)
        return 2
    own = {one.name for one in installed()[0]}
    control, why = asked(KNOWN)
    if not any(one.get("vulns") for one in control):
        return unasked(len(own), why or "it knows nothing of a package that is known to be unsafe")
    told, why = asked()
    told = [one for one in told if canonicalize_name(str(one["name"])) in own]
    return report(told) if told else unasked(len(own), why)


def asked(package: str = "") -> tuple[list[dict[str, object]], str]:
    """What pip-audit tells of a package, or of all that are installed here; or nothing, and why."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "packages.txt"
        file.write_text(f"{package}\n")
        of = ["-r", str(file), "--no-deps"] if package else ["--local"]
        command = [sys.executable, "-m", "pip_audit", *of, "-f", "json", "--progress-spinner", "off"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return [], f"no answer within {PATIENCE} s"
    try:
        return json.loads(done.stdout)["dependencies"], ""
    except (ValueError, KeyError, TypeError):
        return [], (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1][:120]


def report(told: list[dict[str, object]]) -> int:
    """Say what is known of each package, as pip-audit's JSON tells it."""
    skipped = [one for one in told if "skip_reason" in one]
    bad = [one for one in told if one.get("vulns")]
    for one in bad:
        vulns = one["vulns"]
        assert isinstance(vulns, list)
        for each in vulns:
            fixed = ", ".join(each.get("fix_versions") or ()) or "no release"
            print(f"{one['name']} {one.get('version')}: {each['id']}, mended in {fixed}")
    if len(skipped) == len(told):
        return unasked(len(told), str(skipped[0]["skip_reason"]) if skipped else "there is nothing to ask about")
    left = f"; {len(skipped)} are not in the database: {', '.join(str(one['name']) for one in skipped)}" if skipped else ""
    print(f"{len(told) - len(skipped)} packages audited, {len(bad)} with known vulnerabilities{left}")
    return 1 if bad else 0


def unasked(count: int, why: str) -> int:
    """Say that nothing is known."""
    print(f"NOT AUDITED: nothing is known of {count} packages: the database of vulnerabilities cannot be reached ({why})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
