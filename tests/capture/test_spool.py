"""The spool: never waits, never grows, loses nothing uncounted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from replay.capture.spool import Spool


class Pipe:
    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.is_open = True

    def objects(self) -> list[Any]:
        with os.fdopen(self.read_end, "rb") as file:
            self.is_open = False
            return list(msgpack.Unpacker(file))

    def break_it(self) -> None:
        os.close(self.read_end)
        self.is_open = False


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    if pipe.is_open:
        os.close(pipe.read_end)


def spool(broken: list[str], *, rows: int = 1000, size: int = 1 << 20) -> Spool:
    subject: Spool

    def report() -> dict[str, Any]:
        return {"dropped": dict(subject.dropped)}

    subject = Spool(most_rows=rows, most_bytes=size, report=report, on_broken=broken.append)
    return subject


def frame(number: int) -> bytes:
    return bytes(msgpack.packb([number, b"x" * 20]))


def test_everything_arrives_in_order_and_the_totals_last(pipe: Pipe) -> None:
    subject = spool([])
    for number in range(500):
        subject.put(frame(number))
    subject.start(pipe.write_end)
    for number in range(500, 600):
        subject.put(frame(number))
    assert subject.close(10)
    objects = pipe.objects()
    assert [each[0] for each in objects if isinstance(each, list)] == list(range(600))
    assert {"dropped": {}} in objects


def test_beyond_its_rows_it_drops_and_counts(pipe: Pipe) -> None:
    subject = spool([], rows=10)
    for number in range(25):
        subject.put(frame(number))
    subject.start(pipe.write_end)
    assert subject.close(10)
    objects = pipe.objects()
    assert len([each for each in objects if isinstance(each, list)]) == 10
    assert objects[-1] == {"dropped": {"queue full": 15}}


def test_beyond_its_bytes_it_drops_and_counts() -> None:
    subject = spool([], size=100)
    for number in range(25):
        subject.put(frame(number))
    assert subject.dropped == {"queue full": 25 - 100 // len(frame(0))}


def test_a_stalled_reader_never_stalls_the_writer(pipe: Pipe) -> None:
    subject = spool([], rows=10)
    subject.start(pipe.write_end)
    large = msgpack.packb([0, b"x" * (1 << 17)])
    for _ in range(100):
        subject.put(large)
    assert subject.dropped["queue full"] > 0
    assert not subject.close(0.01)


def test_a_reader_that_is_gone_is_told_once_and_counted(pipe: Pipe) -> None:
    broken: list[str] = []
    subject = spool(broken)
    pipe.break_it()
    subject.start(pipe.write_end)
    for number in range(10):
        subject.put(frame(number))
    assert subject.close(10)
    subject.put(frame(11))
    assert broken == ["Broken pipe"]
    assert subject.broken
    assert 1 <= subject.dropped["recorder gone"] <= 11
