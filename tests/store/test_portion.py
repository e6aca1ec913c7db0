"""A portion of a capture: of one's own sessions everything, of the others' an outline, at the price of no more."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from replay.errors import InputError
from replay.model import Exchange
from replay.plan.dispatch import share_of
from replay.store import tables
from replay.store.portion import OUTLINE, Portion, bring, chunks, joined
from replay.store.reader import Dataset, to_rows
from replay.store.remote import Store
from replay.store.schema import EXCHANGES
from tests.rows import T0, exchange
from tests.store.test_dataset import write

SESSIONS = 64


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP_BYTES", 400_000)
    monkeypatch.setattr(tables, "SESSION_GROUP_BYTES", 40_000)


def exchanges(count: int = 600) -> list[Exchange]:
    draw = random.Random(7)
    return [
        exchange(
            number,
            started_at=T0 + number * 1000,
            session_id=f"s{number % SESSIONS}",
            response_body=draw.randbytes(2000),
        )
        for number in range(count)
    ]


def mine(session_id: str) -> bool:
    return share_of(session_id, 4) == 1


def groups(path: Path) -> list[list[str]]:
    """The sessions of each row group."""
    found = []
    for part in sorted(path.glob("part-*.parquet")):
        file = pq.ParquetFile(part)
        read = [file.read_row_group(group, columns=["session_id"]) for group in range(file.num_row_groups)]
        found += [group.column(0).to_pylist() for group in read]
    return found


def test_row_groups_hold_ranges_of_sessions_in_order_of_time(tmp_path: Path) -> None:
    rows = exchanges()
    path = write(tmp_path / "c", rows)
    found = groups(path)
    assert len(found) >= 16
    # The last of them, of what is left, are fewer and wider.
    eighths = [len({share_of(session, 8) for session in group}) for group in found]
    assert eighths[:8] == [1] * 8
    assert max(eighths) <= 4
    assert list(Dataset.open(path).rows()) == rows
    file = pq.ParquetFile(next(path.glob("part-*.parquet")))
    for group in range(file.num_row_groups):
        times = file.read_row_group(group, columns=["started_at"]).column(0).cast("int64").to_pylist()
        assert times == sorted(times)


@pytest.mark.parametrize("told", [("session_id",), ("started_at", "session_id"), EXCHANGES.names])
def test_any_columns_may_be_asked_for(tmp_path: Path, told: tuple[str, ...]) -> None:
    rows = exchanges()
    found = [
        row
        for some in Dataset.open(write(tmp_path / "c", rows)).shared(EXCHANGES.names, told, mine)
        for row in to_rows(some.mine)
    ]
    assert [Exchange(*row) for row in found] == [row for row in rows if mine(row.session_id)]


def test_a_small_capture_is_one_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert len(groups(write(tmp_path / "c", exchanges(100)))) == 1


def spoil(path: Path, keep: set[str]) -> int:
    """Overwrite all columns but those kept in the row groups that hold none of my sessions; how many there are."""
    spoilt = 0
    for part in path.glob("part-*.parquet"):
        file = pq.ParquetFile(part)
        with part.open("r+b") as out:
            for group in range(file.num_row_groups):
                sessions = file.read_row_group(group, columns=["session_id"]).column(0).to_pylist()
                if any(map(mine, sessions)):
                    continue
                spoilt += 1
                for first, end in chunks(file, group, lambda name: name not in keep):
                    out.seek(first)
                    out.write(bytes(end - first))
    return spoilt


def shared(path: Path, told: tuple[str, ...] = ("session_id", "target")) -> tuple[list, list]:
    told_rows, own_rows = [], []
    for some in Dataset.open(path).shared(("exchange_id", "response_body", "session_id"), told, mine):
        told_rows += to_rows(some.told)
        own_rows += to_rows(some.mine)
        assert some.mask.true_count == some.mine.num_rows
    return told_rows, own_rows


def check(path: Path, rows: list[Exchange]) -> None:
    told, own = shared(path)
    assert told == [(row.session_id, row.target) for row in rows]
    assert own == [
        (row.exchange_id, row.response_body, row.session_id) for row in rows if mine(row.session_id)
    ]


def test_of_others_sessions_no_more_is_read_than_asked_for(tmp_path: Path) -> None:
    rows = exchanges()
    path = write(tmp_path / "c", rows)
    check(path, rows)
    assert spoil(path, {"session_id", "started_at", "target"}) >= 8
    check(path, rows)
    with pytest.raises(InputError):
        list(Dataset.open(path).rows())


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_portion_is_fetched_and_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encrypted: bool
) -> None:
    if encrypted:
        monkeypatch.setenv("REPLAY_ENCRYPTION_KEY", "correct horse battery staple")
    monkeypatch.setattr("replay.store.portion._GAP", 0)
    fetched = []
    read = Store.read
    monkeypatch.setattr(
        Store, "read", lambda store, name, start, size: fetched.append(size) or read(store, name, start, size)
    )
    rows = exchanges()
    whole = write(tmp_path / "c", rows)
    size = sum(part.stat().st_size for part in whole.glob("part-*.parquet"))
    copy = tmp_path / "copy"

    def brought(portion: Portion) -> float:
        fetched.clear()
        bring(whole.as_uri(), copy, portion)
        return sum(fetched) / size

    assert 0.25 < brought(Portion(4, (1,))) < 0.45
    check(copy, rows)
    assert Dataset.open(copy).counts(("endpoint", "status")) == {("GET /products/{id}", 200): len(rows)}
    assert brought(Portion(4, (1,))) < 0.001
    assert 0.15 < brought(Portion(8, (0, 1))) < 0.35
    assert 0.3 < brought(Portion(1, (0,))) < 0.6
    assert list(Dataset.open(copy).rows()) == rows


def test_where_there_is_no_capture(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"is not a capture: there is no capture\.json in it"):
        bring((tmp_path / "empty").as_uri(), tmp_path / "copy", Portion(1, (0,)))


SPANS = [
    ([], []),
    ([(10, 20), (0, 5)], [(0, 5), (10, 20)]),
    ([(0, 5), (7, 9), (20, 30)], [(0, 9), (20, 30)]),
    ([(0, 50), (7, 9)], [(0, 50)]),
]  # fmt: skip


@pytest.mark.parametrize(("spans", "found"), SPANS)
def test_spans_that_are_near_are_one(spans: list, found: list) -> None:
    assert joined(spans, 2) == found


def test_the_outline_has_what_every_plan_needs() -> None:
    from replay.send.planner import _TOLD

    assert set(_TOLD) <= set(OUTLINE)
