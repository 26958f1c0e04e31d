"""People of a server: accounts and rights, by MLflow's own interface.

set -a; . server/admin.env; set +a
python projects/server/users.py add li            # writes li.env, which li's shell reads
python projects/server/users.py add chen --editor
python projects/server/users.py allow li EDIT experiment=sales model=sales
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import warnings
from pathlib import Path
from typing import Any

from address import VARIABLE
from keys import variables

EDITORS = "editors"
"""The role of those who may write to every project and registered model."""
_WORKSPACE = "default"
_KINDS = {"experiment": "experiment", "model": "registered_model"}
_RIGHTS = ("READ", "USE", "EDIT", "MANAGE", "DENY")


class ServerError(Exception):
    """What a person can mend, as one line."""


def main() -> int:
    """Do one thing; 0 done, 2 it cannot be done."""
    asked = _arguments()
    try:
        if not os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http"):
            raise ServerError("MLFLOW_TRACKING_URI names no server; first: set -a; . server/admin.env; set +a")
        print(asked.work(_client(), asked))
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if "mlflow" not in type(error).__module__ and "requests" not in type(error).__module__:
            raise
        print(f"error: the server refuses: {str(error).splitlines()[0][:300]}", file=sys.stderr)
        return 2
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="users.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parts = parser.add_subparsers(required=True, metavar="WHAT")
    add = parts.add_parser("add", help="an account: reads all, begins projects of its own")
    add.add_argument("name")
    add.add_argument("--editor", action="store_true", help="may write to every project and registered model")
    add.add_argument("--to", type=Path, help="file for its variables (./NAME.env)")
    add.set_defaults(work=_add)
    allow = parts.add_parser("allow", help="a right on a project or a registered model")
    allow.add_argument("name")
    allow.add_argument("right", choices=_RIGHTS)
    allow.add_argument("on", nargs="+", help="experiment=NAME or model=NAME")
    allow.set_defaults(work=_allow)
    take = parts.add_parser("take", help="a right back")
    take.add_argument("name")
    take.add_argument("on", nargs="+", help="experiment=NAME or model=NAME")
    take.set_defaults(work=_take)
    password = parts.add_parser("password", help="a new password")
    password.add_argument("name")
    password.add_argument("--to", type=Path, help="file for its variables (./NAME.env)")
    password.set_defaults(work=_password)
    remove = parts.add_parser("remove", help="an account; its runs stay")
    remove.add_argument("name")
    remove.set_defaults(work=_remove)
    return parser.parse_args()


def _add(client: Any, asked: argparse.Namespace) -> str:
    drawn = secrets.token_urlsafe(18)
    client.create_user(asked.name, drawn)
    if asked.editor:
        client.assign_role(asked.name, _editors(client))
    return f"{asked.name} may come in; give them {_kept(asked, drawn)}, which holds the password, and delete it here"


def _allow(client: Any, asked: argparse.Namespace) -> str:
    for kind, there in map(_thing, asked.on):
        client.grant_user_permission(asked.name, kind, there, asked.right)
    return f"{asked.name} has {asked.right} on {', '.join(asked.on)}"


def _take(client: Any, asked: argparse.Namespace) -> str:
    for kind, there in map(_thing, asked.on):
        client.revoke_user_permission(asked.name, kind, there)
    return f"{asked.name} has no right of their own on {', '.join(asked.on)} any more"


def _thing(text: str) -> tuple[str, str]:
    """Kind and id, as MLflow has them, of `experiment=NAME` or `model=NAME`."""
    from mlflow import MlflowClient

    kind, equals, name = text.partition("=")
    if not equals or kind not in _KINDS:
        raise ServerError(f"{text}: give experiment=NAME or model=NAME")
    if kind != "experiment":
        return _KINDS[kind], name
    found = MlflowClient().get_experiment_by_name(name)
    if found is None:
        raise ServerError(f"there is no experiment '{name}'; the first run of a project makes it")
    return _KINDS[kind], str(found.experiment_id)


def _password(client: Any, asked: argparse.Namespace) -> str:
    drawn = secrets.token_urlsafe(18)
    client.update_user_password(asked.name, drawn)
    return f"the new password of {asked.name} is in {_kept(asked, drawn)}"


def _remove(client: Any, asked: argparse.Namespace) -> str:
    client.delete_user(asked.name)
    return f"{asked.name} is removed"


def _editors(client: Any) -> int:
    """Id of the role, which is made at its first use."""
    for each in client.list_roles(_WORKSPACE):
        if each.name == EDITORS:
            return int(each.id)
    made = client.create_role(_WORKSPACE, EDITORS, "may write to every project and registered model")
    for kind in _KINDS.values():
        client.add_role_permission(made.id, kind, "*", "EDIT")
    return int(made.id)


def _kept(asked: argparse.Namespace, drawn: str) -> Path:
    file = asked.to or Path(f"{asked.name}.env")
    told = {"MLFLOW_TRACKING_URI": os.environ.get(VARIABLE) or os.environ["MLFLOW_TRACKING_URI"]}
    told["MLFLOW_TRACKING_USERNAME"] = asked.name
    return variables(file, told | {"MLFLOW_TRACKING_PASSWORD": drawn})


def _client() -> Any:
    warnings.simplefilter("ignore")  # of libraries that the server's code imports
    from mlflow.server import get_app_client

    return get_app_client("basic-auth", tracking_uri=os.environ["MLFLOW_TRACKING_URI"])


if __name__ == "__main__":
    sys.exit(main())
