"""Is it slower? Ratios of quantiles over the same exchanges, with intervals that assume no distribution.

The interval of a quantile q of n values runs between two of the sorted values themselves, the ranks taken
from the binomial distribution with n and q: exact, whatever the distribution (David and Nagaraja 2003, Order
Statistics, 7.1). The ratio new / old lies between low / high and high / low of the two intervals, each at
half the error (Bonferroni), which is conservative. Nothing is resampled, so nothing is random.

The old build measured twice is the yardstick: an endpoint is slower only where the whole interval lies
beyond `tolerance` times the spread between the two old runs, and the time lost against the slower of them
exceeds `floor_ms`. The error level is shared among all rows of the report.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from replay.diff.answers import Answer
from replay.diff.noise import binomial_tail
from replay.findings import NOISE, REGRESSION, SUSPECT, LatencyRow

SAMPLE = 4096
"""Exchanges kept per endpoint, those with the lowest hash: a uniform sample that no order of rows changes."""

_TAIL, _BEYOND = 0.95, 5
"""Further out than the first, a quantile is told where so many exchanges lie beyond it: a p99 of 50 is the largest."""


@dataclass(frozen=True, slots=True)
class LatencySettings:
    """`tolerance`: the ratio that is still fine; `floor_ms`: a loss nobody minds; `level`: chance of a false
    alarm in a report."""

    tolerance: float = 1.25
    floor_ms: float = 2.0
    level: float = 0.01
    quantiles: tuple[float, ...] = (0.5, 0.95, 0.99)


class Latencies:
    """Collects times to answer, endpoint by endpoint, in bounded memory."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._kept: dict[str, list[tuple[int, str, int, float, float, float | None]]] = {}

    def add(self, baseline: Answer, candidate: Answer, control: Answer | None) -> None:
        """One exchange; counted only where old and new answered alike enough for their times to compare."""
        old, new = _milliseconds(baseline), _milliseconds(candidate)
        if old is None or new is None or not _same_class(baseline, candidate):
            return
        again = None if control is None or not _same_class(baseline, control) else _milliseconds(control)
        name = baseline.endpoint
        self._seen[name] = self._seen.get(name, 0) + 1
        kept = self._kept.setdefault(name, [])
        entry = (-_hash(baseline), baseline.exchange_id, baseline.lap, old, new, again)
        if len(kept) < SAMPLE:
            heapq.heappush(kept, entry)
        elif entry > kept[0]:
            heapq.heapreplace(kept, entry)

    def absorb(self, other: Latencies) -> None:
        """Add the times of other exchanges: of both samples the lowest hashes stay."""
        for name, seen in other._seen.items():
            self._seen[name] = self._seen.get(name, 0) + seen
            self._kept[name] = heapq.nlargest(SAMPLE, [*self._kept.get(name, ()), *other._kept[name]])
            heapq.heapify(self._kept[name])

    def rows(self, settings: LatencySettings) -> tuple[LatencyRow, ...]:
        """One row for each endpoint and quantile that has enough exchanges, the slowed ones first."""
        error = settings.level / max(1, len(self._kept) * len(settings.quantiles))
        rows = [
            _row(name, quantile, self._seen[name], [entry[3:] for entry in kept], error, settings)
            for name, kept in sorted(self._kept.items())
            for quantile in settings.quantiles
        ]
        order = (REGRESSION, SUSPECT, NOISE)
        found = [row for row in rows if row is not None]
        return tuple(sorted(found, key=lambda row: (order.index(row.judgement), row.endpoint, row.quantile)))


def _milliseconds(answer: Answer) -> float | None:
    if answer.error is not None or answer.duration_ns is None:
        return None
    return answer.duration_ns / 1e6


def _same_class(left: Answer, right: Answer) -> bool:
    return (left.status or 0) // 100 == (right.status or 0) // 100


def _hash(answer: Answer) -> int:
    return zlib.crc32(f"{answer.exchange_id}/{answer.lap}".encode())


def _row(
    endpoint: str,
    quantile: float,
    seen: int,
    times: Sequence[tuple[float, float, float | None]],
    error: float,
    settings: LatencySettings,
) -> LatencyRow | None:
    if quantile > _TAIL and len(times) * (1 - quantile) < _BEYOND:
        return None
    old, new = sorted(time[0] for time in times), sorted(time[1] for time in times)
    again = sorted(time[2] for time in times if time[2] is not None)
    old_low, old_high = interval(old, quantile, error / 2)
    new_low, new_high = interval(new, quantile, error / 2)
    was, is_ = value_at(old, quantile), value_at(new, quantile)
    control = value_at(again, quantile) if again else None
    if not was or old_low is None or not old_high or new_low is None:
        low, high = 0.0, float("inf")
    else:
        low, high = new_low / old_high, (new_high or float("inf")) / old_low if old_low else float("inf")
    judgement, reason = _judge(was, is_, low, control, settings)
    return LatencyRow(
        endpoint=endpoint,
        quantile=quantile,
        pairs=seen,
        baseline_ms=was,
        candidate_ms=is_,
        ratio=is_ / was if was else 1.0,
        low=low,
        high=high,
        noise_ratio=control / was if control is not None and was else None,
        judgement=judgement,
        reason=reason,
    )


def _judge(
    was: float, is_: float, low: float, control: float | None, settings: LatencySettings
) -> tuple[str, str]:
    worst = max(was, control or 0.0)
    spread = max(control / was, was / control) if control and was else 1.0
    limit = settings.tolerance * spread
    if is_ - worst <= settings.floor_ms or is_ <= was * limit:
        return NOISE, "within tolerance"
    if low > limit:
        return REGRESSION, "slower" if control is not None else "slower; noise is not known"
    return SUSPECT, "slower, but too few or too scattered to tell"


def value_at(ordered: Sequence[float], quantile: float) -> float:
    """The quantile of sorted values, a value among them."""
    return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]


def interval(ordered: Sequence[float], quantile: float, error: float) -> tuple[float | None, float | None]:
    """Bounds of a quantile that hold with probability 1 - error; `None` where there are too few values."""
    lower, upper = _ranks(len(ordered), quantile, error)
    return (
        ordered[lower - 1] if lower >= 1 else None,
        ordered[upper - 1] if upper <= len(ordered) else None,
    )


@lru_cache(maxsize=1024)
def _ranks(n: int, quantile: float, error: float) -> tuple[int, int]:
    """The largest rank that lies above the quantile, and the smallest below, with chance error / 2 at most.

    With B values below the quantile, B binomial(n, quantile), rank i lies above it if B < i, below if B >= i.
    """
    lower = _last(lambda rank: 1.0 - binomial_tail(rank, n, quantile) <= error / 2, n)
    upper = _last(lambda rank: binomial_tail(rank, n, quantile) > error / 2, n) + 1
    return lower, upper


def _last(holds: Callable[[int], bool], n: int) -> int:
    """The last rank of 0..n for which a condition holds that holds up to some rank and no further."""
    low, high = 0, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
