"""`python -m mlops_llm.launch.nodes MACHINE`: what a node looks at before a command that MACHINE sent may begin there."""

from __future__ import annotations

import sys

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.tracking import environment
from mlops_llm.tracking.store import address, database_file

REMEDY = "give the jobs a server: MLFLOW_TRACKING_URI=http://HOST:PORT"
_WRONG = 2


def check_record(sender: str) -> None:
    """See that the record is no file that only the sender's machine may write.

    Args:
        sender: `environment.machine()` of who sent the command.

    Raises:
        UserError: it is one, and this is another machine; or it is not there.
    """
    file, here = database_file(address()), environment.machine()
    if file and not file.exists():
        raise UserError(f"the record is not there on {here.partition('/')[0]}", str(file), REMEDY)
    if file and here != sender:
        raise UserError("the record is a file, and several machines that write it would break it", str(file), REMEDY)


def main(sender: str) -> int:
    """Return 0 where the command may begin, else 2, with one line that says why."""
    try:
        check_record(sender)
    except UserError as error:
        console.fail(str(error))
        return _WRONG
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
