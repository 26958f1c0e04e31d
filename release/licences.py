"""`make licences`: the licences of what an installation consists of, as docs/licences.md."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from packages import Package, installed

MEANINGS = (
    ("AGPL|Affero", "AGPL", "who offers it over a network must offer the source of the whole: ask a lawyer before serving"),
    ("LGPL|Lesser", "LGPL", "used as a library, nothing follows for your code; a changed copy handed on comes with its source"),
    ("(?<![AL])GPL|GNU General", "GPL", "handing on a work that contains it means handing on its source; using it does not"),
    ("MPL|Mozilla", "MPL", "changed files of it that you hand on stay open; nothing follows for your own files"),
    ("EPL|Eclipse|EUPL|CDDL", "EPL/EUPL/CDDL", "changed files of it that you hand on stay open"),
    ("NVIDIA|Proprietary|CUDA", "proprietary", "its maker's terms hold: read them before handing it on"),
)
"""What is found in a licence's name, what it is called here, and what it means for who uses this project."""


def kind(licence: str) -> tuple[str, str]:
    """What a licence asks for: its family and the meaning; both empty of one that asks for nothing but its text to be kept."""
    if not licence:
        return "unknown", "the package says nothing in its metadata: read the licence in its files"
    for part in re.split(r" AND (?![^()]*\))|; ", licence):
        # `A OR B` leaves the choice: the freer one is taken.
        several = [each for each in re.split(r" OR ", part.strip().removeprefix("(").removesuffix(")")) if each]
        found = [next(((name, said) for sign, name, said in MEANINGS if re.search(sign, each)), ("", "")) for each in several]
        if found and all(name for name, _ in found):
            return found[0]
    return "", ""


def page(packages: Sequence[Package], missing: Sequence[str]) -> Iterator[str]:
    """The lines of the document."""
    families = Counter(kind(one.licence)[0] or "permissive" for one in packages)
    yield "# Licences of what an installation consists of 依赖的许可证"
    yield ""
    yield "Written by `make licences` from the metadata of what is installed; no legal advice. This project is Apache-2.0."
    yield "由 `make licences` 根据已安装软件包的元数据生成；不构成法律意见。本项目自身为 Apache-2.0。"
    yield ""
    yield f"{len(packages)} packages: " + ", ".join(f"{count} {name}" for name, count in families.most_common()) + "."
    yield ""
    yield "## Those that ask for something, or say nothing 有条件的与未说明的"
    yield ""
    yield "Nothing of them is copied into our wheel: pip installs them beside it. 它们都不在我们的 wheel 里，由 pip 另行安装。"
    yield ""
    yield "| package | version | licence | what it means |"
    yield "|---|---|---|---|"
    for one in packages:
        name, said = kind(one.licence)
        if name:
            yield f"| [{one.name}]({one.home}) | {one.version} | {_cell(one.licence) or 'unknown'} | {said} |"
    yield ""
    yield "## Direct dependencies 直接依赖"
    yield ""
    yield "| package | version | licence | of |"
    yield "|---|---|---|---|"
    for one in packages:
        if one.wanted_by:
            yield f"| {one.name} | {one.version} | {_cell(one.licence) or 'unknown'} | {', '.join(one.wanted_by)} |"
    if missing:
        yield ""
        yield f"Named in pyproject.toml and not installed where this was written: {', '.join(missing)}."
    yield ""
    yield "## All others 其余"
    yield ""
    yield (
        "; ".join(f"{one.name} {one.version} ({_cell(one.licence) or 'unknown'})" for one in packages if not one.wanted_by)
        + "."
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")


if __name__ == "__main__":
    sys.stdout.write("\n".join(page(*installed())) + "\n")
