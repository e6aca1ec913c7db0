"""The plans of all shares together are the plan of one worker, whatever is left out, however small row groups are."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from replay.config import RunSettings
from replay.model import Exchange
from replay.plan.dispatch import share_of
from replay.plan.requests import SLOT, defined
from replay.plan.requests import whole as unfold
from replay.send import learning
from replay.send.plan_stream import Planned, unpack_block
from replay.send.planner import Order, Planner
from replay.send.sessions import session_of
from replay.store import tables
from tests.rows import T0, exchange
from tests.send.captures import write

SHARES = 12


def exchanges() -> list[Exchange]:
    """Forty sessions that log in and go on, some of it by writes."""
    draw = random.Random(11)
    tokens = [f"{draw.getrandbits(96):024x}" for _ in range(40)]
    rows = []
    for number in range(600):
        session, turn = number % 40, number // 40
        known: dict[str, Any] = {
            "started_at": T0 + number * 1_000_000,
            "duration_ns": 500_000,
            "session_id": f"s{session}",
            "connection_id": f"c{session}",
        }
        if turn == 0:
            body = json.dumps({"token": tokens[session]}).encode()
            known |= {"endpoint": "GET /login", "target": "/login", "response_body": body}
        else:
            method = "POST" if turn % 5 == 2 else "GET"
            endpoint = f"{method} /admin/{{id}}" if turn % 7 == 3 else f"{method} /items/{{id}}"
            known |= {
                "method": method,
                "endpoint": endpoint,
                "target": endpoint.split(" ")[1].replace("{id}", str(turn)),
                "request_headers": (("Host", "shop.test"), ("Authorization", f"Bearer {tokens[session]}")),
                "response_body": draw.randbytes(400),
            }
        rows.append(exchange(number, **known))
    return rows


def planned(order: Order) -> tuple[list[Planned], Planner]:
    planner = Planner(order)
    return [Planned._make(unpack_block(row)[0]) for row in planner.arrivals()], planner


SETTINGS = {
    "recorded times": {"sessions": "off"},
    "live": {"sessions": "live"},
    "writes are left out": {"sessions": "live", "writes": ()},
    "a part is excluded": {"sessions": "ordered", "exclude": ("/admin/*",)},
    "a path is denied": {"sessions": "live", "deny": ("GET /items/4",)},
    "Poisson": {"sessions": "live", "rate": 5000.0, "poisson": True},
    "until a duration": {"sessions": "live", "duration": 0.2},
    "laps": {"sessions": "live", "loop": 3},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_all_shares_together_are_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP_BYTES", 200_000)
    monkeypatch.setattr(tables, "SESSION_GROUP_BYTES", 15_000)
    capture = str(write(tmp_path / "capture", exchanges()))
    wanted = RunSettings(**{"writes": ("all",), **settings})
    whole, alone = planned(Order(capture, wanted, "127.0.0.1:80"))
    parts: list[Planned] = []
    for first in range(0, SHARES, 4):
        holdings = tuple((share, 0) for share in range(first, first + 4))
        mine, planner = planned(Order(capture, wanted, "127.0.0.1:80", holdings, SHARES))
        assert {share_of(session_of(arrival), SHARES) for arrival in mine} <= set(range(first, first + 4))
        assert planner.planned_by_all == alone.planned_by_all
        assert +planner.counts == +alone.counts
        parts += mine
    assert Counter(map(content, parts)) == Counter(map(content, whole))
    assert sorted(arrival.place for arrival in parts) == list(range(len(whole)))


def content(arrival: Planned) -> tuple[Any, ...]:
    """What does not depend on who numbers lanes and sessions."""
    causal = arrival.causal and arrival.causal[1:]
    return (
        *(arrival.due_ns, arrival.place, bool(arrival.ends), arrival.identity, causal, arrival.wire),
        *(arrival.script, arrival.takes, arrival.exact, arrival.skipped),
    )


def test_a_planner_that_is_told_the_rules_learns_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = write(tmp_path / "capture", exchanges())
    settings = RunSettings(writes=("all",), sessions="live")
    found, _ = planned(Order(str(capture), settings, "127.0.0.1:80"))
    rules = tuple(
        (rule.source, rule.place, rule.endpoint, rule.target)
        for rule in learning.learn(learning.Dataset.open(capture))
    )
    monkeypatch.setattr("replay.send.planner.learn", lambda *_: pytest.fail("it learned"))
    order = Order(str(capture), settings, "127.0.0.1:80", rules=rules)
    told, _ = planned(Order.from_json(order.to_json()))
    assert [content(arrival) for arrival in told] == [content(arrival) for arrival in found]
    assert any(arrival.script for arrival in told)


@pytest.mark.parametrize(
    "settings", [{}, {"loop": 3}, {"concurrency": 4}], ids=["once", "laps", "closed loop"]
)
@pytest.mark.parametrize("part", [0.1, 0.4, 0.9])
def test_what_is_taken_over_is_whole(tmp_path: Path, settings: dict[str, Any], part: float) -> None:
    """Requests name header lines that an earlier one of their session brings, even where that was another's."""
    capture = str(write(tmp_path / "capture", exchanges()))
    wanted = RunSettings(writes=("all",), sessions="live", **settings)
    whole, _ = planned(Order(capture, wanted, "127.0.0.1:80"))
    key = (
        whole[int(len(whole) * part)].place
        if "concurrency" in settings
        else whole[int(len(whole) * part)].due_ns
    )
    taken, _ = planned(Order(capture, wanted, "127.0.0.1:80", ((0, key),), 1))
    assert 0 < len(taken) < len(whole)
    sessions: dict[Any, dict[int, Any]] = {}
    named = 0
    for arrival in taken:
        if arrival.script is None:
            continue
        assert arrival.causal is not None
        blocks = sessions.setdefault(arrival.causal[0], {})
        if (block := defined(arrival.script)) is not None:
            blocks[block[0]] = block[1]
        named += isinstance(arrival.script[0][-1], tuple)
        assert all(b"Host" not in piece for piece in arrival.script[0][:-1] if isinstance(piece, bytes))
        made = unfold(arrival.script, blocks)
        assert any(isinstance(piece, tuple) and piece[0] == SLOT for piece in made[0])
    assert named > 10
