"""Import of torch and transformers, and what goes wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mlops_llm.errors import UserError


@contextmanager
def imported() -> Iterator[None]:
    """Import of torch and transformers."""
    try:
        yield
    except (ImportError, RuntimeError) as error:
        explain_torchvision(error)
        raise


def explain_torchvision(error: BaseException) -> None:
    """A torchvision made for another torch breaks transformers, which text models never need.

    Raises:
        UserError: that is what the error is about.
    """
    seen: BaseException | None = error
    while seen is not None:
        if re.search("torchvision|torchaudio|torchcodec", str(seen)):
            raise UserError(
                "the installed torchvision does not fit this torch, and transformers trips over it",
                remedy="remove it: pip uninstall -y torchvision torchaudio torchcodec",
            ) from error
        seen = seen.__cause__ or seen.__context__
