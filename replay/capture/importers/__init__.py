"""Recorded elsewhere, read here: each importer is a generator of exchanges and of words about what is not.

`read(path)` yields `Exchange` for what it takes, `NotTaken` for each record it cannot take, and `Note` where
something taken is not quite as it was on the wire. The caller counts all three: nothing is lost silently.
"""

from __future__ import annotations

import gzip
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, cast

from replay.errors import InputError
from replay.model import Exchange


@dataclass(frozen=True, slots=True)
class NotTaken:
    """A record that did not become an exchange, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something about an exchange that was taken: what differs from the wire."""

    what: str


Item = Exchange | NotTaken | Note
Reader = Callable[[Path], Iterator[Item]]


def reader_for(path: Path, host: str | None = None) -> Reader:
    """The importer for a file, by its content; `InputError` where it is none that can be read.

    `host` is who was asked, for files that do not say it.
    """
    reader = _reader_for(path, host)
    return lambda path: map(_storable, reader(path))


def _storable(item: Item) -> Item:
    """A file can claim times and sizes that no column holds: 64 bits, and years before 2262."""
    if not isinstance(item, Exchange):
        return item
    times = (item.started_at, item.request_ns, item.ttfb_ns, item.duration_ns)
    numbers = (*times, item.request_size, item.response_size)
    if all(number is None or 0 <= number < 1 << 63 for number in numbers):
        return item
    return NotTaken("a time or size beyond all bounds")


def _reader_for(path: Path, host: str | None) -> Reader:
    start = peek(path, 4096)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"{") or start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        from replay.capture.importers import har

        return har.read
    digits, colon, _ = start.partition(b":")
    if colon and digits.isdigit():
        from replay.capture.importers import flowdump

        return flowdump.read
    from replay.capture.importers import accesslog, gor

    if gor.START.match(start):
        return gor.read
    if any(accesslog.LINE.match(line) for line in start.splitlines()[:20]):
        return partial(accesslog.read, host=host)
    raise InputError(f"{path} is none of these: HAR, mitmproxy flow dump, GoReplay file, access log")


@contextmanager
def open_plain(path: Path) -> Iterator[BinaryIO]:
    """The file for reading, unpacked where it is gzip."""
    with path.open("rb") as file:
        if file.peek(2)[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            yield file


def peek(path: Path, size: int) -> bytes:
    """The first bytes of a file, unpacked; `InputError` where it cannot be read."""
    try:
        with open_plain(path) as file:
            return file.read(size)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a directory: name the files to import") from None
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def digest_of(path: Path) -> bytes:
    """What identifies a file by its content: the root of the ids of all that is in it."""
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()


class Lanes:
    """Connections where a file names none: one for each exchange that overlaps others of the same user."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest
        self._free_at: dict[str, list[int]] = defaultdict(list)

    def connection(self, user: str, started: int, duration: int) -> str:
        """For an exchange from `started`, `duration` long (ns); they have to come in order of time."""
        lanes = self._free_at[user]
        ended = started + duration
        for lane, free_at in enumerate(lanes):
            if free_at <= started:
                lanes[lane] = ended
                break
        else:
            lane = len(lanes)
            lanes.append(ended)
        return name_of(self._digest, "lane", user, lane)


def salt_of(digest: bytes, index: int) -> int:
    """48 bits for the exchange id of a file's record: the same file always gives the same ids."""
    return int.from_bytes(blake2b(digest + index.to_bytes(8), digest_size=6).digest())


def name_of(digest: bytes, *parts: object) -> str:
    """16 hex digits that name something within a file."""
    text = "\0".join(map(str, parts)).encode("utf-8", "surrogateescape")
    return blake2b(digest + text, digest_size=8).hexdigest()
