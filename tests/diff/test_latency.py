from __future__ import annotations

import random
from fractions import Fraction
from math import comb

import pytest

from replay.diff.latency import Latencies, LatencySettings, _ranks
from replay.findings import NOISE, REGRESSION, SUSPECT, LatencyRow

from .conftest import make_answer


def measured(
    n: int,
    seed: int,
    factor: float = 1.0,
    again: float | None = 1.0,
    base_ms: float = 10.0,
    extra_ms: float = 0.0,
) -> tuple[LatencyRow, ...]:
    """Two or three runs of n exchanges whose times scatter as services' do: exchange by exchange and run by run."""
    draw = random.Random(seed)
    latencies = Latencies()
    for number in range(n):
        own = base_ms * draw.lognormvariate(0, 0.5)
        times = [own * draw.lognormvariate(0, 0.2) * ratio for ratio in (1.0, factor, again or 1.0)]
        times[1] += extra_ms
        old, new, control = (make_answer(number, duration_ns=int(time * 1e6)) for time in times)
        latencies.add(old, new, control if again else None)
    return latencies.rows(LatencySettings())


CASES = [
    pytest.param({"n": 300}, NOISE, id="the same build"),
    pytest.param({"n": 300, "factor": 10}, REGRESSION, id="ten times slower"),
    pytest.param({"n": 1000, "factor": 2}, REGRESSION, id="twice as slow"),
    pytest.param({"n": 8, "factor": 3}, SUSPECT, id="too few"),
    pytest.param({"n": 1000, "factor": 2, "base_ms": 0.5}, NOISE, id="a loss nobody minds"),
    pytest.param({"n": 1000, "factor": 1.1}, NOISE, id="within tolerance"),
    pytest.param({"n": 1000, "factor": 2, "again": 2}, NOISE, id="the old build was as slow the second time"),
    pytest.param({"n": 1000, "factor": 0.2}, NOISE, id="faster"),
    pytest.param({"n": 300, "factor": 10, "again": None}, REGRESSION, id="without a control"),
    pytest.param({"n": 500, "extra_ms": 30}, REGRESSION, id="thirty milliseconds more each"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "judgement"), CASES)
def test_judgements(given: dict[str, float], judgement: str) -> None:
    row = measured(seed=1, **given)[0]  # type: ignore[arg-type]
    assert row.judgement == judgement, row


def test_identical_builds_are_never_slower() -> None:
    rows = [row for seed in range(200) for row in measured(120, seed)]
    assert [row for row in rows if row.judgement == REGRESSION] == []
    # The interval should hold the truth, a ratio of one, as often as it says: never outside in these 400.
    assert all(row.low <= 1 <= row.high for row in rows)


@pytest.mark.parametrize(("n", "quantile"), [(20, 0.5), (75, 0.5), (200, 0.95)])
def test_ranks_are_those_of_the_binomial(n: int, quantile: float) -> None:
    q, error = Fraction(quantile).limit_denominator(100), 0.01
    lower, upper = _ranks(n, quantile, error)

    def below(rank: int) -> Fraction:  # P(fewer than rank values lie below the quantile)
        return sum((comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(rank)), Fraction(0))

    assert below(lower) <= error / 2 < below(lower + 1)
    assert 1 - below(upper) <= error / 2 < 1 - below(upper - 1)


def test_failures_and_other_statuses_have_no_time_to_compare() -> None:
    latencies = Latencies()
    latencies.add(make_answer(1), make_answer(1, status=500), None)
    latencies.add(make_answer(2), make_answer(2, error="timeout"), None)
    latencies.add(make_answer(3), make_answer(3, duration_ns=None), None)
    assert latencies.rows(LatencySettings()) == ()


def test_memory_is_bounded_and_the_sample_does_not_depend_on_the_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("replay.diff.latency.SAMPLE", 50)
    draw = random.Random(3)
    rows = [make_answer(n, duration_ns=draw.randrange(10**6, 10**7)) for n in range(500)]
    found = []
    for order in (rows, rows[::-1]):
        latencies = Latencies()
        for row in order:
            latencies.add(row, row, row)
        assert all(len(kept) == 50 for kept in latencies._kept.values())
        found.append(latencies.rows(LatencySettings()))
    assert found[0] == found[1]
    assert found[0][0].pairs == 500
