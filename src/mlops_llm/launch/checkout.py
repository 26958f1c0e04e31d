"""The checkout that this package runs from, as one file that a cluster unpacks: what is committed, and what is not yet."""

from __future__ import annotations

import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlops_llm import console, digest
from mlops_llm.errors import UserError, first_line
from mlops_llm.tracking import environment

SOURCES = "src"
"""Folder of the checkout that Python is to find the package in."""


class Checkout:
    """A state of code."""

    def __init__(self, folder: Path | None = None) -> None:
        """Find the checkout around a folder, or around this package.

        Raises:
            UserError: there is none, since the package is installed.
        """
        root = environment.checkout(folder or Path(__file__).parent)
        if root is None or not (root / SOURCES / "mlops_llm").is_dir():
            remedy = "install the same release on the cluster, and leave launch.code out"
            raise UserError("this package does not run from a checkout, so there is no code to send", "launch.code", remedy)
        self.root = root
        listed = environment.git(root, "ls-files", "--cached", "--others", "--exclude-standard", "-z", strip=False)
        self._files = sorted({name for name in listed.split("\0") if name and (root / name).is_file()})

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum((self.root / name).stat().st_size for name in self._files)

    @property
    def largest(self) -> str:
        """The largest file."""
        return max(self._files, key=lambda name: (self.root / name).stat().st_size)

    @property
    def digest(self) -> str:
        """Of the commit and of every file, committed or not."""
        files = {name: digest.raw(self.root / name) for name in self._files}
        return digest.row({"commit": environment.git(self.root, "rev-parse", "HEAD"), "files": files})

    @contextmanager
    def packed(self) -> Iterator[Path]:
        """A zip of it, for as long as the context lasts.

        The commit comes along without its history, so that the run over there records the same commit and the same changes.
        """
        with tempfile.TemporaryDirectory(prefix="mlops_llm-code-") as name:
            bare, made = Path(name) / "bare", Path(name) / "code.zip"
            self._commit(bare)
            with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as into:
                for each in self._files:
                    into.write(self.root / each, each)
                for path in sorted(bare.rglob("*")):
                    if "hooks" not in path.parts:  # empty folders too: git knows a checkout by its refs/
                        into.write(path, Path(".git") / path.relative_to(bare / ".git"))
            yield made

    def _commit(self, into: Path) -> None:
        clone = ["git", "clone", "--quiet", "--depth", "1", "--no-checkout", f"file://{self.root}", str(into)]
        try:
            subprocess.run(clone, check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            console.warn(f"the run will not know its commit: git says {first_line(ValueError(error.stderr))}")
            return
        # Unpacking may lose who may execute a file, which is no change of the code.
        for words in (("config", "core.fileMode", "false"), ("reset", "--quiet"), ("remote", "remove", "origin")):
            environment.git(into, *words)
