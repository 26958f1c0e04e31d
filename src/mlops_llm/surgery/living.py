"""A draft that is a model only for as long as the process lives that makes it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mlops_llm.files import write_text
from mlops_llm.models import adapter

_CONFIGS = ("config.json", adapter.CONFIG)
"""Without one of them a folder is no model."""


@contextmanager
def only_while_this_lives(draft: Path) -> Iterator[None]:
    """Within the block the draft's config is a link into this process: it reads like a file, and leads nowhere after a kill.

    So a finished draft can be opened and checked, by transformers and by engines in processes of their own, and what is left of
    it when the check is killed does not look whole. The file itself comes back when the block ends well. Where the system does
    not show the open files of a process (`/proc`), it stays all the time.
    """
    texts = {name: (draft / name).read_text("utf-8") for name in _CONFIGS if (draft / name).is_file()}
    with ExitStack() as stack:
        for name, text in texts.items():
            held = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
            held.write(text)
            held.flush()
            shown = Path(f"/proc/{os.getpid()}/fd/{held.fileno()}")
            if shown.exists():
                (draft / name).unlink()
                (draft / name).symlink_to(shown)
        yield
        for name, text in texts.items():
            write_text(draft / name, text)
