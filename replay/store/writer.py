"""Rows straight to Parquet, for work that is not live: imports, samples, tests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from replay.errors import InputError
from replay.model import Exchange, Result
from replay.store import metadata
from replay.store.schema import KINDS
from replay.store.tables import to_batch, write_part

PART_BYTES = 64 << 20
_BATCH_ROWS = 4096

_values = {
    "capture": attrgetter(*(field.name for field in fields(Exchange))),
    "run": attrgetter(*(field.name for field in fields(Result))),
}


class DatasetWriter:
    """Writes one new dataset. `close` completes it; `abort` leaves nothing of it behind.

    Raises `InputError` at once where the directory already holds a dataset.
    """

    def __init__(
        self, directory: Path, kind: str, *, source: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> None:
        if any((directory / f"{name}.json").exists() for name in KINDS):
            raise InputError(f"{directory} already holds a dataset: choose another --out, or remove it")
        self._was_there = directory.exists()
        self._directory = directory
        self._kind = kind
        self._rows: list[tuple[Any, ...]] = []
        self._batches: list[pa.RecordBatch] = []
        self._parts: list[Path] = []
        metadata.create(directory, kind, source=source, settings=settings)

    def add(self, row: Exchange | Result) -> None:
        """Add one row; part files are written as they fill."""
        self._rows.append(_values[self._kind](row))
        if len(self._rows) >= _BATCH_ROWS:
            self._gather()

    def close(self, books: Mapping[str, Any], **more: Any) -> None:
        """Write what is left, then the books: the dataset is complete."""
        self._gather()
        self._write_part()
        metadata.close(self._directory, self._kind, books, **more)

    def abort(self) -> None:
        """Remove what was written."""
        for path in [*self._parts, self._directory / f"{self._kind}.json"]:
            path.unlink(missing_ok=True)
        if not self._was_there:
            self._directory.rmdir()

    def _gather(self) -> None:
        if self._rows:
            self._batches.append(to_batch(self._rows, KINDS[self._kind]))
            self._rows = []
        if sum(batch.nbytes for batch in self._batches) >= PART_BYTES:
            self._write_part()

    def _write_part(self) -> None:
        if not self._batches:
            return
        path = self._directory / f"part-{os.getpid():x}-{len(self._parts):06d}.parquet"
        write_part(path, self._kind, self._batches)
        self._parts.append(path)
        self._batches = []
