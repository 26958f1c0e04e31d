"""Secrets that are nowhere but in the environment, and a search for them in whatever form they may be written."""

from __future__ import annotations

import base64
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

NAMES = (
    "OPENAI_API_KEY", "DASHSCOPE_API_KEY", "DEEPSEEK_API_KEY", "ANTHROPIC_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN",
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCESS_KEY", "WANDB_API_KEY", "VLLM_API_KEY", "PGPASSWORD",
    "FLASK_SERVER_SECRET_KEY", "ADMIN_PASSWORD", "JUDGE_KEY", "REWARD_KEY", "HOOK_KEY", "SERVE_KEY",
)  # fmt: skip
ADDRESS = "/".join(("canary", "address+word?9"))
"""Password in the address of the record; it has characters that are written otherwise in an address."""


def environment() -> dict[str, str]:
    """Each variable with a value of its own, which looks like no key that anybody knows."""
    return {name: f"Zc{number:02d}~{name.lower().replace('_', '-')}+/9" for number, name in enumerate(NAMES)}


@cache
def forms(secret: str) -> frozenset[bytes]:
    """A text as it is, percent-encoded, in base64 wherever it begins in a longer text, in hexadecimal, and backwards."""
    plain = secret.encode()
    found = {plain, quote(secret, safe="").encode(), quote(secret).encode(), plain.hex().encode(), plain[::-1]}
    for before in range(3):
        for coded in (base64.b64encode, base64.urlsafe_b64encode):
            text = coded(b"\0" * before + plain)
            found.add(text[(before * 8 + 5) // 6 : (before + len(plain)) * 8 // 6])  # what no neighbour has a part in
    return frozenset(found)


def found_in(content: bytes, secrets: Mapping[str, str]) -> Iterator[str]:
    """Names of the secrets that a content holds; of an archive also those in its files."""
    for name, secret in secrets.items():
        if any(form in content for form in forms(secret)):
            yield name
    if content[:4] == b"PK\3\4":
        with zipfile.ZipFile(BytesIO(content)) as archive:
            for each in archive.namelist():
                yield from found_in(archive.read(each), secrets)


class Watch:
    """Looks at the command lines of all processes as long as it is open."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        """Say what is looked for."""
        self._forms = {name: forms(secret) for name, secret in secrets.items()}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._known: set[bytes] = set()
        self.seen: set[str] = set()
        self.rounds = 0

    def _look(self) -> None:
        while not self._over.wait(0.05):
            self.rounds += 1
            for each in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    self._search(each.read_bytes())

    def _search(self, line: bytes) -> None:
        if line in self._known:
            return
        self._known.add(line)
        for name, known in self._forms.items():
            if any(form in line for form in known):
                self.seen.add(f"{name} in {line!r}")

    def __enter__(self) -> Watch:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End."""
        self._over.set()
        self._thread.join()
