"""The system's ssh and rsync: how they are called, and what goes wrong with them in one line."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlops_llm.errors import UserError
from mlops_llm.launch.elsewhere import LostError

_BROKEN = 255
"""Exit code of ssh itself."""
_SILENT = 20
"""Seconds in which a connection must stand; three unanswered signs of life, five seconds apart, end one that stands."""
PATIENCE = 120.0
"""Seconds that a question may take."""
_STUCK = 600
"""Seconds without a byte after which a copy is given up: a disk there may hang while its machine answers."""
_MARK = "--mlops_llm--"
"""What is printed before it is said by the shell's own files."""
_MISTAKES = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is another than the one known here",
        "see that it is the same machine, then: ssh-keygen -R {host}",
    ),
    (r"Host key verification failed|host key is known for", "its host key is not known here", "accept it once: ssh {host}"),
    (
        r"Permission denied \((publickey|password|keyboard|hostbased|gssapi)",
        "it refuses the key",
        "let it know yours (ssh-copy-id {host}), or load it: ssh-add",
    ),
    (
        r"Could not resolve hostname(?!.*Temporary failure)",
        "no machine has this name",
        "check launch.host, or name it in ~/.ssh/config",
    ),
    (
        r"remote port forwarding failed|administratively prohibited|forwarding is disabled",
        "it does not forward ports to here",
        "allow it there (AllowTcpForwarding), or record on a server that it reaches: MLFLOW_TRACKING_URI",
    ),
    (
        r"Can't open user config file|Bad configuration option|bad configuration options",
        "ssh cannot read its configuration",
        "check launch.config",
    ),
)
"""What ssh says, what that means, and what is to be done."""
_LOST = re.compile(
    r"timed out|io timeout|"
    r"refused|No route|unreachable|closed by|reset by|Broken pipe|not responding|unexpectedly closed|kex_exchange"
)
_NO_SPACE = "has no space left"
_FULL = re.compile(r"No space left on device|Disk quota exceeded")


@dataclass(frozen=True)
class Connection:
    """A machine as the system's ssh reaches it: the user's configuration, agent and jump hosts count."""

    host: str
    config: str = ""
    """ssh's configuration file; empty is the user's own."""

    def argv(self, *more: str, shared: bool = True) -> list[str]:
        """The ssh command up to the host.

        Args:
            more: options.
            shared: over the connection that other commands of this user use too.
        """
        options = [
            "BatchMode=yes",
            f"ConnectTimeout={_SILENT}",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=3",
            *(_shared() if shared else ("ControlMaster=no", "ControlPath=none")),
        ]
        own = ["-F", self.config] if self.config else []
        return ["ssh", *own, *(word for each in options for word in ("-o", each)), *more, self.host]

    def ask(self, script: str, *words: str, patience: float = PATIENCE) -> bytes:
        """Run a shell script there and return what it prints.

        Args:
            script: of POSIX sh; `$1`, `$2`, … are the words.
            words: any texts.
            patience: seconds after which the connection counts as lost.

        Raises:
            LostError: the machine cannot be reached.
            UserError: it cannot be entered, or the script fails; what it says last is told.
        """
        text = f"echo {_MARK}\nset -- {shlex.join(words)}\n{script}\n"
        argv = [*self.argv("-T"), "exec sh -s"]
        try:
            done = subprocess.run(argv, input=text.encode(), capture_output=True, timeout=patience, check=False)
        except subprocess.TimeoutExpired as error:
            self.hang_up()
            raise LostError("does not answer", self.host) from error
        except FileNotFoundError as error:
            raise UserError("ssh is not installed here", remedy="install the system's OpenSSH client") from error
        if done.returncode:
            raise self.error(done.returncode, done.stderr.decode("utf-8", "replace"))
        return done.stdout.partition(f"{_MARK}\n".encode())[2]

    def send(self, source: Path | str, target: str, *options: str) -> int:
        """Copy a file, or with a slash behind it a folder's content, to there; return how many bytes travelled."""
        return self._copy([*options, str(source), f"{self.host}:{target}"])

    def fetch(self, source: str, target: Path | str, *options: str) -> int:
        """Copy from there, as `send` does to there."""
        try:
            return self._copy([*options, f"{self.host}:{source}", str(target)])
        except UserError as error:
            if error.what != _NO_SPACE:
                raise
            remedy = "free some; the command goes on there, and op=attend brings the rest"
            raise UserError(_NO_SPACE, str(target), remedy) from error

    def _copy(self, words: Sequence[str]) -> int:
        shell = shlex.join(self.argv()[:-1])
        own = [
            "--recursive",
            "--times",
            "--perms",
            "--partial-dir=.rsync-partial",
            "--protect-args",
            "--stats",
            f"--timeout={_STUCK}",
            f"--rsh={shell}",
        ]
        try:
            done = subprocess.run(["rsync", *own, *words], capture_output=True, check=False, env=os.environ | {"LC_ALL": "C"})
        except FileNotFoundError as error:
            raise UserError("rsync is not installed here", remedy="install it") from error
        if done.returncode:
            raise self.error(done.returncode, done.stderr.decode("utf-8", "replace"))
        return travelled(done.stdout.decode("utf-8", "replace"))

    def hang_up(self) -> None:
        """Let the next command connect anew."""
        with suppress(subprocess.TimeoutExpired):
            subprocess.run([*self.argv("-O", "exit")], capture_output=True, check=False, timeout=_SILENT)

    def error(self, code: int, said: str) -> UserError:
        """What ssh's or rsync's complaint means."""
        for pattern, what, remedy in _MISTAKES:
            if re.search(pattern, said):
                return UserError(what, self.host, remedy.format(host=self.host))
        if _FULL.search(said):
            return UserError(_NO_SPACE, self.host, "free some, or choose another launch.folder")
        lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("rsync error:")]
        last = lines[-1][:300] if lines else f"ended with code {code}"
        if code == _BROKEN or _LOST.search(said):
            return LostError(f"cannot be reached ({last})", self.host, "see that it runs: ssh " + self.host)
        return UserError(last, self.host)


def travelled(stats: str) -> int:
    """Bytes of files' content that rsync moved, as it says with --stats."""
    found = re.search(r"^Literal data: ([\d,.]+)", stats, re.MULTILINE)
    return int(re.sub(r"\D", "", found[1])) if found else 0


def _shared() -> tuple[str, ...]:
    """Options of a connection that stays for a minute, so that a second command need not log in again.

    Its socket lies in a folder of this user alone; where somebody else has the folder's name, each command connects by itself.
    """
    folder = Path(tempfile.gettempdir()) / f"mlops_llm-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
    except OSError:
        return ("ControlPath=none",)
    if about.st_uid != os.getuid() or about.st_mode & 0o077 or folder.is_symlink():
        return ("ControlPath=none",)
    return ("ControlMaster=auto", f"ControlPath={folder}/%C", "ControlPersist=60")
