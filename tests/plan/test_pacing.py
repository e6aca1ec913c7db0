"""When arrivals are due: tables, and the laws that each pace obeys."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.errors import UsageError
from replay.plan import pacing

S = pacing.SECOND


@pytest.mark.parametrize(("speed", "due"), [(1, 1000), (2, 500), (0.5, 2000)])
def test_recorded_times_are_scaled(speed: float, due: int) -> None:
    assert pacing.recorded(speed)(7, 1000) == due


def test_constant_rate_is_even() -> None:
    pace = pacing.constant(4)
    assert [pace(index, 0) for index in range(5)] == [0, S // 4, S // 2, 3 * S // 4, S]


def test_poisson_has_the_mean_and_the_spread_of_an_exponential() -> None:
    pace = pacing.poisson(1000, seed=3)
    due = [pace(index, 0) for index in range(20_000)]
    gaps = [(later - earlier) / S for earlier, later in pairwise(due)]
    mean = sum(gaps) / len(gaps)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(1e-3, rel=0.03)
    assert spread == pytest.approx(1e-3, rel=0.05)


def test_poisson_repeats_with_its_seed() -> None:
    first, second, other = (pacing.poisson(10, seed) for seed in (1, 1, 2))
    due = [[pace(index, 0) for index in range(50)] for pace in (first, second, other)]
    assert due[0] == due[1] != due[2]


def test_a_ramp_sends_what_its_area_says() -> None:
    # 0 → 100/s over 10 s is 500 arrivals; then 100/s for ever.
    pace = pacing.ramp(pacing.parse_ramp("0:0,10s:100"))
    due = [pace(index, 0) / S for index in range(1000)]
    assert sum(1 for instant in due if instant < 10) == 500
    assert sum(1 for instant in due if 10 <= instant < 12) == 200
    assert due[125] == pytest.approx(5.0)


@given(
    st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 500)), min_size=1, max_size=5).filter(
        lambda stages: stages[-1][1] > 0.5
    )
)
def test_ramps_never_go_back(steps: list[tuple[float, float]]) -> None:
    instant, stages = 0.0, [(0.0, 1.0)]
    for length, rate in steps:
        instant += length
        stages.append((instant, rate))
    pace = pacing.ramp(stages)
    due = [pace(index, 0) for index in range(300)]
    assert due == sorted(due)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("200ms", 0.2), ("1.5s", 1.5)],
)
def test_durations(text: str, seconds: float) -> None:
    assert pacing.parse_duration(text, "--duration") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "x", "5q", "s5", "1..2s", "5m!"])
def test_bad_durations_name_the_option(text: str) -> None:
    with pytest.raises(UsageError, match="--duration"):
        pacing.parse_duration(text, "--duration")


@pytest.mark.parametrize("text", ["10", "0:x", "0:10,0:20", "0:10,5s:0", "0:-1", "5s:10,1s:20", "0:nan"])
def test_bad_ramps_name_the_option(text: str) -> None:
    with pytest.raises(UsageError, match="--ramp"):
        pacing.parse_ramp(text)


@pytest.mark.parametrize("make", [pacing.recorded, pacing.constant])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_bad_rates_are_refused(make: object, value: float) -> None:
    with pytest.raises(UsageError, match="above 0"):
        make(value)  # type: ignore[operator]
