"""Small captures for tests of the sender."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from replay.model import Exchange
from replay.store.writer import DatasetWriter
from tests.rows import T0, exchange


def write(path: Path, exchanges: Iterable[Exchange]) -> Path:
    writer = DatasetWriter(path, "capture", source={}, settings={})
    for item in exchanges:
        writer.add(item)
    writer.close({})
    return path


def steady(path: Path, count: int, gap_ms: float, connections: int = 4, **values: object) -> Path:
    """`count` GETs, `gap_ms` apart, taking turns on the connections."""
    return write(
        path,
        (
            exchange(
                number,
                started_at=T0 + int(number * gap_ms * 1e6),
                connection_id=f"c{number % connections}",
                session_id=f"s{number % connections}",
                target=f"/{number}",
                endpoint="GET /{id}",
                duration_ns=100_000,
                **values,
            )
            for number in range(count)
        ),
    )
