"""Rows to Arrow, columns at a time: the one place that knows how each column is built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from replay.plan.dispatch import share_of
from replay.store.files import atomically
from replay.store.schema import DICTIONARY_COLUMNS, HEADERS, KINDS, TIME_KEY, UNCOUNTED_COLUMNS
from replay.store.sealing import encryption_properties

ROW_GROUP_BYTES = 32 << 20
"""Of so much in order of time, the exchanges of a capture are grouped by session."""

SESSION_GROUPS = 8
SESSION_GROUP_BYTES = 4 << 20
"""Into how many row groups at most, and how large they are at least."""


def to_batch(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Rows in column order → a record batch. Headers are pairs, or the raw head of an answer as bytes."""
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.record_batch(
        [_array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


def split_head(head: bytes) -> list[tuple[str, str]]:
    """The header lines of a raw HTTP/1 head, start line left out; folded lines are joined (RFC 9112, 5.2)."""
    headers: list[tuple[str, str]] = []
    for line in head.decode("latin-1").replace("\r\n", "\n").split("\n")[1:]:
        if line[:1] in (" ", "\t") and headers:
            name, value = headers[-1]
            headers[-1] = (name, f"{value} {line.strip()}")
            continue
        name, colon, value = line.partition(":")
        if colon:
            headers.append((name, value.strip(" \t")))
    return headers


def write_part(path: Path, kind: str, batches: Iterable[pa.RecordBatch]) -> int:
    """Sort by time, write as one Parquet file that appears whole. Returns the number of rows.

    In a capture each row group holds the sessions of one range of their hash (`replay.plan.dispatch.share_of`), so that
    a worker of several need not read those that are others' to send.
    """
    schema = KINDS[kind]
    table = pa.Table.from_batches(batches, schema)
    table = table.take(pc.sort_indices(table, sort_keys=[(TIME_KEY[kind], "ascending")]))
    atomically(path, lambda temporary: _write_table(temporary, kind, table))
    return int(table.num_rows)


def _write_table(path: Path, kind: str, table: pa.Table) -> None:
    path.touch(mode=0o600)
    with pq.ParquetWriter(
        path,
        table.schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=[name for name in DICTIONARY_COLUMNS if name.split(".")[0] in table.column_names],
        write_statistics=[column for column in table.column_names if column not in UNCOUNTED_COLUMNS],
        sorting_columns=pq.SortingColumn.from_ordering(table.schema, [(TIME_KEY[kind], "ascending")]),
        store_schema=True,
        encryption_properties=encryption_properties(path.parent),
    ) as writer:
        for group in _row_groups(kind, table):
            writer.write_table(group, row_group_size=max(1, group.num_rows))


def _row_groups(kind: str, table: pa.Table) -> Iterator[pa.Table]:
    """The table in pieces, each sorted by time as it is."""
    rows = max(1, ROW_GROUP_BYTES // max(1, table.nbytes // max(1, table.num_rows)))
    for start in range(0, max(1, table.num_rows), rows):
        piece = table.slice(start, rows)
        yield from _by_session(piece) if kind == "capture" else (piece,)


def _by_session(table: pa.Table) -> Iterator[pa.Table]:
    groups = min(SESSION_GROUPS, table.nbytes // SESSION_GROUP_BYTES)
    if groups < 2:
        yield table
        return
    sessions = table.column("session_id").combine_chunks().dictionary_encode()
    numbers = [share_of(session, groups) for session in sessions.dictionary.to_pylist()]
    group_of = pa.array(numbers, pa.int8()).take(sessions.indices)
    for number in sorted(set(numbers)):
        yield table.filter(pc.equal(group_of, number))


def _array(column: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if kind == HEADERS:
        return _headers_array(column)
    return pa.array(column, type=kind)


def _headers_array(column: Sequence[Any]) -> pa.Array:
    # Flattened by hand: building structs from Python objects one by one costs several times as much.
    lists = [split_head(item) if isinstance(item, bytes) else item or () for item in column]
    offsets = [0]
    for item in lists:
        offsets.append(offsets[-1] + len(item))
    flat = list(chain.from_iterable(lists))
    names = pa.array([pair[0] for pair in flat], type=pa.string())
    values = pa.array([pair[1] for pair in flat], type=pa.string())
    structs = pa.StructArray.from_arrays([names, values], fields=list(HEADERS.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets, type=pa.int32()), structs, type=HEADERS)
