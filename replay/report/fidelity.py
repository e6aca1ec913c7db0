"""How faithful a replay was: measures of a run, each held against a limit.

Time is judged by the generator's own doing alone: what an arrival waited for the build under test (an
earlier answer on its connection, or the connection itself) is left out of it, because a slow build is a
finding and no fault of the replay. The closed loop has no times to keep, and is judged by the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from replay.findings import Check, Fidelity
from replay.report.screen import milliseconds, sparkline

LATE_NS = 10_000_000
"""An arrival sent later than this (10 ms, the generator's own doing) is late."""

_MORE = "give the replayer a core of its own, use more workers, or lower the speed"


@dataclass(frozen=True, slots=True)
class FidelityLimits:
    """What is still faithful. Times in milliseconds; shares, errors and distances from 0 to 1."""

    lag_p99_ms: float = 50.0
    late_share: float = 0.05
    rate_error: float = 0.2
    rate_correlation: float = 0.95
    gap_distance: float = 0.25
    mix_divergence: float = 0.02
    lost: float = 0.0
    skipped_share: float = 0.05


@dataclass(frozen=True, slots=True)
class Measures:
    """What was measured of a run.

    `lag_ns` maps `p50`, `p90`, `p99`, `max` to the generator's lateness. `rate_error` is the largest
    difference of a second's arrivals from the schedule, over the schedule's mean; `rate_correlation` is
    Pearson's, `None` where the schedule hardly varies. `gap_distance` is the Kolmogorov-Smirnov distance of
    the gaps between arrivals. `mix_divergence` is the total variation distance of the endpoints' shares,
    planned and sent. `clock_error_ns` is how far the workers' clocks may be off the master's: it is in `lag_ns`
    already. `deserted`: all workers were lost, so nobody knows what had been planned. `timed` is false in the closed
    loop. Figures that were not to be had are `None`.
    """

    timed: bool
    lag_ns: Mapping[str, float]
    late_share: float
    rate_error: float | None
    rate_correlation: float | None
    gap_distance: float | None
    mix_divergence: float
    planned: int
    lost: int
    skipped: int
    exact_share: float
    behind_share: float
    connections: int
    recorded_connections: int
    concurrency: float
    recorded_concurrency: float | None
    trips: tuple[str, ...] = ()
    clock_error_ns: int = 0
    deserted: bool = False


def trip_text(trip: Mapping[str, Any]) -> str:
    """A trip of the kill switch as the books hold it, in a few words."""
    at = f"at {trip['at_ns'] / 1e9:.1f} s"
    if not trip["limit"]:
        return f"{trip['rule']} {at}"
    value, limit = (f"{x:.1%}" if x <= 1 else f"{x:,.0f}" for x in (trip["value"], trip["limit"]))
    return f"{trip['group']} stopped {at}: {trip['rule']} {value}, limit {limit}"


def judge(measures: Measures, limits: FidelityLimits) -> tuple[Check, ...]:
    """The checks in the order a reader wants them; figures that are only told have no limit (infinity)."""
    told = math.inf
    checks = [
        *(_at_most("kill switch", 1, 0, "", trip) for trip in measures.trips),
        *(
            [_at_least("workers left", 0, 1, "all were lost: see why they ended, and run again")]
            if measures.deserted
            else []
        ),
        _at_most(
            "arrivals lost", measures.lost, limits.lost, "", "a worker was lost, or the run was interrupted"
        ),
        _at_most(
            "skipped",
            _share(measures.skipped, measures.planned),
            limits.skipped_share,
            "share",
            "see `skipped` in the books for the reasons",
        ),
        _at_most(
            "endpoint mix", measures.mix_divergence, limits.mix_divergence, "distance", "see what was skipped"
        ),
    ]
    if measures.timed:
        p99 = measures.lag_ns.get("p99")
        checks += [
            _at_most("lag p99", None if p99 is None else p99 / 1e6, limits.lag_p99_ms, "ms", _MORE),
            *(
                [_at_most("clocks, in the lag", measures.clock_error_ns / 1e6, told, "ms", "")]
                if measures.clock_error_ns
                else []
            ),
            _at_most("later than 10 ms", measures.late_share, limits.late_share, "share", _MORE),
            _at_most("rate, largest error", measures.rate_error, limits.rate_error, "share", _MORE),
            _at_least("rate, correlation", measures.rate_correlation, limits.rate_correlation, _MORE),
            _at_most(
                "gaps (Kolmogorov-Smirnov)", measures.gap_distance, limits.gap_distance, "distance", _MORE
            ),
            _at_most("generator busy", measures.behind_share, told, "share", ""),
        ]
    opened = _share(measures.connections, measures.recorded_connections)
    checks += [
        _at_most("requests byte-identical", measures.exact_share, told, "share", ""),
        _at_most("connections per recorded one", opened, told, "ratio", ""),
        _at_most("concurrency", measures.concurrency, told, "mean", ""),
    ]
    if measures.recorded_concurrency is not None:
        checks.append(_at_most("concurrency recorded", measures.recorded_concurrency, told, "mean", ""))
    return tuple(checks)


def lines(fidelity: Fidelity) -> list[Text]:
    """The report for a terminal: the judgement, then a line for each check."""
    verdict = "faithful" if fidelity.faithful else "NOT FAITHFUL"
    if fidelity.stopped:
        verdict = "STOPPED BY THE KILL SWITCH"
    made = [
        Text(
            f"fidelity of {fidelity.run}: {verdict}",
            style="bold green" if fidelity.faithful and not fidelity.stopped else "bold red",
        )
    ]
    for check in fidelity.checks:
        limit = "" if math.isinf(check.limit) else f"  (limit {shown(check.limit, check.unit)})"
        mark = " " if check.held else "✗"
        text = Text(f"  {mark} {check.name:<29}{shown(check.value, check.unit):>10}{limit}")
        if not check.held:
            text.stylize("red")
            text.append(f": {check.advice}")
        made.append(text)
    if fidelity.lag_ns:
        quantiles = ", ".join(f"{name} {milliseconds(value)} ms" for name, value in fidelity.lag_ns.items())
        made.append(Text(f"    lag of the generator: {quantiles}"))
    if len(fidelity.curve) > 1:
        made.append(Text(f"    rate wanted  {sparkline([wanted for _, wanted, _ in fidelity.curve])}"))
        made.append(Text(f"    rate sent    {sparkline([sent for _, _, sent in fidelity.curve])}"))
    return made


def shown(value: float | None, unit: str) -> str:
    """A figure with its unit, as a reader wants it."""
    if value is None:
        return "-"
    if unit == "share":
        return f"{value:.2%}"
    if unit == "ms":
        return f"{value:.3g} ms"
    return f"{value:,.0f}" if unit == "" else f"{value:.3g}"


def _at_most(name: str, value: float | None, limit: float, unit: str, advice: str) -> Check:
    return Check(name, value, limit, unit, value is None or value <= limit, advice)


def _at_least(name: str, value: float | None, limit: float, advice: str) -> Check:
    return Check(name, value, limit, "ratio", value is None or value >= limit, advice)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
