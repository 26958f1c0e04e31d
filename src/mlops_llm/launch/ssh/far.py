"""The other machine before anything is sent: its folder, its Python, its packages, its clock."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.launch.ssh.connection import Connection
from mlops_llm.tracking.secrets import mask_address

PACKAGE = "mlops-llm"
SKEW = 60.0
"""Seconds by which another clock may differ before a person is told."""
_LISTED = 8
_LOOK = r"""
case $1 in /*) root=$1 ;; "~/"*) root=$HOME/${1#"~/"} ;; *) root=$HOME/$1 ;; esac
(umask 077; mkdir -p "$root/code" "$root/files" "$root/cache" "$root/jobs") || exit 1
for each in code files cache jobs; do
    [ -w "$root/$each" ] || { echo "mkdir: no right to write $root/$each" >&2; exit 1; }
done
touch "$root/.here" || exit 1
python=$2
case $python in "~/"*) python=$HOME/${python#"~/"} ;; esac
[ -n "$python" ] || { [ -x "$root/.venv/bin/python" ] && python=$root/.venv/bin/python; }
python=$(command -v "${python:-python3}")
echo "root=$root"
echo "name=$(uname -n)"
echo "system=$(uname -s)"
echo "now=$(date +%s)"
echo "free=$(df -Pk "$root" | awk 'NR == 2 { print $4 }')"
echo "rsync=$(command -v rsync)"
echo "python=$python"
shift 2
if [ -n "$python" ]; then
    echo "version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')"
    echo "packages=$("$python" -c '
import json, sys
from importlib import metadata
found = {}
for name in sys.argv[2:]:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
answers = False
if sys.argv[1]:
    from urllib.request import urlopen
    try:
        answers = urlopen(sys.argv[1], timeout=5).status == 200
    except Exception as error:
        answers = getattr(error, "code", 500) < 500
print(json.dumps({"found": found, "answers": answers}))' "$@" 2>/dev/null)"
fi
"""


@dataclass(frozen=True)
class Far:
    """What is known of the other machine."""

    name: str
    root: str
    """Its folder for all that is sent, absolute."""
    python: str
    version: str
    packages: Mapping[str, str]
    """Installed of those that were asked for: name -> version."""
    free: int
    """Bytes on the folder's disk."""
    skew: float
    """Seconds by which its clock is ahead."""
    answers: bool
    """The record's server answers it."""


def look(to: Connection, folder: str, python: str, server: str = "") -> Far:
    """See what is there, making the folder.

    Args:
        to: the machine.
        folder: for all that is sent; relative to the home folder there.
        python: its Python; empty is that of `.venv` in the folder, else `python3`.
        server: an address that it is to try, without the password that it may hold.

    Raises:
        LostError: it cannot be reached.
        UserError: it cannot be entered, the folder cannot be written, or what is needed is missing there.
    """
    before = time.time()
    try:
        said = to.ask(_LOOK, folder, python, mask_address(server), *sorted(needed())).decode("utf-8", "replace")
    except UserError as error:
        if "mkdir:" in error.what or "touch:" in error.what:
            raise UserError(f"the folder cannot be written ({error.what})", to.host, "choose another launch.folder") from error
        raise
    found = far(said, (before + time.time()) / 2)
    check(found, said, to.host, python)
    return found


def far(said: str, now: float) -> Far:
    """What the script that looks has found, at a time of this machine's clock."""
    told = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    asked: dict[str, Any] = {}
    with suppress(ValueError):  # it may be no Python at all
        asked = json.loads(told.get("packages") or "{}")
    return Far(
        told.get("name", ""),
        told["root"],
        told.get("python", ""),
        told.get("version", ""),
        asked.get("found", {}),
        int(told.get("free") or 0) * 1024,
        float(told.get("now") or now) - now,
        bool(asked.get("answers")),
    )


def check(found: Far, said: str, host: str, python: str) -> None:
    """See that what is needed is there.

    Raises:
        UserError: rsync, Python, or a package is missing there, or another release than this package works with.
    """
    if "system=Linux" not in said:
        raise UserError("is no Linux machine", host, "choose another launch.host")
    if "rsync=/" not in said:
        raise UserError("rsync is not installed there", host, f"install it: ssh {host} sudo apt-get install rsync")
    if not found.python:
        what = f"there is no {python or 'python3'}"
        raise UserError(
            what, host, f"name one with launch.python=, or make one: ssh {host} python3.11 -m venv {found.root}/.venv"
        )
    where = f"{host}:{found.python}"
    _check_version(found.version, where)
    _check_packages(found, where, host)
    if abs(found.skew) > SKEW:
        way = "ahead" if found.skew > 0 else "behind"
        console.warn(
            f"the clock of {host} is {console.seconds(abs(found.skew))} {way}: times that the run tells are that clock's"
        )


def _check_version(version: str, where: str) -> None:
    from packaging.specifiers import SpecifierSet

    wanted = metadata.metadata(PACKAGE)["Requires-Python"] if _installed() else ">=3.11"
    if not version or version not in SpecifierSet(wanted):
        raise UserError(
            f"is Python {version or 'of no known version'}, and {wanted} is needed", where, "name another: launch.python="
        )


def _check_packages(found: Far, where: str, host: str) -> None:
    missing, unfit = lacking(needed(), found.packages)
    if missing or unfit:
        named = _several([*missing, *(f"{name} {found.packages[name]}" for name in unfit)])
        verb = "is" if len(missing) + len(unfit) == 1 else "are"
        how = "missing" if not unfit else "of an unfit release" if not missing else "missing or of an unfit release"
        wanted = " ".join(f"{name}=={_published(needed()[name][1])}" for name in (*missing, *unfit))
        raise UserError(f"{named} {verb} {how}", where, f"ssh {host} {found.python} -m pip install {wanted}")
    others = drifted(needed(), found.packages)
    if others:
        console.warn(f"{where} has other releases than here, results may differ: {_several(others)}")


def _published(version: str) -> str:
    """A release as a package index names it: without what a build of its own is called by, such as `+cpu`."""
    return version.partition("+")[0]


def _several(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def needed() -> dict[str, tuple[str, str]]:
    """Packages that this one cannot do without: name -> releases that fit, the one here."""
    from packaging.requirements import Requirement

    found = {}
    for line in metadata.requires(PACKAGE) or () if _installed() else ():
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            try:
                found[wanted.name] = (str(wanted.specifier), metadata.version(wanted.name))
            except metadata.PackageNotFoundError:
                continue
    return found


def lacking(wanted: Mapping[str, tuple[str, str]], there: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Packages that are not there, and those of a release that does not fit."""
    from packaging.specifiers import SpecifierSet

    missing = sorted(name for name in wanted if name not in there)
    fits = {name: SpecifierSet(wanted[name][0]).contains(there[name], prereleases=True) for name in wanted if name in there}
    return missing, sorted(name for name, good in fits.items() if not good)


def drifted(wanted: Mapping[str, tuple[str, str]], there: Mapping[str, str]) -> list[str]:
    """Packages whose release there fits but is another: `torch 2.9.1 (here 2.9.0)`."""
    return [
        f"{name} {there[name]} (here {here})" for name, (_, here) in sorted(wanted.items()) if there.get(name, here) != here
    ]


def _installed() -> bool:
    try:
        metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return False
    return True
