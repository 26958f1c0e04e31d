"""A SLURM cluster of two nodes on this machine, with accounting, for tests and for looking at things by hand.

`python -m tests.slurm_cluster [FOLDER]`, as root, starts one, prints the line that points SLURM's commands at it, and ends it
at Ctrl-C or SIGTERM. In tests: `with Cluster(folder) as cluster:` and `SLURM_CONF=cluster.conf` in the environment.

Each has ports, sockets, keys and folders of its own and listens on loopback, so that several run side by side. Its daemons are
children of the process that started it, and end with it, also where that is killed.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.ports import own_port

NODES = ("n1", "n2")
CPUS, MEMORY, GPUS = 4, 16000, 1
"""What each node says it has; the memory in MB. A GPU of these is one in name only."""
_NEEDED = ("munged", "slurmctld", "slurmd", "slurmdbd", "sbatch", "sacct", "mariadbd", "mariadb-install-db")
_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
_PATIENCE = 90.0
_SLURM = """
ClusterName=tests
SlurmctldHost={host}
SlurmctldPort={ports[slurmctld]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
StateSaveLocation={folder}/state
SlurmUser=root
SlurmdUser=root
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdSpoolDir={folder}/spool-%n
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
MessageTimeout=60
SlurmdTimeout=300
SlurmctldTimeout=300
InactiveLimit=0
MinJobAge=300
KillWait=10
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1,default_queue_depth=50
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=2000
JobRequeue=1
EnforcePartLimits=ALL
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={host}
AccountingStoragePort={ports[slurmdbd]}
AccountingStoragePass={folder}/munge.socket
AccountingStoreFlags=job_comment
AccountingStorageEnforce=associations,qos
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[n1]} CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[n2]} CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus}
PartitionName=normal Nodes=n1,n2 Default=YES MaxTime=60 DefaultTime=10 PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=urgent Nodes=n1,n2 MaxTime=60 DefaultTime=10 PriorityTier=10 PreemptMode=OFF
"""
_SLURMDBD = """
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={ports[slurmdbd]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports[mariadbd]}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
"""
_OPTIONS = {
    "munged": """--foreground --force --key-file={folder}/munge/key --socket={folder}/munge.socket
        --pid-file={folder}/munge/pid --log-file={folder}/munge/log --seed-file={folder}/munge/seed""",
    "mariadbd": """--no-defaults --user=root --datadir={folder}/database --socket={folder}/db.socket
        --bind-address=127.0.0.1 --port={ports[mariadbd]} --pid-file={folder}/mariadbd.pid --init-file={folder}/rights.sql
        --innodb-flush-log-at-trx-commit=0 --innodb-buffer-pool-size=32M --innodb-lock-wait-timeout=900
        --tmpdir={folder}/tmp --skip-name-resolve --performance-schema=OFF""",
}


def missing() -> str:
    """Why no cluster can be started here; empty where one can."""
    lacking = [name for name in _NEEDED if not _program(name)]
    if lacking:
        return f"not installed: {', '.join(lacking)} (apt-get install slurm-wlm slurmdbd munge mariadb-server)"
    return "" if os.geteuid() == 0 else "slurmctld and slurmd are started as root"


class Cluster:
    """The daemons of a cluster: munged, mariadbd, slurmdbd, slurmctld and a slurmd for each of `NODES`.

    Partitions: `normal` (default) and `urgent`, which preempts it: the steps of a job get SIGTERM; what is still there after
    20 seconds is killed and requeued. Both let a job run for an hour. Accounts: `research` (default) and `sales`. A requeued
    job starts again after some five seconds.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Choose a folder, which must be short: the path of a socket has about 100 characters."""
        self._own = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-")) if folder is None else folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        self.conf = self.folder / "slurm.conf"
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        """Name -> process; those of the nodes are called as these are."""

    @property
    def environment(self) -> dict[str, str]:
        """What SLURM's commands need to find this cluster."""
        return {"SLURM_CONF": str(self.conf)}

    def __enter__(self) -> Self:
        """Start it, and wait until both nodes are idle (some five seconds)."""
        try:
            self._write()
            self._begin_accounting()
            self.begin("slurmctld")
            self._until(lambda: self._answers("scontrol", "ping"), "slurmctld")
            self._name_accounts()
            for node in NODES:
                self.begin(node)
            self._until(lambda: self.states() == ["idle", "idle"], *NODES)
        except BaseException:
            self.end_all()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        """End it."""
        self.end_all()

    def run(self, *words: str, check: bool = True, environment: Mapping[str, str] | None = None) -> str:
        """What one of SLURM's commands prints.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        env = {**os.environ, **self.environment, **(environment or {})}
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise subprocess.CalledProcessError(done.returncode, words, done.stdout, done.stderr)
        return done.stdout if check else done.stdout + done.stderr

    def job(self, number: str) -> dict[str, str]:
        """What the controller says of a job, by SLURM's own words; empty where it knows none."""
        said = self.run("scontrol", "--oneliner", "show", "job", number, check=False)
        return dict(word.split("=", 1) for word in said.splitlines()[0].split() if "=" in word) if "JobId=" in said else {}

    def states(self) -> list[str]:
        """States of the nodes."""
        return self.run("sinfo", "--Node", "--noheader", "--partition=normal", "--format=%T", check=False).split()

    def begin(self, name: str) -> None:
        """Start a daemon, or start it again: `munged`, `mariadbd`, `slurmdbd`, `slurmctld`, `n1`, `n2`."""
        self.daemons[name] = self._start(name, self._command(name))

    def end(self, name: str, number: int = signal.SIGTERM) -> None:
        """End a daemon; at `SIGKILL` a node's job processes stay."""
        process = self.daemons.pop(name)
        process.send_signal(number)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def end_all(self) -> None:
        """End everything, jobs first."""
        if "slurmctld" in self.daemons:
            self.run("scancel", "--user=root", "--signal=KILL", "--full", check=False)
            self.run("scancel", "--user=root", check=False)
            self._until(lambda: not self.run("squeue", "--noheader", check=False).strip(), seconds=15, needed=False)
        for name in ("n2", "n1", "slurmctld", "slurmdbd", "mariadbd", "munged"):
            if name in self.daemons:
                self.end(name)
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self) -> None:
        for name in ("state", "munge", "tmp", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(exist_ok=True)
        _secret(self.folder / "munge" / "key", secrets.token_bytes(128))
        self._ports = {name: own_port() for name in ("slurmctld", "slurmdbd", "mariadbd", *NODES)}
        self._password = secrets.token_hex(16)
        values = {"host": socket.gethostname(), "folder": self.folder, "ports": self._ports, "password": self._password}
        values |= {"cpus": CPUS, "memory": MEMORY, "gpus": GPUS}
        self.conf.write_text(_SLURM.format_map(values))
        (self.folder / "gres.conf").write_text("Name=gpu File=/dev/zero\n")
        _secret(self.folder / "slurmdbd.conf", _SLURMDBD.format_map(values).encode())

    def _begin_accounting(self) -> None:
        data = self.folder / "database"
        making = [_program("mariadb-install-db"), "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db"]
        making += [f"--tmpdir={self.folder}/tmp"]  # two that start at once would meet in /tmp
        making += ["--auth-root-authentication-method=normal", "--innodb-log-file-size=8M"]
        done = subprocess.run(making, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"mariadb-install-db: {done.stdout}{done.stderr}")
        rights = f"CREATE USER slurm@'127.0.0.1' IDENTIFIED BY '{self._password}';\n"
        rights += "GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1';\n"
        _secret(self.folder / "rights.sql", rights.encode())
        self.begin("munged")
        self.begin("mariadbd")
        self._until(lambda: _listens(self._ports["mariadbd"]) and (self.folder / "munge.socket").exists(), "mariadbd")
        self.begin("slurmdbd")
        self._until(lambda: _listens(self._ports["slurmdbd"]), "slurmdbd")

    def _name_accounts(self) -> None:
        ask = ("sacctmgr", "--immediate", "--quiet", "add")
        self._until(lambda: bool(self.run("sacctmgr", "--noheader", "--parsable2", "show", "cluster", check=False)), "slurmdbd")
        self.run(*ask, "account", "research,sales", "cluster=tests", check=False)
        self.run(*ask, "user", "root", "account=research,sales", "defaultaccount=research", "cluster=tests", check=False)

    def _command(self, name: str) -> list[str]:
        if name in NODES:
            return [_program("slurmd"), "-D", "-N", name]
        if name in _OPTIONS:
            options = _OPTIONS[name].format(folder=self.folder, ports=self._ports)
            return [_program(name), *options.split()]
        return [_program(name), "-D"]

    def _start(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        env = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")} | self.environment
        with (self.folder / f"{name}.out").open("ab") as output:
            return subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                preexec_fn=_end_with_parent,
            )

    def _until(self, condition: Callable[[], bool], *names: str, seconds: float = _PATIENCE, needed: bool = True) -> None:
        """Wait for something, as long as the daemons of these names live."""
        until = time.monotonic() + seconds
        while not condition():
            gone = [name for name in names if self.daemons[name].poll() is not None]
            if needed and (gone or time.monotonic() > until):
                raise RuntimeError("\n".join(f"{name} {self._last_words(name)}" for name in gone or names))
            if time.monotonic() > until:
                return
            time.sleep(0.1)

    def _answers(self, *words: str) -> bool:
        return "UP" in self.run(*words, check=False)

    def _last_words(self, name: str) -> str:
        logs = [self.folder / f"{name}.out", self.folder / f"{name}.log"]
        return "\n".join("".join(log.read_text(errors="replace").splitlines(True)[-15:]) for log in logs if log.exists())


def _program(name: str) -> str:
    """Where a program is; daemons are beside the path of many users."""
    return shutil.which(name) or shutil.which(name, path=_PATH) or ""


def _secret(file: Path, content: bytes) -> None:
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_bytes(content)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end_with_parent() -> None:
    """Let this process get SIGTERM when its parent ends (PR_SET_PDEATHSIG), and lead a session of its own."""
    os.setsid()
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _main() -> int:
    why = missing()
    if why:
        print(why, file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit())
    with Cluster(Path(sys.argv[1]).absolute() if sys.argv[1:] else None) as cluster:
        print(f"export SLURM_CONF={cluster.conf}", flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(_main())
