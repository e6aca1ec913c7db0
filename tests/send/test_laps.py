"""Laps from memory are the laps that planning anew gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from replay.config import RunSettings
from replay.model import Exchange
from replay.send import planner
from replay.send.plan_stream import unpack_block
from replay.send.planner import Order, Planner
from tests.rows import T0, exchange
from tests.send.captures import write


def exchanges() -> Iterator[Exchange]:
    """Sessions whose requests carry what an answer handed out; connections that overlap; one that is not sent."""
    for number in range(90):
        session, token = number % 7, f"f3a9c{number % 7}d8e7b6a5c4d3e2f1"
        first = number < 7
        yield exchange(
            number,
            started_at=T0 + number * 1_000_000,
            duration_ns=2_500_000 if number % 5 else 900_000,
            session_id=f"s{session}",
            connection_id=f"c{number % 4}",
            method="POST" if number == 50 else "GET",
            endpoint="GET /login" if first else "GET /items/{id}",
            target="/login" if first else f"/items/{number}?t={token}",
            request_headers=(("Host", "shop.test"), ("Cookie", "theme=dark"), ("X-Token", token))[
                : 1 if first else 3
            ],
            response_headers=(("Content-Type", "application/json"),),
            response_body=f'{{"token": "{token}"}}'.encode() if first else b"{}",
        )


SETTINGS = {
    "recorded times": {"sessions": "off"},
    "ordered, at a rate": {"sessions": "ordered", "rate": 400.0},
    "live": {"sessions": "live"},
    "live, Poisson, until a duration": {
        "sessions": "live",
        "rate": 500.0,
        "poisson": True,
        "duration": 0.61,
        "loop": 0,
    },
    "recorded times, until a duration": {"duration": 0.25, "loop": 0},
    "closed loop": {"sessions": "live", "concurrency": 4},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(("share", "shares", "since"), [(0, 1, 0), (1, 3, 0), (0, 1, 100_000_000)])
def test_later_laps_from_memory_are_those_planned_anew(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    share: int,
    shares: int,
    since: int,
) -> None:
    capture = write(tmp_path / "capture", exchanges())
    order = Order(
        str(capture), replace(RunSettings(loop=4), **settings), "127.0.0.1:80", ((share, since),), shares, 7
    )

    def planned(memory: int) -> tuple[list[Any], int, dict[str, int], bool]:
        monkeypatch.setattr(planner, "LAP_BYTES", memory)
        made = Planner(order)
        rows = unpack_block(b"".join(made.arrivals()))
        return rows, made.planned_by_all, dict(made.counts), made._laps.whole

    *kept, whole = planned(1 << 20)
    *anew, none = planned(0)
    *cut, neither = planned(9_000)  # too little for a lap
    # What is taken over is planned anew in each lap: see `Dropped`.
    assert (whole, none, neither) == (not since, False, False)
    assert kept == anew == cut
    rows = kept[0]
    assert len(rows) > 90 // shares or settings.get("concurrency")
    assert len({row[2] for row in rows}) > 4 or not rows  # lanes are numbered on
    assert min((row[2] for row in rows), default=7) >= 7
    assert all(row[0] >= since for row in rows)
