"""Causal order, as tables of intervals: (start, duration) → what each request awaits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.plan.causal import Causality

TABLE = [
    pytest.param([(0, 10), (10, 10), (20, 10)], [(), (0,), (1,)], id="one after the other"),
    pytest.param([(0, 10), (5, 10), (12, 5)], [(), (), (0,)], id="an overlap may overlap again"),
    pytest.param([(0, 10), (1, 8), (20, 5)], [(), (), (0, 1)], id="a join of two"),
    pytest.param([(0, 5), (6, 100), (7, 1), (9, 1)], [(), (0,), (0,), (2,)], id="a long poll beside"),
    pytest.param([(0, None), (5, 1), (8, 1)], [(), (), (1,)], id="an end that was not seen is not awaited"),
    pytest.param([(0, 0), (0, 0)], [(), (0,)], id="no time at all"),
]


@pytest.mark.parametrize(("intervals", "awaits"), TABLE)
def test_what_is_awaited(intervals: list[tuple[int, int | None]], awaits: list[tuple[int, ...]]) -> None:
    causality = Causality()
    assert [causality.place("s", *interval)[1] for interval in intervals] == awaits


def test_sessions_do_not_wait_for_each_other() -> None:
    causality = Causality()
    causality.place("a", 0, 1)
    assert causality.place("b", 5, 1) == (0, ())
    causality.close("a")
    assert causality.place("a", 9, 1) == (0, ())


@given(st.lists(st.tuples(st.integers(0, 30), st.none() | st.integers(0, 12)), max_size=25))
def test_the_few_named_imply_exactly_all(intervals: list[tuple[int, int | None]]) -> None:
    intervals = sorted(intervals, key=lambda interval: interval[0])
    causality = Causality()
    implied: list[set[int]] = []
    for start, duration in intervals:
        number, awaits = causality.place("s", start, duration)
        implied.append(set(awaits).union(*(implied[other] for other in awaits)))
        ended = {
            other for other in range(number)
            if intervals[other][1] is not None and sum(intervals[other]) <= start  # type: ignore[arg-type]
        }  # fmt: skip
        assert implied[number] == ended
