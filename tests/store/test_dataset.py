"""Datasets: what was written is read back, in order, and only what was asked for."""

from __future__ import annotations

import json
import random
from pathlib import Path

import duckdb
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from replay.errors import InputError
from replay.store import metadata, reader, writer
from replay.store.reader import Dataset
from replay.store.schema import EXCHANGES
from replay.store.writer import DatasetWriter
from tests.rows import T0, exchange, result


def write(path: Path, rows: list, kind: str = "capture") -> Path:
    made = DatasetWriter(path, kind, source={"test": 1}, settings={})
    for row in rows:
        made.add(row)
    made.close({"written": len(rows)})
    return path


def test_everything_comes_back_as_it_was(tmp_path: Path) -> None:
    rows = [
        exchange(
            0,
            target="/ü".encode().decode("latin-1"),
            response_headers=(("Set-Cookie", "a"), ("set-cookie", "b")),
        ),
        exchange(1, request_body=None, response_body=None, status=None, error="timeout", duration_ns=None),
        exchange(2, request_body=bytes(range(256)), request_headers=(), sample_weight=20.0),
    ]
    assert list(Dataset.open(write(tmp_path / "c", rows)).rows()) == rows


def test_results_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [result(0), result(1, sent_ns=None, status=None, skipped="upgrade", response_body=None, lap=3)]
    assert list(Dataset.open(write(tmp_path / "r", rows, "run")).rows()) == rows


def test_order_over_many_overlapping_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_BATCH_ROWS", 7)
    monkeypatch.setattr(writer, "PART_BYTES", 1)
    rows = [exchange(number) for number in range(300)]
    shuffled = random.Random(4).sample(rows, len(rows))
    dataset = Dataset.open(write(tmp_path / "c", shuffled))
    assert len(dataset.parts) > 40
    assert list(dataset.rows()) == rows
    assert list(dataset.rows(order_by=("exchange_id",))) == rows


def test_equal_keys_at_the_border_of_parts_are_all_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_BATCH_ROWS", 5)
    monkeypatch.setattr(writer, "PART_BYTES", 1)
    rows = [exchange(number, started_at=T0 + number // 50) for number in range(200)]
    dataset = Dataset.open(write(tmp_path / "c", rows))
    assert sorted(row.exchange_id for row in dataset.rows()) == sorted(row.exchange_id for row in rows)


def test_only_columns_and_rows_asked_for(tmp_path: Path) -> None:
    rows = [exchange(number, endpoint=f"GET /{number % 3}") for number in range(30)]
    dataset = Dataset.open(write(tmp_path / "c", rows))
    batches = list(dataset.batches(("endpoint", "target"), where=ds.field("endpoint") == "GET /1"))
    assert {name for batch in batches for name in batch.schema.names} == {"endpoint", "target"}
    assert [row["target"] for batch in batches for row in batch.to_pylist()] == [
        row.target for row in rows if row.endpoint == "GET /1"
    ]


def test_row_groups_that_cannot_match_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_BATCH_ROWS", 10)
    monkeypatch.setattr(writer, "PART_BYTES", 1)
    dataset = Dataset.open(write(tmp_path / "c", [exchange(number) for number in range(100)]))
    late = ds.field("exchange_id") >= exchange(95).exchange_id
    for part in dataset.parts[:-1]:
        bodies = pq.read_metadata(part).row_group(0).column(list(EXCHANGES.names).index("target"))
        with part.open("r+b") as file:
            file.seek(bodies.data_page_offset)
            file.write(bytes(bodies.total_compressed_size))
    assert len(list(dataset.rows(late))) == 5
    with pytest.raises(InputError):
        list(dataset.rows())
    assert sum(batch.num_rows for batch in dataset.batches(where=late)) == 5


def test_duckdb_reads_the_files(tmp_path: Path) -> None:
    write(tmp_path / "shop", [exchange(n, endpoint=f"GET /{n % 2}") for n in range(5)])
    query = f"select endpoint, count(*) from '{tmp_path}/shop/*.parquet' group by 1 order by 1"
    assert duckdb.sql(query).fetchall() == [("GET /0", 3), ("GET /1", 2)]


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    path = write(tmp_path / "c", [exchange()])
    assert path.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o600}


def test_bodies_have_no_statistics(tmp_path: Path) -> None:
    path = write(tmp_path / "c", [exchange()])
    footer = pq.read_metadata(next(path.glob("*.parquet"))).row_group(0)
    has = {footer.column(i).path_in_schema: footer.column(i).is_stats_set for i in range(footer.num_columns)}
    assert has["started_at"]
    assert not has["response_body"]


def test_abort_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PART_BYTES", 1)
    monkeypatch.setattr(writer, "_BATCH_ROWS", 1)
    made = DatasetWriter(tmp_path / "c", "capture", source={}, settings={})
    made.add(exchange())
    made.abort()
    assert list(tmp_path.iterdir()) == []


def test_a_second_dataset_in_the_same_place_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "c", [exchange()])
    with pytest.raises(InputError, match="already holds a dataset"):
        DatasetWriter(tmp_path / "c", "capture", source={}, settings={})


def test_reading_does_not_keep_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_BATCH_ROWS", 10)
    monkeypatch.setattr(writer, "PART_BYTES", 1)
    monkeypatch.setattr(reader, "BATCH_ROWS", 10)
    dataset = Dataset.open(write(tmp_path / "c", [exchange(number) for number in range(1000)]))
    assert max(batch.num_rows for batch in dataset.batches()) <= 10


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text("x"), "is a file"),
        (lambda path: path.mkdir(), "neither a capture nor a run"),
        (lambda path: (path.mkdir(), (path / "capture.json").write_text("{")), "damaged"),
        (lambda path: (path.mkdir(), (path / "capture.json").write_text("[]")), "names no schema_version"),
        (lambda path: (path.mkdir(), (path / "run.json").write_text('{"schema_version": 1}')), "is a run"),
    ],
)
def test_what_is_no_capture_is_told_in_one_line(tmp_path: Path, make: object, says: str) -> None:
    path = tmp_path / "c"
    make(path)  # type: ignore[operator]
    with pytest.raises(InputError, match=says) as caught:
        Dataset.open(path, "capture")
    assert "\n" not in str(caught.value)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "c", [exchange()])
    meta = json.loads((path / "capture.json").read_text())
    (path / "capture.json").write_text(json.dumps({**meta, "schema_version": 99}))
    with pytest.raises(InputError, match=r"newer version \(schema 99.*upgrade"):
        Dataset.open(path)


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"x" * 1000])
def test_a_damaged_part_is_told_in_one_line(tmp_path: Path, damage: bytes) -> None:
    path = write(tmp_path / "c", [exchange()])
    next(path.glob("*.parquet")).write_bytes(damage)
    with pytest.raises(InputError, match="damaged") as caught:
        list(Dataset.open(path).rows())
    assert "\n" not in str(caught.value)


def test_metadata_changes_do_not_lose_each_other(tmp_path: Path) -> None:
    metadata.create(tmp_path / "c", "capture", source={}, settings={})

    def add(meta: dict) -> None:
        meta["books"]["n"] = meta["books"].get("n", 0) + 1

    for _ in range(5):
        metadata.update(tmp_path / "c", "capture", add)
    assert metadata.load(tmp_path / "c", "capture")["books"] == {"n": 5}


def test_columns_that_were_added_since_are_null_in_older_files(tmp_path: Path) -> None:
    dataset = Dataset.open(write(tmp_path, [result(number) for number in range(3)], "run"))
    (part,) = dataset.parts
    pq.write_table(pq.read_table(part).drop_columns(["learned", "unbound"]), part)
    found = list(dataset.rows())
    assert [row.exchange_id for row in found] == [result(number).exchange_id for number in range(3)]
    assert [(row.unbound, row.learned or ()) for row in found] == [(None, ())] * 3
