"""Arrivals of several plans, as shares come and go."""

from __future__ import annotations

from collections.abc import Iterator

from replay.send.arrivals import Arrivals
from replay.send.plan_stream import Planned


class Plan:
    """Arrivals at hand; `waits` as long as it is told so."""

    def __init__(self, arrivals: list[tuple[int, int]], waits: bool = False) -> None:
        self._arrivals = arrivals
        self.waits = waits

    def __iter__(self) -> Iterator[Planned]:
        for due, share in self._arrivals:
            yield Planned(due, due // 10, 0, (), b"", None, share, "GET /", "GET", True, b"")


def told(arrivals: Iterator[Planned]) -> list[tuple[int, int]]:
    return [(arrival.due_ns, arrival.share) for arrival in arrivals]


def test_shares_that_are_taken_over_come_in_between_at_once() -> None:
    arrivals = Arrivals()
    arrivals.add(Plan([(10, 0), (20, 0), (30, 0), (40, 0)]))
    found = iter(arrivals)
    assert told([next(found), next(found)]) == [(10, 0), (20, 0)]
    arrivals.add(Plan([(5, 1), (35, 1), (50, 1)]))
    assert told(found) == [(5, 1), (30, 0), (35, 1), (40, 0), (50, 1)]
    assert not arrivals


def test_a_plan_that_is_not_ready_holds_nobody_up() -> None:
    arrivals = Arrivals()
    arrivals.add(Plan([(10, 0), (20, 0), (30, 0)]))
    late = Plan([(5, 1), (25, 1)], waits=True)
    arrivals.add(late)
    found = iter(arrivals)
    assert told([next(found), next(found)]) == [(10, 0), (20, 0)]
    late.waits = False
    assert told(found) == [(5, 1), (25, 1), (30, 0)]


def test_what_is_given_up_is_left_out_from_there_on() -> None:
    arrivals = Arrivals()
    arrivals.add(Plan([(10, 0), (11, 1), (20, 0), (21, 1), (30, 0)]))
    found = iter(arrivals)
    assert told([next(found)]) == [(10, 0)]
    arrivals.give([0], 20)
    arrivals.give([0], 25)
    assert told(found) == [(11, 1), (21, 1)]


def test_a_share_may_come_back() -> None:
    arrivals = Arrivals()
    arrivals.add(Plan([(10, 0), (20, 0), (30, 0)]))
    arrivals.give([0], 15)
    arrivals.add(Plan([(30, 0)]))
    assert told(iter(arrivals)) == [(10, 0), (30, 0)]
    arrivals.add(Plan([(40, 2)]))
    assert told(iter(arrivals)) == [(40, 2)]


def test_where_all_is_due_at_once_places_are_the_keys() -> None:
    arrivals = Arrivals(by_place=True)
    arrivals.add(Plan([(10, 0), (20, 0), (30, 0)]))
    arrivals.give([0], 2)
    assert told(iter(arrivals)) == [(10, 0)]


def test_what_is_given_up_while_it_is_prepared_is_left_out_too() -> None:
    arrivals = Arrivals()
    arrivals.add(Plan([(10, 0), (40, 0)]), [(0, 0)])
    found = iter(arrivals)
    assert told([next(found)]) == [(10, 0)]
    arrivals.give([1], 30)
    arrivals.add(Plan([(20, 1), (30, 1), (35, 1)]), [(1, 20)])
    assert told([next(found), next(found)]) == [(20, 1), (40, 0)]
    arrivals.add(Plan([(50, 1)]), [(1, 30)])  # taken over again
    assert told(found) == [(50, 1)]


def test_one_that_is_waited_with_may_be_given_up() -> None:
    arrivals = Arrivals()
    arrivals.add(Plan([(10, 0), (20, 1)]), [(0, 0), (1, 0)])
    found = iter(arrivals)
    held = next(found)
    assert arrivals.keeps(held)
    arrivals.give([1], 0)
    assert arrivals.keeps(held)
    arrivals.give([0], 10)
    assert not arrivals.keeps(held)
    assert told(found) == []


def test_the_last_one_that_is_waited_with_may_be_given_up() -> None:
    arrivals = Arrivals()
    arrivals.add(Plan([(10, 0)], waits=True), [(0, 0)])
    arrivals.add(Plan([(20, 1)]), [(1, 0)])
    found = iter(arrivals)
    held = next(found)
    arrivals.give([1], 15)
    assert not arrivals.keeps(held)
