"""The journal: what the hot path writes, cheap and crash-safe at once.

A segment is a file of blocks; a block is a header (magic, length, CRC-32) and msgpack rows one after the
other, each a list of values in schema column order. Rows are gathered into blocks of 64 KiB and a block is
one `write`, so a killed process loses at most the block it was gathering and power loss at most what the
kernel had not yet written (see `sync`). A torn last block is recognised by its length and checksum.

Where the dataset is protected the rows of a block are sealed (see `replay.store.sealing`).

A segment is called `journal-<writer>-<number>.open` while its writer, who holds a lock on it, appends to it,
and `.done` after. `replay.store.compact` turns segments into Parquet.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack

from replay.errors import InputError
from replay.store.sealing import Seal, journal_seal

BLOCK_BYTES = 64 << 10
SEGMENT_BYTES = 64 << 20

_HEADER = struct.Struct("<4sII")
_MAGIC = b"RJ1\n"
_SEALED = b"RJ2\n"
# A block holds rows of up to BLOCK_BYTES, then one more row: this bounds what a damaged length may claim.
_LONGEST_BLOCK = 1 << 30


class Journal:
    """Appends rows to segments in `directory`. One writer, one thread. Times and rows are the caller's.

    `writer` names the files and must be unique among the processes that share the directory. With `sync`
    each block is forced to the disk, with `settle` each segment once it is full. Call `flush` at least once a
    second: that bounds what a crash can lose.
    """

    def __init__(
        self,
        directory: Path,
        writer: str,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        sync: bool = False,
        settle: bool = True,
    ) -> None:
        self._directory = directory
        self._writer = writer
        self._segment_bytes = segment_bytes
        self._sync = sync
        self._settle = settle
        self._number = 0
        self._rows: list[bytes] = []
        self._gathered = 0
        self._descriptor: int | None = None
        self._seal: Seal | None = None
        self.size = 0

    @property
    def waiting(self) -> int:
        """Rows gathered and not yet written."""
        return len(self._rows)

    def force(self) -> None:
        """Force what is written to the disk."""
        if self._descriptor is not None:
            os.fdatasync(self._descriptor)

    def append(self, row: bytes) -> None:
        """Add one msgpack-packed row."""
        self._rows.append(row)
        self._gathered += len(row)
        if self._gathered >= BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is gathered as one block, and begin a new segment where this one is full."""
        if not self._rows:
            return
        if self._descriptor is None:
            self._descriptor = self._begin()
        payload, magic = b"".join(self._rows), _MAGIC
        self._rows.clear()
        self._gathered = 0
        if self._seal is not None:
            payload, magic = self._seal.close(payload), _SEALED
        self._write(self._descriptor, _HEADER.pack(magic, len(payload), zlib.crc32(payload)) + payload)
        if self.size >= self._segment_bytes:
            self._finish()

    def rotate(self) -> None:
        """End the current segment, so that it can be compacted; the next row begins another."""
        self.flush()
        self._finish()

    close = rotate

    def discard(self) -> None:
        """Remove the current segment, with all its rows."""
        self._rows.clear()
        self._gathered = 0
        if self._descriptor is not None:
            self._path("open").unlink()
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, descriptor: int, block: bytes) -> None:
        view = memoryview(block)
        while view:
            view = view[os.write(descriptor, view) :]
        self.size += len(block)
        if self._sync:
            os.fdatasync(descriptor)

    def _begin(self) -> int:
        self._seal = journal_seal(self._directory)
        path = self._path("open")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def _finish(self) -> None:
        if self._descriptor is None:
            return
        if self._settle:
            os.fsync(self._descriptor)
        self._path("open").rename(self._path("done"))
        os.close(self._descriptor)
        self._descriptor = None
        self._number += 1
        self.size = 0

    def _path(self, state: str) -> Path:
        return self._directory / f"journal-{self._writer}-{self._number:06d}.{state}"


def read_segment(path: Path) -> Iterator[list[list[Any]]]:
    """The rows of a segment, a block at a time, up to its end or to the first damaged block.

    `InputError` where it is sealed and the key is not at hand.
    """
    seal: Seal | None = None
    with path.open("rb") as file:
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            magic, length, checksum = _HEADER.unpack(header)
            if magic not in (_MAGIC, _SEALED) or length > _LONGEST_BLOCK:
                return
            payload = file.read(length)
            if len(payload) < length or zlib.crc32(payload) != checksum:
                return
            if magic == _SEALED:
                seal = seal or journal_seal(path.parent)
                if seal is None:
                    raise InputError(f"{path} is sealed, and nothing beside it says with which key")
                try:
                    payload = seal.open(payload)
                except InputError as error:
                    raise InputError(f"{path} cannot be opened: {error}") from None
            yield list(unpack_rows(payload))


def unpack_rows(payload: bytes) -> Iterator[list[Any]]:
    """The rows in a block's payload."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(payload))
    unpacker.feed(payload)
    yield from unpacker


def finished_segments(directory: Path) -> list[Path]:
    """Segments that no living writer holds: `.done`, and `.open` ones whose writer is gone, oldest first."""
    done = list(directory.glob("journal-*.done"))
    orphans = [path for path in directory.glob("journal-*.open") if not _is_held(path)]
    return sorted(done + orphans)


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        # Its writer has just renamed it: it is there as `.done` the next time.
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
