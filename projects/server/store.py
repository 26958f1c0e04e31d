"""Copy what the store holds into a folder, or a folder into the store; what is the same there is not copied again.

set -a; . server/parts.env; set +a
python projects/server/store.py save backup/store
python projects/server/store.py load backup/store
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from parts import BUCKET

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Stored:
    """An object of the store, as it is listed."""

    key: str
    size: int
    tag: str
    """Its ETag: the MD5 of its bytes or, where it came in parts, the MD5 of their MD5s, a dash and their number."""


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
    for each in _listed(client):
        key, file = each.key, folder / each.key
        if not file.resolve().is_relative_to(folder.resolve()):
            raise OSError(f"the store holds a name that leads out of the folder: {key}")
        if file.is_file() and _holds(client, each, file):
            there += 1
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(BUCKET, key, str(file))  # whole or not at all
        copied += 1
    return copied, there


def _load(client: Any, folder: Path) -> tuple[int, int]:
    copied = there = 0
    known = {each.key: each for each in _listed(client)}
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        key = file.relative_to(folder).as_posix()
        if key in known and _holds(client, known[key], file):
            there += 1
            continue
        client.upload_file(str(file), BUCKET, key)
        copied += 1
    return copied, there


def _holds(client: Any, stored: Stored, file: Path) -> bool:
    """Whether a file has an object's bytes; where its tag cannot be had of them, it counts as another."""
    if stored.size != file.stat().st_size:
        return False
    part = stored.size
    if "-" in stored.tag:
        part = int(client.head_object(Bucket=BUCKET, Key=stored.key, PartNumber=1)["ContentLength"])
    return stored.tag == _tag(file, part, in_parts="-" in stored.tag)


def _tag(file: Path, part: int, in_parts: bool) -> str:
    """The ETag that a file has as an object, sent in parts of so many bytes or whole."""
    with file.open("rb") as handle:
        if not in_parts:
            return _md5(handle, part).hex()
        digests = [_md5(handle, part) for _ in range(0, file.stat().st_size, max(part, 1))]
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


def _md5(handle: BinaryIO, left: int) -> bytes:
    """MD5 of the next bytes of a file."""
    digest = hashlib.md5(usedforsecurity=False)
    while left and (block := handle.read(min(left, _BLOCK))):
        digest.update(block)
        left -= len(block)
    return digest.digest()


def _listed(client: Any) -> Iterator[Stored]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for each in page.get("Contents", []):
            if not each["Key"].endswith("/"):
                yield Stored(each["Key"], int(each["Size"]), each["ETag"].strip('"'))


if __name__ == "__main__":
    sys.exit(main())
