"""The scripts of launch=ssh, run by this machine's own shell: what they look for, leave and take away."""

from __future__ import annotations

import http.server
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mlops_llm.errors import UserError
from mlops_llm.launch.ssh import far, storage
from mlops_llm.launch.ssh.connection import Connection


@dataclass(frozen=True)
class Near(Connection):
    """This machine, as if it were the other one."""

    host: str = "gpu1"
    asked: list[tuple[str, ...]] = field(default_factory=list)
    """Words of the scripts so far."""
    rsync: Callable[[Near, str, str], int] | None = None
    """What stands for it."""

    def argv(self, *more: str, shared: bool = True) -> list[str]:
        """A shell in place of ssh and its host."""
        return ["sh", "-c"]

    def ask(self, script: str, *words: str, patience: float = 120.0) -> bytes:
        """Run a script, and remember its words."""
        self.asked.append(words)
        return super().ask(script, *words, patience=patience)

    def send(self, source: Path | str, target: str, *options: str) -> int:
        """Copy by what stands for rsync."""
        assert self.rsync is not None
        return self.rsync(self, str(source), target)


@pytest.fixture
def to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Near:
    """A machine with an empty home folder."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Near()


@pytest.fixture
def record() -> Iterator[str]:
    """Address, with a password, of a server that wants one."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://me:pw-of-mine@127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_record_with_a_password_is_tried_without_it(to: Near, record: str) -> None:
    assert far.look(to, "f", sys.executable, record).answers
    assert not [word for words in to.asked for word in words if "pw-of-mine" in word]


@pytest.mark.parametrize("folder", [".", "team", "new"])
def test_a_folder_that_is_there_keeps_its_rights_and_what_is_made_is_for_this_user_alone(
    to: Near, folder: str, tmp_path: Path
) -> None:
    (tmp_path / "home").chmod(0o755)
    (tmp_path / "home/team").mkdir(mode=0o755)
    before = {each: stat.S_IMODE((tmp_path / "home" / each).stat().st_mode) for each in (".", "team")}
    root = tmp_path / "home" / folder
    found = far.look(to, folder, sys.executable)
    assert Path(found.root) == root
    assert {each: stat.S_IMODE((tmp_path / "home" / each).stat().st_mode) for each in before} == before
    made = [root / each for each in ("code", "files", "cache", "jobs")] + ([root] if folder == "new" else [])
    assert not [each for each in made if each.stat().st_mode & 0o077]


@pytest.mark.parametrize("meanwhile", ["nothing", "sent", "sent and its draft taken"])
def test_the_same_content_may_be_sent_twice_at_once(to: Near, tmp_path: Path, meanwhile: str) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    content = storage.of_path(tmp_path / "rows.jsonl", str(tmp_path / "root"))
    place, draft = Path(content.place), Path(f"{content.place}.part")

    def send(near: Near, source: str, target: str) -> int:
        if meanwhile != "nothing":  # another command is the first
            shutil.copytree(source, place)
        if "taken" in meanwhile:
            shutil.rmtree(draft)
            raise UserError("rsync: mkstemp failed: No such file or directory", near.host)
        shutil.copytree(source, target, dirs_exist_ok=True)
        return 2

    storage.bring_there(Near(rsync=send), [content], 1 << 40)
    assert [each.relative_to(place.parent) for each in place.parent.rglob("*.jsonl")] == [Path(place.name, "rows.jsonl")]
    assert not draft.exists()


def test_content_that_cannot_be_sent_is_an_error(to: Near, tmp_path: Path) -> None:
    def refused(near: Near, source: str, target: str) -> int:
        raise UserError("rsync: write failed", near.host)

    (tmp_path / "rows.jsonl").write_text("{}")
    with pytest.raises(UserError, match="write failed"):
        storage.bring_there(Near(rsync=refused), [storage.of_path(tmp_path / "rows.jsonl", str(tmp_path))], 1 << 40)
