"""Reading datasets: batches in order, in bounded memory, reading only the columns and rows asked for.

Part files are sorted inside but may overlap each other (several writers, rotations). The order over all of
them comes from a sweep: row groups are read in the order of their smallest key, and rows are given out once
no unread row group can hold a smaller one. Memory is bounded by the row groups that overlap at one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from replay.errors import InputError
from replay.model import Exchange, Result
from replay.store import metadata
from replay.store.compact import recover
from replay.store.schema import KINDS, TIME_KEY
from replay.store.sealing import data_key, decryption_properties, scan_options

BATCH_ROWS = 4096

DAMAGE = (pa.ArrowException, RuntimeError, UnicodeDecodeError, OverflowError, OSError)
"""What reading a damaged part file raises, depending on what is damaged."""


@dataclass(frozen=True, slots=True)
class _RowGroup:
    lowest: Any
    fragment: ds.ParquetFileFragment


class Shared(NamedTuple):
    """Some rows, of which some are mine: `told` of all of them, `mine` in full; `mask` tells which they are."""

    told: pa.RecordBatch
    mine: pa.RecordBatch
    mask: pa.BooleanArray


class Dataset:
    """One capture or run, opened for reading."""

    def __init__(self, path: Path, kind: str, meta: dict[str, Any]) -> None:
        self.path = path
        self.kind = kind
        self.meta = meta

    @classmethod
    def open(cls, path: Path, kind: str | None = None) -> Dataset:
        """Open a dataset, recovering what a crashed writer left. `InputError` where it is none."""
        found = metadata.kind_of(path)
        if kind is not None and kind != found:
            raise InputError(f"{path} is a {found}, and a {kind} is needed here")
        meta = metadata.load(path, found)
        data_key(path, meta)
        if any(path.glob("journal-*")) and recover(path, found):
            meta = metadata.load(path, found)
        return cls(path, found, meta)

    @property
    def parts(self) -> list[Path]:
        return sorted(self.path.glob("part-*.parquet"))

    @property
    def count(self) -> int:
        """Rows in the dataset."""
        return sum(_footer(path).num_rows for path in self.parts)

    def spans(self, key: str) -> Iterator[tuple[Any, Any, int]]:
        """Of every row group the smallest and the largest `key`, and its size in bytes, uncompressed."""
        for path in self.parts:
            yield from _bounds(path, key)

    def batches(
        self,
        columns: Sequence[str] | None = None,
        where: ds.Expression | None = None,
        order_by: Sequence[str] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Batches sorted by `order_by` (default: by time), with column and predicate push-down.

        The first name in `order_by` decides what is read when.
        """
        keys = tuple(order_by or (TIME_KEY[self.kind],))
        wanted = list(columns) if columns is not None else KINDS[self.kind].names
        read = [*wanted, *(key for key in keys if key not in wanted)]

        def whole(group: _RowGroup) -> pa.Table:
            # With the schema of today: a column that was added since the file was written is null there.
            schema = KINDS[self.kind]
            return group.fragment.to_table(schema=schema, columns=read, filter=where, use_threads=False)

        try:
            for table in _sweep(self._row_groups(keys[0]), keys, whole):
                yield from table.select(wanted).to_batches(max_chunksize=BATCH_ROWS)
        except DAMAGE as error:
            raise InputError(f"{self.path} cannot be read: {_first_line(error)}") from None

    def shared(
        self, columns: Sequence[str], told: Sequence[str], mine: Callable[[str], bool]
    ) -> Iterator[Shared]:
        """All rows in order of time, in full where the session is one of mine, of the others the columns `told` alone.

        Row groups without such a session are not read beyond these, which must hold `session_id`.
        """
        key = TIME_KEY[self.kind]
        known = list(dict.fromkeys((key, *told)))
        rest = [name for name in columns if name not in known]

        def read(group: _RowGroup) -> pa.Table:
            schema = KINDS[self.kind]
            table = group.fragment.to_table(schema=schema, columns=known, use_threads=False)
            if pc.any(is_mine(table.column("session_id"), mine)).as_py():
                more = group.fragment.to_table(schema=schema, columns=rest, use_threads=False)
            else:
                more = pa.table([pa.nulls(table.num_rows, schema.field(name).type) for name in rest], rest)
            return pa.table([*table.columns, *more.columns], [*known, *rest])

        try:
            for table in _sweep(self._row_groups(key), (key,), read):
                for batch in table.to_batches(max_chunksize=BATCH_ROWS):
                    mask = is_mine(batch.column("session_id"), mine)
                    yield Shared(batch.select(list(told)), batch.filter(mask).select(list(columns)), mask)
        except DAMAGE as error:
            raise InputError(f"{self.path} cannot be read: {_first_line(error)}") from None

    def counts(self, columns: Sequence[str]) -> dict[tuple[Any, ...], int]:
        """How often each combination of values occurs, in columns of few distinct values."""
        found: dict[tuple[Any, ...], int] = {}
        for path in self.parts:
            try:
                file = pq.ParquetFile(path, decryption_properties=decryption_properties(self.path))
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, columns=list(columns), use_threads=False)
                    counted = table.group_by(list(columns)).aggregate([([], "count_all")])
                    for *values, count in to_rows(counted.combine_chunks()):
                        found[tuple(values)] = found.get(tuple(values), 0) + count
            except DAMAGE as error:
                raise InputError(f"{path} is damaged: {_first_line(error)}") from None
        return found

    def rows(
        self, where: ds.Expression | None = None, order_by: Sequence[str] | None = None
    ) -> Iterator[Exchange | Result]:
        """The rows as `Exchange` or `Result`: convenient, and slower than `batches`."""
        noun = Exchange if self.kind == "capture" else Result
        for batch in self.batches(where=where, order_by=order_by):
            yield from (noun(*values) for values in to_rows(batch))

    def files(self) -> ds.Dataset:
        """All part files as one dataset of Arrow's, in no order."""
        return ds.dataset(list(map(str, self.parts)), schema=KINDS[self.kind], format=self._format())

    def _format(self) -> ds.ParquetFileFormat:
        options = scan_options(self.path)
        return ds.ParquetFileFormat(**({} if options is None else {"default_fragment_scan_options": options}))

    def _row_groups(self, key: str) -> list[_RowGroup]:
        groups = []
        form = self._format()
        for path in self.parts:
            for index, (lowest, _, _) in enumerate(_bounds(path, key)):
                fragment = form.make_fragment(str(path), LocalFileSystem(), row_groups=[index])
                groups.append(_RowGroup(lowest, fragment))
        return sorted(groups, key=lambda group: group.lowest)


def to_rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """The rows of a batch as tuples: headers as tuples of pairs, instants as integers of nanoseconds."""
    return zip(*(_values(column) for column in batch.columns), strict=True)


def _values(column: pa.Array) -> list[Any]:
    try:
        return _python(column)
    except UnicodeDecodeError:
        raise InputError("a part file is damaged: it holds text that is none; record again") from None


def _python(column: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        return list(column.cast(pa.int64()).to_pylist())
    if not pa.types.is_list(column.type):
        return list(column.to_pylist())
    # Headers: flattened names and values cut by offsets; a dict for each header line would cost far more.
    flat = column.flatten()
    pairs = list(zip(flat.field(0).to_pylist(), flat.field(1).to_pylist(), strict=True))
    ends = pc.cumulative_sum(pc.list_value_length(column).fill_null(0)).to_pylist()
    return [tuple(pairs[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def is_mine(sessions: Any, mine: Callable[[str], bool]) -> Any:
    """Which of the rows with these session ids are mine: asked once for each session."""
    if isinstance(sessions, pa.ChunkedArray):
        sessions = sessions.combine_chunks()
    coded = sessions.dictionary_encode()
    return pa.array([mine(session) for session in coded.dictionary.to_pylist()], pa.bool_()).take(
        coded.indices
    )


def _sweep(
    groups: list[_RowGroup], keys: tuple[str, ...], read: Callable[[_RowGroup], pa.Table]
) -> Iterator[pa.Table]:
    """Tables in the order of the keys, of row groups in the order of the first."""
    order = [(key, "ascending") for key in keys]
    pending: list[pa.Table] = []
    for group, following in zip(groups, [*groups[1:], None], strict=False):
        table = read(group)
        pending.append(table if _is_in_order(table, keys) else table.sort_by(order))
        if following is None:
            ready, pending = pending, []
        else:
            ready, pending = _split(pending, keys[0], following.lowest)
        if ready:
            merged = pa.concat_tables(ready)
            yield merged.sort_by(order) if len(ready) > 1 else merged


def _is_in_order(table: pa.Table, keys: tuple[str, ...]) -> bool:
    """Whether there is nothing to sort: part files are in order of time as they are written."""
    if table.num_rows < 2:
        return True
    if len(keys) > 1:
        return False
    column = table.column(keys[0])
    ordered = pc.less_equal(column.slice(0, len(column) - 1), column.slice(1))
    return bool(pc.all(ordered).as_py())


def _split(tables: list[pa.Table], key: str, watermark: Any) -> tuple[list[pa.Table], list[pa.Table]]:
    """Rows below the watermark, and the rest; the tables are sorted, so both are slices."""
    below, rest = [], []
    for table in tables:
        column = table.column(key)
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        cut = pc.sum(pc.less(column, watermark)).as_py() or 0
        if cut:
            below.append(table.slice(0, cut))
        if cut < table.num_rows:
            rest.append(table.slice(cut))
    return below, rest


def _bounds(path: Path, key: str) -> tuple[tuple[Any, Any, int], ...]:
    """Of every row group of a file the smallest and the largest `key`, and its size in bytes, uncompressed."""
    try:
        return _known_bounds(path, path.stat().st_mtime_ns, key)
    except DAMAGE as error:
        raise InputError(f"{path} is damaged: {_first_line(error)}") from None


@lru_cache(maxsize=4096)
def _known_bounds(path: Path, changed_at: int, key: str) -> tuple[tuple[Any, Any, int], ...]:
    """Read from the column itself: asked for the statistics of a damaged footer, Arrow ends the process."""
    file = pq.ParquetFile(path, decryption_properties=decryption_properties(path.parent))
    if key not in file.schema_arrow.names:
        raise InputError(f"{path} is damaged, or something else: it has no column {key}")
    found = []
    for group in range(file.num_row_groups):
        column = file.read_row_group(group, columns=[key], use_threads=False).column(key)
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())  # a datetime has no nanoseconds
        bounds = pc.min_max(column).as_py()
        found.append((bounds["min"], bounds["max"], file.metadata.row_group(group).total_byte_size))
    return tuple(found)


def _footer(path: Path) -> pq.FileMetaData:
    try:
        return _known_footer(path, path.stat().st_mtime_ns)
    except DAMAGE as error:
        raise InputError(f"{path} is damaged: {_first_line(error)}") from None


@lru_cache(maxsize=4096)
def _known_footer(path: Path, changed_at: int) -> pq.FileMetaData:
    """Part files appear whole and do not change; a long comparison asks for them again and again."""
    return pq.read_metadata(path, decryption_properties=decryption_properties(path.parent))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
