"""Copy what the store holds into a folder, or a folder into the store; what is there already is not copied again.

set -a; . server/parts.env; set +a
python projects/server/store.py save backup/store
python projects/server/store.py load backup/store
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parts import BUCKET


def main() -> int:
    """Copy; 0 done, 2 the request or the store is wrong."""
    if len(sys.argv) != 3 or sys.argv[1] not in ("save", "load") or "MLFLOW_S3_ENDPOINT_URL" not in os.environ:
        print(f"error: give save or load and a folder, in a shell that has read parts.env\n\n{__doc__}", file=sys.stderr)
        return 2
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client, folder = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"]), Path(sys.argv[2])
    try:
        copied, there = (_save if sys.argv[1] == "save" else _load)(client, folder)
    except (BotoCoreError, ClientError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{copied} files copied, {there} were there")
    return 0


def _save(client: Any, folder: Path) -> tuple[int, int]:
    copied = there = 0
    for key, size in _listed(client):
        file = folder / key
        if not file.resolve().is_relative_to(folder.resolve()):
            raise OSError(f"the store holds a name that leads out of the folder: {key}")
        if file.is_file() and file.stat().st_size == size:
            there += 1
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(BUCKET, key, str(file))  # whole or not at all
        copied += 1
    return copied, there


def _load(client: Any, folder: Path) -> tuple[int, int]:
    copied = there = 0
    known = dict(_listed(client))
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        key = file.relative_to(folder).as_posix()
        if known.get(key) == file.stat().st_size:
            there += 1
            continue
        client.upload_file(str(file), BUCKET, key)
        copied += 1
    return copied, there


def _listed(client: Any) -> Iterator[tuple[str, int]]:
    """Name and bytes of each object."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for each in page.get("Contents", []):
            if not each["Key"].endswith("/"):
                yield each["Key"], int(each["Size"])


if __name__ == "__main__":
    sys.exit(main())
