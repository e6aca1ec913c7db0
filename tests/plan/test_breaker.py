"""The kill switch as tables: streams of outcomes in, trips out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.plan.breaker import EVERYTHING, TOO_FAST, TOO_MANY, AbortRules, Governor

MS = 1_000_000
Outcome = tuple[str, int | None, str | None]

OK: Outcome = ("GET /a", 200, None)
BROKEN: Outcome = ("GET /a", 503, None)
LOST: Outcome = ("GET /a", None, "timeout")
REFUSED: Outcome = ("GET /a", None, "refused")
OTHER: Outcome = ("GET /b", 200, None)


def governed(
    rules: AbortRules, outcomes: list[Outcome], gap_ms: float = 5, took_ms: float = 1, **more: object
) -> Governor:
    governor = Governor(rules, **more)  # type: ignore[arg-type]
    for number, (endpoint, status, error) in enumerate(outcomes):
        governor.hear(endpoint, int(number * gap_ms * MS), status, error, int(took_ms * MS))
    return governor


@pytest.mark.parametrize(
    ("rules", "outcomes", "usual", "rule"),
    [
        ({}, [OK] * 1000, {}, None),
        ({}, [OK, BROKEN] * 500, {}, "share of failures"),
        ({}, [OK, OK, BROKEN] * 300, {}, None),
        ({"errors": 0.25}, [OK, OK, BROKEN] * 300, {}, "share of failures"),
        # Relative to what is usual in production.
        ({}, [OK, BROKEN] * 500, {"GET /a": (100, 30)}, None),
        ({}, [BROKEN] * 500, {"GET /a": (100, 30)}, "share of failures"),
        # Too few to tell.
        ({"failures": 0}, [BROKEN] * 99, {}, None),
        # No answer at all, for the length of the window.
        ({"errors": 0}, [OK] * 500 + [LOST] * 300, {}, "failures in a row"),
        ({"errors": 0}, [OK] * 500 + [LOST] * 150, {}, None),
        ({"errors": 0}, [OK] * 500 + [REFUSED] * 201, {}, "connections refused"),
        ({"errors": 0}, ([REFUSED] * 150 + [OK]) * 5, {}, None),
        ({"errors": 0, "failures": 0, "refused": 0}, [REFUSED, LOST, BROKEN] * 500, {}, None),
    ],
)  # fmt: skip
def test_rules(
    rules: dict[str, float], outcomes: list[Outcome], usual: dict[str, tuple[int, int]], rule: str | None
) -> None:
    governor = governed(AbortRules(**rules), outcomes, usual=usual)  # type: ignore[arg-type]
    assert [trip.rule for trip in governor.trips] == ([] if rule is None else [rule])
    assert governor.stopped is (rule is not None)


def test_slow_answers_trip_only_the_rule_that_asks_for_them() -> None:
    assert not governed(AbortRules(), [OK] * 1000, took_ms=900).trips
    assert not governed(AbortRules(p99_ns=1000 * MS), [OK] * 1000, took_ms=900).trips
    (trip,) = governed(AbortRules(p99_ns=800 * MS), [OK] * 1000, took_ms=900).trips
    assert trip.rule.startswith("p99")
    assert trip.at_ns <= 1100 * MS


@pytest.mark.parametrize("groups", [("/a",), ("GET /a",), ("each",), ("/x*", "/a*")])
def test_a_group_is_stopped_alone(groups: tuple[str, ...]) -> None:
    governor = governed(AbortRules(groups=groups), [BROKEN, BROKEN, BROKEN, OTHER] * 250)
    (trip,) = governor.trips
    assert trip.group in ("/a", "GET /a", "/a*")
    assert not governor.stopped
    assert governor.refuses("GET /a", 0, 0) == "kill switch"
    assert governor.refuses("GET /b", 0, 0) is None


def test_the_trip_of_another_worker_opens_here_too() -> None:
    (trip,) = governed(AbortRules(groups=("/a",)), [BROKEN] * 500).trips
    other = Governor(AbortRules(groups=("/a",)))
    assert other.refuses("GET /a", 0, 0) is None
    other.take(trip)
    assert other.refuses("GET /a", 0, 0) == "kill switch"
    assert not other.trips
    assert not other.stopped
    other.take(trip._replace(group=EVERYTHING))
    assert other.stopped


def test_trips_are_told_once() -> None:
    governor = governed(AbortRules(), [BROKEN] * 500)
    assert len(governor.untold()) == 1
    assert governor.untold() == []
    governor.stop("stop file", 0)
    assert governor.untold() == []


@given(
    gaps=st.lists(st.integers(0, 50 * MS), min_size=50, max_size=300),
    rate=st.sampled_from([10.0, 100.0, 1000.0]),
)
def test_the_rate_is_never_exceeded_whatever_comes(gaps: list[int], rate: float) -> None:
    governor = Governor(AbortRules(), max_rate=rate)
    now, sent = 0, []
    for gap in gaps:
        now += gap
        reason = governor.refuses("GET /a", now, 0)
        assert reason in (None, TOO_FAST)
        if reason is None:
            sent.append(now)
    burst = max(1.0, 0.1 * rate)
    for first, start in enumerate(sent):
        within = sum(start <= instant < start + 1000 * MS for instant in sent[first:])
        assert within <= rate + burst + 1


def test_below_the_rate_nothing_is_refused() -> None:
    governor = Governor(AbortRules(), max_rate=1000)
    assert all(governor.refuses("GET /a", number * 1_000_001, 0) is None for number in range(5000))


def test_concurrency_has_a_ceiling() -> None:
    governor = Governor(AbortRules(), max_concurrency=3)
    assert [governor.refuses("GET /a", 0, under_way) for under_way in (0, 2, 3, 4)] == [
        None,
        None,
        TOO_MANY,
        TOO_MANY,
    ]
