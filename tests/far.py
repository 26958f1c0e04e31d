"""Another machine, for tests of what goes over ssh: a real sshd of this user on loopback, with a home folder of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from mlops_llm.ports import LOOPBACK
from tests.ports import own_port

HOST = "gpu1"
"""Its name in ssh's configuration."""
_ENTRY = """#!/bin/sh
# What the machine does with each command.
cd "$HOME" || exit 1
[ -f "$HOME/.setting" ] && . "$HOME/.setting"
exec sh -c "${SSH_ORIGINAL_COMMAND:-true}"
"""


class Machine:
    """A machine that `ssh gpu1`, with its `config`, reaches."""

    def __init__(self, folder: Path) -> None:
        """Make its keys, its home folder and the configuration with which it is reached."""
        missing = [name for name in ("ssh", "ssh-keygen", "rsync") if shutil.which(name) is None]
        sshd = shutil.which("sshd") or "/usr/sbin/sshd"
        if missing or not Path(sshd).exists():
            pytest.skip(f"{', '.join(missing) or 'sshd'} is not installed here")
        self.folder, self.home, self.port = folder, folder / "far-home", own_port()
        self.config, self._sshd = folder / "ssh_config", sshd
        self._server: subprocess.Popen[bytes] | None = None
        self.home.mkdir(parents=True)
        for name in ("host", "user", "stranger"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
        (folder / "authorized").chmod(0o600)
        (folder / "entry").write_text(_ENTRY)
        (folder / "entry").chmod(0o755)
        key = " ".join((folder / "host.pub").read_text().split()[:2])
        (folder / "known").write_text(f"[{LOOPBACK}]:{self.port} {key}\n")
        self.write_config()

    def write_config(self, **others: str) -> Path:
        """Write ssh's configuration; what is given replaces a line."""
        lines = {
            "HostName": LOOPBACK,
            "Port": str(self.port),
            "User": getpass.getuser(),
            "IdentityFile": str(self.folder / "user"),
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": str(self.folder / "known"),
            "StrictHostKeyChecking": "yes",
        } | others
        text = "".join(f"    {key} {value}\n" for key, value in lines.items())
        self.config.write_text(f"Host {HOST}\n{text}")
        return self.config

    def known(self) -> dict[str, str]:
        """Variables with which a plain `ssh gpu1` reaches it, as it does where a user's own configuration names it."""
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F "{self.config}" "$@"\n')
        (folder / "ssh").chmod(0o755)
        return {"PATH": f"{folder}:{os.environ['PATH']}"}

    def words(self, *more: str) -> list[str]:
        """Words of a command that sends it here."""
        return ["launch=ssh", f"launch.host={HOST}", f"launch.config={self.config}", f"launch.python={sys.executable}", *more]

    def start(self, path: str = "", **options: str) -> None:
        """Let it run.

        Args:
            path: its PATH; empty is that of this process.
            options: of sshd's configuration.
        """
        given = {
            "ListenAddress": LOOPBACK,
            "Port": str(self.port),
            "HostKey": str(self.folder / "host"),
            "PidFile": "none",
            "AuthorizedKeysFile": str(self.folder / "authorized"),
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "AllowUsers": getpass.getuser(),
            "ForceCommand": str(self.folder / "entry"),
            "SetEnv": " ".join(f"{name}={value}" for name, value in self.environment(path).items()),
        } | options
        file = self.folder / "sshd_config"
        file.write_text("".join(f"{key} {value}\n" for key, value in given.items()))
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self._server = subprocess.Popen([self._sshd, "-D", "-e", "-f", file], stderr=(self.folder / "sshd.log").open("ab"))
        until = time.monotonic() + 30
        while subprocess.run(["ssh", "-F", self.config, HOST, "true"], capture_output=True, check=False).returncode:
            if self._server.poll() is not None or time.monotonic() > until:
                pytest.fail((self.folder / "sshd.log").read_text())
            time.sleep(0.05)

    def environment(self, path: str = "") -> Mapping[str, str]:
        """What every command there finds set."""
        return {"HOME": str(self.home), "PATH": path or os.environ["PATH"], "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def cut(self) -> None:
        """End it and every connection to it; what runs there goes on."""
        if self._server is None:
            return
        sessions = psutil.Process(self._server.pid).children(recursive=True)
        self._server.kill()
        self._server.wait()
        for each in sessions:
            with suppress(psutil.Error):
                if each.name().startswith("sshd"):
                    each.kill()
        self._server = None

    def end(self) -> None:
        """End it, and all that runs there."""
        self.cut()
        for file in self.home.glob("*/jobs/*/job/pid"):
            with suppress(OSError, ValueError):
                os.killpg(int(file.read_text().split()[0]), signal.SIGKILL)

    @contextmanager
    def having(self, setting: str) -> Iterator[None]:
        """Let each command there begin with lines of sh, within the block."""
        file = self.home / ".setting"
        file.write_text(setting)
        try:
            yield
        finally:
            file.unlink()

    def jobs(self) -> Path:
        """Folder of the jobs that were sent."""
        return self.home / "mlops_llm" / "jobs"
