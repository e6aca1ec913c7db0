"""The words of capture's options, filters, and the honesty of sampling."""

from __future__ import annotations

import random
from math import sqrt

import pytest

from replay.capture.filters import Filters, Seen
from replay.capture.options import parse_floor, parse_rotate, parse_session_key, parse_size
from replay.capture.sampling import Floor, included, keep, session_key
from replay.errors import UsageError

KEY = b"k" * 32


@pytest.mark.parametrize(
    ("text", "size", "seconds"),
    [("64MB", 64 << 20, None), ("5min", None, 300.0), ("1g, 30s", 1 << 30, 30.0), ("100k", 102400, None)],
)
def test_rotation(text: str, size: int | None, seconds: float | None) -> None:
    assert parse_rotate(text) == (size, seconds)


def test_the_other_words() -> None:
    assert parse_size("1.5m", "--x") == 3 << 19
    assert [parse_floor(text) for text in ("20/min", "1/s", "120/h", "0")] == [20, 60, 2, 0]
    assert parse_session_key("cookie:sid") == ("cookie", "sid")


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_rotate, "often"),
        (parse_rotate, "0"),
        (parse_floor, "20"),
        (parse_floor, "-1/min"),
        (parse_floor, "x/min"),
        (parse_session_key, "sid"),
        (parse_session_key, "body:sid"),
        (lambda text: parse_size(text, "--max-body"), "much"),
        (lambda text: Filters([text]), "path"),
        (lambda text: Filters([], [text]), "colour:red"),
    ],
)
def test_a_word_that_means_nothing_is_an_error_that_repeats_it(parse: object, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        parse(text)  # type: ignore[operator]


SEEN = Seen("GET", "api.example.com", "/api/orders?x=1", 503, [("X-Debug", "1")])


@pytest.mark.parametrize(
    ("only", "skip", "reason"),
    [
        ([], [], None),
        (["path:/api/*"], [], None),
        (["path:/shop/*"], [], "not in --only path"),
        (["path:/shop/*", "path:/api/*"], [], None),
        (["path:/api/*", "method:post"], [], "not in --only method"),
        (["status:5xx"], [], None),
        (["status:2xx"], [], "not in --only status"),
        (["host:*.example.com"], ["header:x-debug"], "--skip header:x-debug"),
        ([], ["header:X-Debug=2"], None),
        ([], ["method:GET"], "--skip method:GET"),
    ],
)
def test_filters(only: list[str], skip: list[str], reason: str | None) -> None:
    assert Filters(only, skip).reason(SEEN) == reason


@pytest.mark.parametrize(
    ("by", "same"),
    [
        (("cookie", "sid"), True),
        (("header", "x-user"), True),
        (("query", "user"), True),
        (("cookie", "other"), False),
        (("", ""), False),
    ],
)
def test_a_session_is_told_by_what_was_named(by: tuple[str, str], same: bool) -> None:
    def key(address: str) -> bytes:
        headers = [("Cookie", "a=1; sid=abc"), ("X-User", "u7"), ("User-Agent", "ua")]
        return session_key(address, headers, target="/x?user=7", connection=address, by=by)

    assert (key("10.0.0.1") == key("10.0.0.2")) is same


def test_without_address_and_agent_a_session_is_a_connection() -> None:
    assert session_key("", [], connection="c1") != session_key("", [], connection="c2")


@pytest.mark.parametrize("floor", [0.0, 20.0])
def test_weights_estimate_the_totals_without_bias(floor: float) -> None:
    """Over many keys the mean estimate of each endpoint's total is within 4 standard errors of the truth."""
    draw = random.Random(7)
    share = 0.2
    traffic = [
        (f"s{draw.randrange(150)}", "rare" if draw.random() < 0.02 else "common", i * 100_000_000)
        for i in range(1200)
    ]
    truth = {name: sum(endpoint == name for _, endpoint, _ in traffic) for name in ("rare", "common")}
    estimates: dict[str, list[float]] = {name: [] for name in truth}
    rare_kept = []
    for turn in range(120):
        key = turn.to_bytes(32)
        chances = Floor(floor)
        total = dict.fromkeys(truth, 0.0)
        kept_rare = 0
        for number, (session, endpoint, at) in enumerate(traffic):
            chance = chances.chance(endpoint, at) if floor else 0.0
            if keep(session.encode(), share, key) or keep(b"floor%d" % number, chance, key):
                total[endpoint] += 1 / included(share, chance)
                kept_rare += endpoint == "rare"
        rare_kept.append(kept_rare)
        for name, value in total.items():
            estimates[name].append(value)
    for name, values in estimates.items():
        mean = sum(values) / len(values)
        error = sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
        assert abs(mean - truth[name]) <= 4 * error + 1e-9, name
    if floor:
        # Rare ones stay under the floor, and all of them are there.
        assert min(rare_kept) == truth["rare"]
