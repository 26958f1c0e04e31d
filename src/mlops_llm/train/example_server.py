"""The example reward server of projects/rlhf, started within this process: for a first run without a second terminal.

`python -m mlops_llm.train.example_server --port 8100` is that server in a process of its own, also where only the package is.
"""

from __future__ import annotations

import importlib.util
import runpy
import threading
from functools import cache
from http.server import ThreadingHTTPServer
from importlib import resources
from pathlib import Path


def file() -> Path:
    """The server's source: of a checkout, or the copy in the wheel."""
    checkout = Path(__file__).parents[3] / "projects" / "rlhf" / "reward_server.py"
    return checkout if checkout.is_file() else Path(str(resources.files("mlops_llm") / "_projects" / "rlhf" / checkout.name))


@cache
def start() -> str:
    """Serve at a free port until the process ends, once; return the address."""
    spec = importlib.util.spec_from_file_location("reward_server", file())
    if spec is None or spec.loader is None:
        raise FileNotFoundError(file())
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = ThreadingHTTPServer(("127.0.0.1", 0), module.Handler)
    threading.Thread(target=server.serve_forever, name="reward server", daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}/rewards"


if __name__ == "__main__":
    runpy.run_path(str(file()), run_name="__main__")
