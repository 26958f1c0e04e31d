"""The state of the code that travels: its files, known by one digest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlops_llm
from mlops_llm import digest
from mlops_llm.tracking import environment

_OF_CHECKOUT = ("src/mlops_llm", "conf", "datasets", "projects/rlhf/reward_server.py")
"""What a command reads of a checkout; the wheel has all of it within the package."""
_SKIPPED = ("__pycache__", ".ipynb_checkpoints")


@dataclass(frozen=True)
class Code:
    """Files of this package as it is now, with what is not committed."""

    root: Path
    """They lie below it, and lie so there."""
    files: Mapping[str, Path]
    """Name below the root, as it is to be there -> file."""

    @property
    def digest(self) -> str:
        """One digest of their names and contents."""
        return digest.row({name: digest.raw(file) for name, file in self.files.items()})


def state() -> Code:
    """The code that runs here: of a checkout what git does not ignore, of an installed package all of it."""
    package = Path(mlops_llm.__file__).parent
    checkout = package.parents[1]
    if package.parent.name != "src" or not (checkout / "conf").is_dir():
        return Code(package.parent, {f"src/{file.relative_to(package.parent)}": file for file in _files(package)})
    listed = _known_to_git(checkout) or {
        str(file.relative_to(checkout)) for part in _OF_CHECKOUT for file in _files(checkout / part)
    }
    return Code(checkout, {name: checkout / name for name in sorted(listed)})


def described() -> dict[str, object]:
    """What the run there records of the code: commit and changes, which only this machine knows."""
    tags, patches = environment.code_state()
    return {"tags": tags, "patches": patches}


def _known_to_git(checkout: Path) -> set[str]:
    names = environment.git(
        checkout, "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *_OF_CHECKOUT, strip=False
    )
    return {
        name for name in names.split("\0") if name and (checkout / name).is_file() and not set(_SKIPPED) & {*name.split("/")}
    }


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
        return
    for folder, inner, names in os.walk(place):
        inner[:] = sorted(each for each in inner if each not in _SKIPPED)
        yield from (Path(folder, name) for name in sorted(names) if not name.endswith(".pyc"))
