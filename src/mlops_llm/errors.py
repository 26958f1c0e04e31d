"""What a user is told when a request cannot be carried out."""

from __future__ import annotations

import importlib


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
        line = f"{self.where}: {self.what}" if self.where else self.what
        if self.remedy:
            line += f"; {self.remedy}"
        return " ".join(line.split())


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
