"""Parquet and Arrow (file and stream form, which Feather and IPC are too), batch by batch."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mlops_llm.data import packed
from mlops_llm.data.delimited import AS_JSON, decoded
from mlops_llm.data.rows import SHOWN, BrokenError, Record, names
from mlops_llm.errors import UserError, first_line

if TYPE_CHECKING:
    import pyarrow as pa

MANY = 1 << 24
"""Rows at which nobody asks how large their file is: those of a real one of 20 kB may be as many."""
ROWS = 1024
"""Rows turned into Python objects at a time."""


def parquet(path: Path, wanted: Sequence[str] = (), at: packed.At = packed.nobody) -> Iterator[Record]:
    """Rows of a Parquet file; a packed one is unpacked into a temporary file first.

    Raises:
        UserError: it is no Parquet file, cut off, encrypted, or has a column that rows cannot have.
        BrokenError: it unpacks to more than a file of its size may.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    with packed.seekable(path) as file:
        _check(file, path, b"PAR1", b"PAR1", "Parquet")
        try:
            source = ParquetFile(file, buffer_size=packed.BLOCK)
            schema = source.schema_arrow
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(f"cannot be read as Parquet ({first_line(error)})", str(path), "write it again") from error
        told = source.metadata
        groups = [told.row_group(number) for number in range(told.num_row_groups)]
        columns = [group.column(number) for group in groups for number in range(group.num_columns)]
        size = file.seek(0, 2)
        _bear(max([told.num_rows, *(each.num_values for each in columns)]), size, MANY)
        _bear(sum(max(0, group.total_byte_size) for group in groups), size, packed.FREE)
        batches = _told(source.iter_batches(ROWS), told.num_rows, at)
        yield from rows(batches, schema, str(path), path.name, wanted)


def arrow(path: Path, wanted: Sequence[str] = (), at: packed.At = packed.nobody) -> Iterator[Record]:
    """Rows of an Arrow file or stream; a packed one is unpacked into a temporary file first.

    Raises:
        UserError: it is neither, or has a column that rows cannot have.
    """
    import pyarrow as pa

    with packed.seekable(path) as file:
        head = file.read(32)
        whole = head.startswith(b"ARROW1")
        if not whole and not head.startswith(b"\xff\xff\xff\xff"):
            raise UserError(f"is {_other(head)}, not Arrow", str(path), "write it again, or give it the right ending")
        if whole:
            _check(file, path, b"ARROW1", b"ARROW1", "Arrow")
        file.seek(0)
        try:
            source = pa.ipc.open_file(file) if whole else pa.ipc.open_stream(file)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(f"cannot be read as Arrow ({first_line(error)})", str(path), "write it again") from error
        batches = (source.get_batch(number) for number in range(source.num_record_batches)) if whole else iter(source)
        yield from rows(_small(batches, file, at), source.schema, str(path), path.name, wanted)


def _told(batches: Iterator[pa.RecordBatch], total: int, at: packed.At) -> Iterator[pa.RecordBatch]:
    done = 0
    for batch in batches:
        done += batch.num_rows
        at(done / total)
        yield batch


def _bear(count: int, size: int, free: int) -> None:
    """See that a file does not hold more than one of its size can, but by saying the same thing over and over.

    Raises:
        BrokenError: it does.
    """
    if count > max(free, packed.RATIO * size):
        raise BrokenError(
            f"unpacks to over {packed.RATIO} times its size (a bomb?)",
            "if that is right, write it again as JSON lines and name that file",
        )


def _small(batches: Iterator[pa.RecordBatch], file: BinaryIO, at: packed.At) -> Iterator[pa.RecordBatch]:
    size = max(1, os.fstat(file.fileno()).st_size)
    done = 0
    for batch in batches:
        done += batch.num_rows
        _bear(done, size, MANY)
        for column in batch.columns:
            _sound(column)
        at(file.tell() / size)
        yield from (batch.slice(begin, ROWS) for begin in range(0, batch.num_rows, ROWS))


def _sound(column: pa.Array) -> None:
    """See that a column's offsets lie within its bytes: pyarrow believes those of an Arrow file, and reads whatever is there.

    Raises:
        BrokenError: they do not. A text that is no UTF-8 is told with its row.
    """
    import pyarrow as pa

    try:
        column.validate(full=True)
    except ValueError as error:
        if "UTF8" not in str(error) or column.type not in (pa.string(), pa.large_string()):
            raise BrokenError(f"is no sound Arrow ({first_line(error)})", "write it again") from error


def _check(file: BinaryIO, path: Path, begins: bytes, ends: bytes, what: str) -> None:
    file.seek(0)
    head = file.read(32)
    size = file.seek(0, 2)
    file.seek(max(0, size - len(ends)))
    tail = file.read()
    file.seek(0)
    if head.startswith(b"PARE") or tail == b"PARE":
        raise UserError("is encrypted", str(path), "write it without encryption")
    if not head.startswith(begins):
        raise UserError(f"is {_other(head)}, not {what}", str(path), "write it again, or give it the right ending")
    if tail != ends or size < 12:
        raise UserError(f"is {what} without its end", str(path), "the file was cut off: copy it again")


def _other(head: bytes) -> str:
    found = packed.sign(head)
    if found:
        return found[0]
    return "text" if head.isascii() and head.decode().strip().isprintable() else "something else"


def rows(
    batches: Iterable[pa.RecordBatch | pa.Table], schema: pa.Schema, where: str, file: str, wanted: Sequence[str] = ()
) -> Iterator[Record]:
    """Rows of batches, numbered from 1; dates, times and decimals become texts, as rows hold what JSON holds.

    Args:
        batches: small ones, as each becomes Python objects at once.
        schema: of all of them.
        where: what they are, for messages.
        file: name put into the records.
        wanted: columns that must be there.

    Raises:
        UserError: a wanted column is missing, or a column holds what rows cannot.
        BrokenError: a batch cannot be read.
    """
    import pyarrow as pa

    _check_columns(schema, where, wanted)
    coded = any(column.endswith(AS_JSON) for column in schema.names)
    floats = [column.name for column in schema if _holds(column.type, pa.types.is_floating)]
    odd = [column.name for column in schema if _holds(column.type, _odd)]
    number = 0
    try:
        for batch in batches:
            for row in batch.to_pylist(maps_as_pydicts="lossy"):
                number += 1
                for column in odd:
                    row[column] = _text(row[column])
                endless = next((column for column in floats if not _finite(row[column])), None)
                if endless:
                    problem = f"holds NaN or Infinity in '{endless[:SHOWN]}', which JSON cannot"
                    yield Record(number, None, problem, "write null, or remove the row", file)
                elif coded:
                    found, problem = decoded(row)
                    yield Record(number, found, problem, "write the cell as JSON" if problem else "", file)
                else:
                    yield Record(number, row, "", "", file)
    except UnicodeDecodeError as error:
        raise BrokenError("holds a text that is not UTF-8", "write the file again", number + 1) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BrokenError(f"is damaged ({first_line(error)[:100]})", "copy or write it again", number + 1) from error


def _check_columns(schema: pa.Schema, where: str, wanted: Sequence[str]) -> None:
    import pyarrow as pa

    for column in schema:
        shown = column.name[:SHOWN]
        if schema.names.count(column.name) > 1:
            raise UserError(f"has two columns called '{shown}'", where, "rename one")
        if _holds(column.type, _binary):
            what = f"the column '{shown}' holds bytes ({column.type!s:.40}), which no row can"
            raise UserError(what, where, "drop it, or cast it to string")
        if _holds(column.type, lambda kind: isinstance(kind, pa.BaseExtensionType)):
            raise UserError(f"the column '{shown}' is of a type of its own ({column.type!s:.40})", where, "drop or cast it")
    missing = [column for column in wanted if column not in schema.names]
    if missing:
        raise UserError(f"has no column '{missing[0][:SHOWN]}'", where, f"it has: {names(schema.names)}")


def _odd(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_temporal(kind) or types.is_decimal(kind))


def _text(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _text(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_text(inner) for inner in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _binary(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _holds(kind: Any, test: Any) -> bool:
    """Whether a type, or one nested in it, passes a test."""
    from pyarrow import types

    if test(kind):
        return True
    if types.is_dictionary(kind):
        return _holds(kind.value_type, test)
    return any(_holds(kind.field(place).type, test) for place in range(kind.num_fields))


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    return not isinstance(value, list) or all(map(_finite, value))
