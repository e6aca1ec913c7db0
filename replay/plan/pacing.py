"""When arrivals are due: pure functions from an arrival's place in the capture to an instant of the run.

A `Pace` takes the arrival's index (0, 1, 2, ... over the whole run) and its recorded offset in nanoseconds
since the first exchange of the capture (laps laid end to end), and gives its due instant in nanoseconds
since the run's start. Due instants never decrease.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from itertools import pairwise

from replay.errors import UsageError

Pace = Callable[[int, int], int]
Stage = tuple[float, float]
"""An instant of the run in seconds, and the rate in requests per second wanted then."""

SECOND = 1_000_000_000
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def recorded(speed: float = 1.0) -> Pace:
    """As recorded, `speed` times as fast."""
    if not speed > 0:
        raise UsageError(f"--speed {speed:g} must be above 0: 2 is twice as fast, 0.5 half")
    return lambda index, offset: int(offset / speed)


def constant(rate: float) -> Pace:
    """Evenly spaced, `rate` requests per second."""
    _check_rate(rate)
    return lambda index, offset: int(index * SECOND / rate)


def poisson(rate: float, seed: int) -> Pace:
    """Independent arrivals: exponential gaps with mean 1 / `rate` seconds. Ask in order of the index."""
    _check_rate(rate)
    draw = random.Random(seed).expovariate
    elapsed = 0.0

    def pace(index: int, offset: int) -> int:
        nonlocal elapsed
        if index:
            elapsed += draw(rate)
        return int(elapsed * SECOND)

    return pace


def ramp(stages: Sequence[Stage]) -> Pace:
    """The rate runs straight from stage to stage and keeps the last one's value.

    The n-th arrival is due when the area under the rate curve reaches n. On a stretch that starts at rate a
    and has slope s, that area after t seconds is a·t + s·t²/2, which is solved for t.
    """
    pieces = _pieces(stages)
    place = 0

    def pace(index: int, offset: int) -> int:
        nonlocal place
        while place + 1 < len(pieces) and pieces[place + 1][0] <= index:
            place += 1
        area, start, rate, slope = pieces[place]
        return int((start + _time_to(index - area, rate, slope)) * SECOND)

    return pace


def warmed_up(pace: Pace, seconds: float) -> Pace:
    """The pace with its rate growing from nothing to all of it over the first `seconds`.

    Of a rate r that grows straight until R, r·t²/2R arrivals come by t ≤ R, and r·(t - R/2) later: solved for
    t with the steady pace's instant u, of which r·u came. Random arrivals stay independent.
    """
    if seconds <= 0:
        return pace
    half = seconds * SECOND / 2

    def warm(index: int, offset: int) -> int:
        steady = pace(index, offset)
        return int(2 * math.sqrt(half * steady)) if steady < half else int(steady + half)

    return warm


def parse_ramp(text: str) -> list[Stage]:
    """`0:100,60s:500` → [(0, 100), (60, 500)]: at once 100/s, then straight up to 500/s at one minute."""
    stages = []
    for part in text.split(","):
        instant, colon, rate = part.strip().partition(":")
        if not colon:
            raise UsageError(f"--ramp {text!r}: write instant:rate pairs, such as 0:100,60s:500")
        stages.append((parse_duration(instant, "--ramp"), _number(rate, "--ramp")))
    if stages[0][0] != 0:
        stages.insert(0, (0.0, stages[0][1]))
    if any(later[0] <= earlier[0] for earlier, later in pairwise(stages)):
        raise UsageError(f"--ramp {text!r}: the instants must increase")
    if any(rate < 0 for _, rate in stages) or stages[-1][1] <= 0:
        raise UsageError(f"--ramp {text!r}: rates must not be negative, and the last one above 0")
    return stages


def parse_duration(text: str, option: str) -> float:
    """`90`, `90s`, `5m`, `1h30m`, `30d`, `200ms` → seconds."""
    total, number, rest = 0.0, "", text.strip()
    if not rest:
        raise UsageError(f"{option}: a duration is missing; write 90s, 5m or 1h30m")
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = rest[: len(rest) - len(rest.lstrip("abcdefghijklmnopqrstuvwxyz"))]
        rest = rest[len(unit) :]
        if not number or (unit or "s") not in _UNITS:
            raise UsageError(f"{option} {text!r} is not a duration: write 90s, 5m or 1h30m")
        total += _number(number, option) * _UNITS[unit or "s"]
    return total


def _check_rate(rate: float) -> None:
    if not 0 < rate < math.inf:
        raise UsageError(f"--rate {rate:g} must be above 0: it is in requests per second")


def _number(text: str, option: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"{option}: {text!r} is not a number") from None
    if not math.isfinite(value):
        raise UsageError(f"{option}: {text!r} is not a number")
    return value


def _pieces(stages: Sequence[Stage]) -> list[tuple[float, float, float, float]]:
    """Stretches as (area before, start in s, rate at start, slope in 1/s²); the last one never ends."""
    pieces, area = [], 0.0
    for (start, rate), (end, later) in pairwise(stages):
        pieces.append((area, start, rate, (later - rate) / (end - start)))
        area += (rate + later) / 2 * (end - start)
    last_start, last_rate = stages[-1]
    pieces.append((area, last_start, last_rate, 0.0))
    return pieces


def _time_to(area: float, rate: float, slope: float) -> float:
    if area <= 0:
        return 0.0
    if slope == 0:
        return area / rate if rate else 0.0
    # The root of rate·t + slope·t²/2 = area that does not cancel when the slope is small.
    return 2 * area / (rate + math.sqrt(max(0.0, rate * rate + 2 * slope * area)))
