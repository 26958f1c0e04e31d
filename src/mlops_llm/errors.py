"""What a user is told when a request cannot be carried out."""

from __future__ import annotations

import importlib

LONGEST = 600
"""Characters of what is wrong, and of what to do, that are shown: names in a file may be of any length."""


class UserError(Exception):
    """A mistake or a missing thing that the user can mend; shown as one line, without a traceback."""

    def __init__(self, what: str, where: str = "", remedy: str = "") -> None:
        """Keep the three parts.

        Args:
            what: what is wrong.
            where: file, line, field, tensor or setting; may be empty.
            remedy: what to do, as an instruction; may be empty.
        """
        super().__init__(what, where, remedy)
        self.what, self.where, self.remedy = what, where, remedy

    def __str__(self) -> str:
        """Return `where: what (remedy)` on one line."""
        what, remedy = (text if len(text) <= LONGEST else f"{text[:LONGEST]}…" for text in (self.what, self.remedy))
        line = f"{self.where}: {what}" if self.where else what
        if remedy:
            line += f"; {remedy}"
        return printable(" ".join(line.split()))


class RequestError(UserError):
    """The request was wrong, though that was seen only when the work had begun, such as a key that a server refuses."""


def printable(text: str) -> str:
    """A text without anything that a terminal or a file would stumble over: such characters are escaped."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each.isspace() else f"\\u{ord(each):04x}" for each in text)


def need(module: str, extra: str) -> None:
    """Check that an optional library is importable.

    Raises:
        UserError: it is not installed; the pip command is named.
    """
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        raise UserError(f"{module} is not installed", remedy=f"install it with: pip install 'mlops-llm[{extra}]'") from error


def first_line(error: BaseException) -> str:
    """The first line of what a library says, at most 200 characters; its type where it says nothing."""
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__


def unexpected(error: BaseException) -> str:
    """The line for an error that is nobody's known mistake."""
    said = f"{type(error).__name__}: {first_line(error) if str(error).strip() else ''}"
    return f"{said} (unexpected; the traceback is in the run's log, or set HYDRA_FULL_ERROR=1)"
