"""A million pairs for the differ: `python -m tests.bench.pairs DIR [--pairs N] [--kib K]`.

Writes DIR/baseline and DIR/candidate, runs of N exchanges with JSON answers of about K KiB each. The candidate
has another time in every answer, and in one of a thousand a wrong price: what there is to find.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from replay.model import Result, exchange_id
from replay.store.schema import RESULTS
from replay.store.tables import to_batch, write_part

ENDPOINTS = 40
_BATCH = 2048
_PART_ROWS = 32_768
_T0 = 1_700_000_000_000_000_000
_HEADERS = (("Content-Type", "application/json"), ("Server", "shop"), ("Cache-Control", "no-store"))
_WORDS = [f"{word}-{number}" for word in ("oak", "tin", "sea", "ivy", "fog", "elm") for number in range(40)]
_values = attrgetter(*(field.name for field in fields(Result)))


def write(directory: Path, pairs: int, kib: float, *, candidate: bool = False) -> Path:
    """One of the two runs; both draw the same documents."""
    from replay.store import metadata

    metadata.create(directory, "run", source={}, settings={})
    batches: list[Any] = []
    gathered: list[tuple[Any, ...]] = []
    part = 0
    for row in _rows(pairs, kib, candidate):
        gathered.append(row)
        if len(gathered) == _BATCH:
            batches.append(to_batch(gathered, RESULTS))
            gathered = []
        if len(batches) * _BATCH >= _PART_ROWS:
            write_part(directory / f"part-{part:06d}.parquet", "run", batches)
            batches, part = [], part + 1
    if gathered:
        batches.append(to_batch(gathered, RESULTS))
    if batches:
        write_part(directory / f"part-{part:06d}.parquet", "run", batches)
    books = {"planned": pairs, "sent": pairs, "answered": pairs, "failed": {}, "skipped": {}, "statuses": {}}
    metadata.close(directory, "run", books)
    return directory


def _rows(pairs: int, kib: float, candidate: bool) -> Iterator[tuple[Any, ...]]:
    draw = random.Random(7)
    items = max(1, int(kib * 1024 / 75))
    build = random.Random(9 if candidate else 8)
    for number in range(pairs):
        started = _T0 + number * 1_000_000
        listed = ",".join(
            f'{{"id":{draw.randrange(10**6)},"name":"{draw.choice(_WORDS)}","price":{draw.randrange(9999)},"tags":["{draw.choice(_WORDS)}"]}}'
            for _ in range(items)
        )
        total = number % 977 + (candidate and number % 1000 == 500)
        body = f'{{"at":{build.random()},"total":{total},"items":[{listed}]}}'.encode()
        took = 2_000_000 + build.randrange(1_000_000)
        row = Result(
            exchange_id(started, number), 0, f"s{number % 5000}", f"c{number % 5000}",
            f"GET /{number % ENDPOINTS}/{{id}}", number * 1_000_000, number * 1_000_000 + 5_000, 0, None, None,
            took - 1000, took, True, True, None, None, 200, _HEADERS, body, len(body), False, None, None, (), None,
        )  # fmt: skip
        yield _values(row)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--kib", type=float, default=2.0)
    given = parser.parse_args()
    for role in ("baseline", "candidate"):
        write(given.directory / role, given.pairs, given.kib, candidate=role == "candidate")


if __name__ == "__main__":
    main()
