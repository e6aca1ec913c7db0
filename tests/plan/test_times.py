"""Dates moved along with the recording, as a table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from replay.errors import ConfigError
from replay.plan.rewrite import Parts
from replay.plan.times import Times, moved, times_of

NS = 1_000_000_000
DAY = 86_400 * NS
NEAR = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()) * NS

TABLE = [
    ("2026-03-02", "2026-04-01"),
    ("2026-03-02T10:00:00Z", "2026-04-01T10:00:00Z"),
    ("2026-03-02 10:00", "2026-04-01 10:00"),
    ("2026-03-02T10:00:00.250+02:00", "2026-04-01T10:00:00.250+02:00"),
    (str(NEAR // NS), str(NEAR // NS + 30 * 86_400)),
    (str(NEAR // 1_000_000), str(NEAR // 1_000_000 + 30 * 86_400_000)),
    ("1999-12-31", None),
    ("1234567890123456", None),
    ("9999999999", None),
    ("2026-02-30", None),
    ("2026-03-02x", None),
    ("hello", None),
]


@pytest.mark.parametrize(("value", "later"), TABLE)
def test_a_date_is_moved_and_written_alike(value: str, later: str | None) -> None:
    assert moved(value, 30 * DAY, NEAR, 400 * DAY) == later


def test_dates_in_a_request_move_and_nothing_else() -> None:
    headers = (("Content-Type", "application/json"), ("Date", "2026-03-02"))
    before = Parts(
        "/d/2026-03-02?from=2026-03-02&q=%7e", headers, b'{ "at": 1772366400, "on": "2026-03-02" }'
    )
    after = Parts("/d/2026-03-02?from=2026-04-01&q=%7e", headers, b'{ "at": 1774958400, "on": "2026-04-01" }')
    assert Times().apply(before, NEAR, 30 * DAY) == after
    assert Times(names=("nothing",)).apply(before, NEAR, 30 * DAY) == before


def test_the_table_in_the_configuration() -> None:
    at = datetime(2026, 5, 1, tzinfo=UTC)
    assert times_of({"names": ["from"], "within": "48h", "to": at}) == Times(
        ("from",), 2 * DAY, int(at.timestamp()) * NS
    )


@pytest.mark.parametrize("table", [{"names": "from"}, {"to": "soon"}, {"shift": True}])
def test_wrong_settings_are_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"\[rewrite.time\]"):
        times_of(table)
