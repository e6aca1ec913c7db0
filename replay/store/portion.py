"""A worker's portion of a capture in a store: a few columns of all exchanges, and all of its own sessions' exchanges.

The copy looks like the whole. Each part file has its full length, its footer and, where they belong, the column chunks
that were fetched; the rest are holes, which take no room. `Dataset.shared` reads of it what is there. More is fetched
into it when the worker takes over sessions of others.

`python -m replay.store.portion ADDRESS DIRECTORY`, with a `Portion` as JSON on standard input, does it in a process of
its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow.parquet as pq

from replay.errors import InputError
from replay.plan.dispatch import share_of
from replay.store.files import appear, make_directory
from replay.store.reader import DAMAGE, is_mine
from replay.store.remote import Store, shown
from replay.store.sealing import decryption_properties

OUTLINE = (
    *("session_id", "started_at", "endpoint", "method", "target"),
    *("host", "scheme", "status", "error"),
)
"""Columns of all exchanges: what every worker's plan needs of them, and what the guard and the kill switch count."""

_STATE = ".portion.json"
_GAP = 64 << 10
"""So many bytes between two chunks are fetched along rather than asked for around."""
_AT_ONCE = 8

Span = tuple[int, int]
"""Where some bytes of a file begin and end."""


class Portion(NamedTuple):
    """Which of how many shares of the sessions (`replay.plan.dispatch.share_of`)."""

    shares: int
    mine: tuple[int, ...]

    def has(self, session_id: str) -> bool:
        """Whether a session is in it."""
        return share_of(session_id, self.shares) in self.mine


def bring(address: str, directory: Path, portion: Portion) -> None:
    """Fetch what is not there yet. `InputError` where there is no capture, or no store."""
    store = Store(address)
    names = store.names()
    if "capture.json" not in names:
        raise InputError(f"{shown(address)} is not a capture: there is no capture.json in it")
    make_directory(directory)
    if not (directory / "capture.json").exists():
        appear(directory / "capture.json", store.get("capture.json"))
    state = directory / _STATE
    whole: dict[str, list[int]] = orjson.loads(state.read_bytes()) if state.exists() else {}
    for name in sorted(name for name in names if name.startswith("part-") and name.endswith(".parquet")):
        have = set(whole.get(name, ()))
        try:
            whole[name] = sorted(have | _bring_part(store, directory / name, names[name], portion, have))
        except (*DAMAGE, IndexError) as error:
            told = (str(error) or type(error).__name__).splitlines()[0][:200]
            raise InputError(f"{shown(address)}: {name} is damaged, or gone: {told}") from None
        appear(state, orjson.dumps(whole))


def _bring_part(store: Store, path: Path, size: int, portion: Portion, have: set[int]) -> set[int]:
    """Fetch of one file what belongs to the portion; the numbers of its row groups that were fetched whole."""
    begun = not path.exists()
    file = path.with_name(f".{path.name}.tmp") if begun else path
    with open(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as copy:

        def get(spans: Iterable[Span]) -> None:
            _fetch(store, path.name, copy.fileno(), spans)

        if begun:
            copy.truncate(size)
            get([(0, 4), _footer(store, path.name, size)])
        footer = pq.ParquetFile(file, decryption_properties=decryption_properties(path.parent))
        groups = range(footer.metadata.num_row_groups)
        if begun:
            get(span for group in groups for span in chunks(footer, group, OUTLINE.__contains__))
        wanted = {group for group in groups if group not in have and _has(footer, group, portion)}
        get(
            span
            for group in sorted(wanted)
            for span in chunks(footer, group, lambda name: name not in OUTLINE)
        )
    if begun:
        file.replace(path)
    return wanted


def _footer(store: Store, name: str, size: int) -> Span:
    """Where a Parquet file's footer is: its length stands in four bytes before the last four."""
    tail = store.read(name, size - 8, 8)
    return max(0, size - 8 - int.from_bytes(tail[:4], "little")), size


def chunks(file: pq.ParquetFile, group: int, wanted: Callable[[str], bool]) -> Iterable[Span]:
    """Where the chunks of the wanted columns are."""
    columns: Any = file.metadata.row_group(group)
    for number in range(columns.num_columns):
        column = columns.column(number)
        if wanted(column.path_in_schema.partition(".")[0]):
            first = column.data_page_offset
            if column.has_dictionary_page and column.dictionary_page_offset:
                first = min(first, column.dictionary_page_offset)
            yield first, first + column.total_compressed_size


def _has(file: pq.ParquetFile, group: int, portion: Portion) -> bool:
    sessions = file.read_row_group(group, columns=["session_id"], use_threads=False).column(0)
    return bool(is_mine(sessions, portion.has).true_count)


def _fetch(store: Store, name: str, descriptor: int, spans: Iterable[Span]) -> None:
    def copy(span: Span) -> None:
        os.pwrite(descriptor, store.read(name, span[0], span[1] - span[0]), span[0])

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(copy, joined(spans, _GAP)))


def joined(spans: Iterable[Span], gap: int) -> list[Span]:
    """The spans in order, those that are near each other as one."""
    found: list[Span] = []
    for first, end in sorted(spans):
        if found and first <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((first, end))
    return found


def main() -> None:
    """Entry point of the process."""
    address, directory = sys.argv[1:]
    try:
        given = orjson.loads(sys.stdin.read())
        bring(address, Path(directory), Portion(given["shares"], tuple(given["mine"])))
    except InputError as error:
        sys.exit(f"replay: {error}")


if __name__ == "__main__":
    main()
