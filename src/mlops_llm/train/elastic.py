"""torchrun whose meeting points are on this machine alone, where its processes are.

torch's own stores listen on every interface, and what is read from them is unpickled: whoever reaches the port could run code.
`python -m mlops_llm.train.elastic` takes torchrun's words; between several nodes it is torchrun as it is. Where a training is
given time to save, it ends at SIGHUP and not at a signal that SLURM sends to every process of a job.
"""

from __future__ import annotations

import importlib
import signal
import socket
from typing import Any

from mlops_llm.launch import stopping
from mlops_llm.train.node import STOPS

_HERE = ("localhost", "127.0.0.1", "::1")


def main() -> None:
    """Be torchrun."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup lets it be ignored
    if stopping.grace():
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)
    keep_here()
    from torch.distributed import run

    run.main()


def keep_here() -> None:
    """Let this process's stores listen on the loopback where they are asked there; before any is made."""
    from torch import distributed

    here = _on_loopback(distributed.TCPStore)
    # What `torch.distributed` calls `rendezvous` is a function of the module of this name.
    for module in ("torch.distributed", "torch.distributed.rendezvous"):
        vars(importlib.import_module(module))["TCPStore"] = here


def _on_loopback(store: Any) -> Any:
    """A kind of store that listens on the loopback when it is to be asked there."""

    class Store(store):  # type: ignore[misc]
        """The same but for where it listens."""

        def __init__(
            self, host_name: str, port: int = 0, world_size: Any = None, is_master: bool = False, *more: Any, **named: Any
        ) -> None:
            """As torch's."""
            if is_master and host_name in _HERE and len(more) < _OF_DOOR and named.get("master_listen_fd") is None:
                door = socket.socket()
                door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                door.bind(("127.0.0.1", port))
                door.listen()
                port = door.getsockname()[1]
                named["master_listen_fd"] = door.detach()
            super().__init__(host_name, port, world_size, is_master, *more, **named)

    return Store


_OF_DOOR = 4
"""Place of `master_listen_fd` behind `is_master`: timeout, wait_for_workers and multi_tenant come before."""


if __name__ == "__main__":
    main()
