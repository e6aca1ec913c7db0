"""The journal: what was flushed survives whatever happens to the writer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import msgpack
import pytest

from replay.store import metadata
from replay.store.compact import compact, recover
from replay.store.journal import Journal, finished_segments, read_segment
from replay.store.reader import Dataset
from tests.rows import exchange, result


def packed(number: int) -> bytes:
    return msgpack.packb(astuple(result(number)))


def rows(path: Path) -> list[list]:
    return [row for block in read_segment(path) for row in block]


def test_rows_come_back_block_by_block(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "w")
    for number in range(10):
        journal.append(packed(number))
        if number % 4 == 3:
            journal.flush()
    journal.close()
    (segment,) = finished_segments(tmp_path)
    assert [len(block) for block in read_segment(segment)] == [4, 4, 2]
    assert [row[0] for row in rows(segment)] == [result(n).exchange_id for n in range(10)]


def test_a_segment_in_use_is_left_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "w")
    journal.append(packed(0))
    journal.flush()
    assert finished_segments(tmp_path) == []
    journal.close()
    assert len(finished_segments(tmp_path)) == 1


def test_full_segments_end_by_themselves(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "w", segment_bytes=1000)
    for number in range(20):
        journal.append(packed(number))
        journal.flush()
    journal.close()
    segments = finished_segments(tmp_path)
    assert len(segments) >= 3
    assert sum(len(rows(segment)) for segment in segments) == 20


@pytest.mark.parametrize("cut", [1, 5, 11, 13, 100])
def test_a_torn_end_loses_only_the_last_block(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path, "w")
    for number in range(3):
        journal.append(packed(number))
        journal.flush()
    journal.close()
    (segment,) = finished_segments(tmp_path)
    segment.write_bytes(segment.read_bytes()[:-cut])
    assert len(rows(segment)) == 2


def test_a_flipped_bit_ends_the_reading_there(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "w")
    for number in range(3):
        journal.append(packed(number))
        journal.flush()
    journal.close()
    (segment,) = finished_segments(tmp_path)
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(bytes(data))
    assert len(rows(segment)) == 1


def test_compaction_is_idempotent(tmp_path: Path) -> None:
    metadata.create(tmp_path, "run", source={}, settings={})
    journal = Journal(tmp_path, "w")
    for number in (2, 0, 1):
        journal.append(packed(number))
    journal.close()
    (segment,) = finished_segments(tmp_path)
    saved = segment.read_bytes()
    assert compact(tmp_path, "run") == 3
    # As if the machine had stopped between the part's rename and the segment's removal.
    segment.write_bytes(saved)
    assert compact(tmp_path, "run") == 3
    assert list(Dataset.open(tmp_path).rows()) == [result(0), result(1), result(2)]


def test_raw_heads_become_header_lists(tmp_path: Path) -> None:
    metadata.create(tmp_path, "run", source={}, settings={})
    head = b"HTTP/1.1 200 OK\r\nA: 1\r\na:2 \r\nX-Folded: one\r\n  two\r\nEmpty:\r\nL: caf\xe9"
    row = list(astuple(result(0)))
    row[column("response_headers")] = head
    journal = Journal(tmp_path, "w")
    journal.append(msgpack.packb(row))
    journal.close()
    (read,) = Dataset.open(tmp_path).rows()
    assert read.response_headers == (
        ("A", "1"),
        ("a", "2"),
        ("X-Folded", "one two"),
        ("Empty", ""),
        ("L", "caf\xe9"),
    )


def column(name: str) -> int:
    from replay.store.schema import RESULTS

    return RESULTS.names.index(name)


WRITER = """
import sys, msgpack
from dataclasses import astuple
from pathlib import Path
from tests.rows import exchange
from replay.store.journal import Journal
journal = Journal(Path(sys.argv[1]), "w", segment_bytes=20_000)
number = 0
while True:
    journal.append(msgpack.packb(astuple(exchange(number))))
    number += 1
    if number % 10 == 0:
        journal.flush()
        print(number, flush=True)
"""


def test_kill_9_keeps_all_that_was_flushed(tmp_path: Path) -> None:
    metadata.create(tmp_path, "capture", source={}, settings={})
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    try:
        assert process.stdout is not None
        flushed = 0
        for line in process.stdout:
            flushed = int(line)
            if flushed >= 500:
                break
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    dataset = Dataset.open(tmp_path)
    numbers = [row.exchange_id for row in dataset.rows()]
    assert numbers[:flushed] == [exchange(n).exchange_id for n in range(flushed)]
    assert dataset.meta["state"] == "recovered"
    assert dataset.meta["recovered_rows"] == len(numbers)
    assert not list(tmp_path.glob("journal-*"))


def test_two_compactors_do_not_meet(tmp_path: Path) -> None:
    metadata.create(tmp_path, "run", source={}, settings={})
    journal = Journal(tmp_path, "w")
    journal.append(packed(0))
    journal.close()
    import fcntl

    descriptor = os.open(tmp_path / ".compact", os.O_WRONLY | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert compact(tmp_path, "run") == 0
    os.close(descriptor)
    assert recover(tmp_path, "run") == 1
