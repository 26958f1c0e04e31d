"""Where datasets lie by name: files and folders of rows in ./datasets, and those that ship."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from mlops_llm.component import near
from mlops_llm.data import hub
from mlops_llm.data.formats import ENDINGS, ending
from mlops_llm.errors import UserError
from mlops_llm.files import expanded


def here() -> Path:
    """The folder in which a user's datasets lie."""
    return Path.cwd() / "datasets"


def shipped() -> Path:
    """The datasets that ship: datasets/ of a checkout, or the copy in the wheel."""
    checkout = Path(__file__).parents[3] / "datasets"
    return checkout if checkout.is_dir() else Path(str(resources.files("mlops_llm") / "_datasets"))


def name(path: Path) -> str:
    """A dataset's name: its file name without ending; a folder's name; on the hub NAME."""
    if hub.is_ref(str(path)):
        return hub.name(str(path))
    if path.is_dir():
        return path.name or path.resolve().name or "rows"
    found = ending(path)
    return path.name[: -len(found)] if found else path.stem


def inside(folder: Path) -> dict[str, Path]:
    """The datasets in a folder by name.

    Files with a known ending, and folders of such files; hidden ones are other programs' business. Where several have one
    name, files go before folders, and the first of `ENDINGS` counts.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=_order) if folder.is_dir() else ():
        if _is_dataset(path):
            found.setdefault(name(path), path.absolute())
    return found


def find(ref: str) -> Path:
    """Find a dataset: a path, the name of a file or folder in ./datasets or among those that ship, a folder, or hf:ORG/NAME.

    Raises:
        UserError: there is none; near names are given.
    """
    direct = expanded(ref)
    if hub.is_ref(ref):
        return direct
    if (direct.exists() or direct.is_symlink()) and not direct.is_dir():
        return direct.absolute()
    known: dict[str, Path] = {}
    for folder in (here(), shipped()):
        if ref and (folder / ref).is_file():
            return (folder / ref).absolute()
        there = inside(folder)
        if ref in there:
            return there[ref]
        known |= there
    if ref and direct.is_dir():
        return direct.absolute()
    for folder in (here(), shipped()):
        if ref and (folder / ref).is_dir():
            return (folder / ref).absolute()
    there_are = f"there are: {', '.join(sorted(known)) or 'none'}"
    if not ref:
        raise UserError("names no dataset", "dataset", there_are)
    raise UserError(f"there is no such dataset{near(ref, known)}", ref, there_are)


def shadows(name: str) -> bool:
    """Whether a dataset of this name in ./datasets would hide one that ships."""
    return shipped() != here() and name in inside(shipped())


def _order(path: Path) -> tuple[bool, int, str]:
    found = ending(path)
    return (path.is_dir(), ENDINGS.index(found) if found else len(ENDINGS), path.name)


def _is_dataset(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    if path.is_dir():
        return any(ending(each) for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
    return bool(ending(path)) and path.is_file()
