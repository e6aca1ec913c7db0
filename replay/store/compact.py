"""Journal segments become Parquet part files: behind the hot path, or at the next opening after a crash.

Compacting is idempotent: a part carries its segment's name and appears whole before the segment goes, so a
crash in between only means that the same part is written once more.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from replay.store import metadata
from replay.store.journal import finished_segments, read_segment
from replay.store.redacting import refiner
from replay.store.schema import KINDS
from replay.store.tables import to_batch, write_part

Rows = list[list[Any]]


def compact(
    directory: Path, kind: str, *, refine: Callable[[Rows], Rows] | None = None, wait: bool = False
) -> int:
    """Turn every finished or orphaned segment into a part file; returns the rows written.

    `refine` may rewrite the rows of a segment (to name endpoints with all of them seen, for one).
    One process compacts a directory at a time; a second one finds nothing to do, or waits its turn.
    """
    with _only_one(directory, wait) as mine:
        if not mine:
            return 0
        return sum(_compact_segment(path, kind, refine) for path in finished_segments(directory))


def recover(directory: Path, kind: str) -> int:
    """Make a crashed dataset readable: compact what its writers left and say so in the metadata."""
    rows = compact(directory, kind)
    if rows:

        def change(meta: metadata.Metadata) -> None:
            meta["recovered_rows"] = meta.get("recovered_rows", 0) + rows
            if meta["state"] == "open":
                meta["state"] = "recovered"

        metadata.update(directory, kind, change)
    return rows


def _compact_segment(path: Path, kind: str, refine: Callable[[Rows], Rows] | None) -> int:
    part = path.with_name(f"{path.stem.replace('journal-', 'part-', 1)}.parquet")
    schema = KINDS[kind]
    written = 0
    if refine is None:
        redact = refiner(path.parent, kind)
        blocks = (rows for rows in read_segment(path) if rows)
        batches = [to_batch(redact(rows) if redact else rows, schema) for rows in blocks]
    else:
        everything = [row for rows in read_segment(path) for row in rows]
        batches = [to_batch(refine(everything), schema)] if everything else []
    if batches:
        written = write_part(part, kind, batches)
    path.unlink()
    return written


@contextmanager
def _only_one(directory: Path, wait: bool) -> Iterator[bool]:
    # A file of its own: the directory's lock guards the metadata, which a compactor may need meanwhile.
    descriptor = os.open(directory / ".compact", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
