"""`make release`: wheel, sdist, SBOM, licences and checksums, in dist/."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from licences import page
from packages import ROOT, installed, project
from sbom import bom


def main(folder: Path) -> int:
    """Build into an empty folder."""
    if folder.is_dir() and any(folder.iterdir()):
        print(f"error: {folder}: is not empty; remove it: make clean", file=sys.stderr)
        return 2
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, check=True, capture_output=True)
    name = f"mlops_llm-{project()['version']}"
    packages, missing = installed()
    (folder / f"{name}.cdx.json").write_text(json.dumps(bom(packages), indent=1, ensure_ascii=False) + "\n", "utf-8")
    (folder / "LICENCES.md").write_text("\n".join(page(packages, missing)) + "\n", "utf-8")
    files = sorted(each for each in folder.iterdir() if each.is_file())
    sums = "".join(f"{hashlib.sha256(each.read_bytes()).hexdigest()}  {each.name}\n" for each in files)
    (folder / "SHA256SUMS").write_text(sums)
    for each in sorted(folder.iterdir()):
        print(f"{each.stat().st_size:>10}  {each.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "dist").absolute()))
