"""Measuring how faithful a run was, streamed over its columns in bounded memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from replay.errors import InputError
from replay.findings import Fidelity
from replay.plan.breaker import STOPPED
from replay.report.fidelity import LATE_NS, FidelityLimits, Measures, judge, trip_text
from replay.store import metadata
from replay.store.reader import Dataset
from replay.store.remote import readable

_SECOND = 1_000_000_000
_COLUMNS = (
    "due_ns",
    "sent_ns",
    "held_ns",
    "duration_ns",
    "endpoint",
    "connection_id",
    "reused",
    "exact",
    "skipped",
)
_CURVE_POINTS = 120
# A second's count may be off by this much without meaning anything: an arrival near its border.
_BORDER = 2
_VARIES = 0.1
_GAP_TENTH, _GAP_NS = 1.1, 100_000


def fidelity_of(run: Path, limits: FidelityLimits | None = None) -> Fidelity:
    """Measure the run and judge it. `InputError` where it is no run."""
    dataset = Dataset.open(run, "run")
    tally = _Tally()
    for batch in dataset.batches(_COLUMNS, order_by=("due_ns",)):
        tally.add(batch)
    measures = _measures(dataset, tally)
    # A stop by hand says nothing about the build.
    fails = dataset.meta["settings"].get("abort_verdict") == "fail" and not any(
        trip["rule"] == STOPPED for trip in _trips(dataset)
    )
    return Fidelity(
        str(run),
        judge(measures, limits or FidelityLimits()),
        tally.points(),
        dict(measures.lag_ns),
        stopped=measures.trips if fails else (),
    )


def _trips(dataset: Dataset) -> list[dict[str, Any]]:
    return list((dataset.meta.get("books") or {}).get("trips", ()))


def fidelities_of(
    runs: Mapping[str, Path | None], limits: FidelityLimits | None = None
) -> dict[str, Fidelity]:
    """How faithful each run was, by its role; a role without a run is left out, and so is a capture as baseline."""
    return {
        role: fidelity_of(run, limits)
        for role, run in runs.items()
        if run is not None and not (role == "baseline" and metadata.kind_of(run) == "capture")
    }


@dataclass(slots=True)
class _Tally:
    """Counts of rounded values: what a percentile or a distance needs, whatever the number of rows."""

    rows: int = 0
    sent: int = 0
    exact: int = 0
    skipped: int = 0
    opened: int = 0
    late: int = 0
    busy_ns: int = 0
    last_ns: int = 0
    lag: Counter[int] = field(default_factory=Counter)
    due_rate: Counter[int] = field(default_factory=Counter)
    sent_rate: Counter[int] = field(default_factory=Counter)
    due_gaps: Counter[int] = field(default_factory=Counter)
    sent_gaps: Counter[int] = field(default_factory=Counter)
    planned_mix: Counter[str] = field(default_factory=Counter)
    sent_mix: Counter[str] = field(default_factory=Counter)
    connections: set[str] = field(default_factory=set)
    _last_due: int | None = None
    _last_sent: int | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in rows sorted by their due instant."""
        self.rows += batch.num_rows
        _count(self.planned_mix, batch["endpoint"])
        self.skipped += batch.num_rows - batch["skipped"].null_count
        # What a build refused was asked for all the same: only what we left out bends the mix.
        _count(self.sent_mix, batch.filter(pc.is_null(batch["skipped"]))["endpoint"])
        sent = batch.filter(pc.is_valid(batch["sent_ns"]))
        if not sent.num_rows:
            return
        self.sent += sent.num_rows
        self.exact += pc.sum(sent["exact"]).as_py() or 0
        self.opened += pc.sum(pc.invert(sent["reused"])).as_py() or 0
        self.busy_ns += pc.sum(sent["duration_ns"]).as_py() or 0
        self.connections.update(sent["connection_id"].unique().to_pylist())
        self._times(sent["due_ns"], pc.subtract(sent["sent_ns"], sent["held_ns"]))

    def _times(self, due: pa.Array, own: pa.Array) -> None:
        """`own`: when each arrival was sent, or would have been without waiting for the target."""
        lag = pc.subtract(own, due)
        self.late += pc.sum(pc.greater(lag, LATE_NS)).as_py() or 0
        _count(self.lag, _rounded(lag))
        _count(self.due_rate, pc.divide(due, _SECOND))
        _count(self.sent_rate, pc.divide(own, _SECOND))
        in_order = own.take(pc.sort_indices(own))
        self._last_due = _count_gaps(self.due_gaps, due, self._last_due)
        self._last_sent = _count_gaps(self.sent_gaps, in_order, self._last_sent)
        self.last_ns = max(self.last_ns, in_order[-1].as_py())

    def points(self) -> tuple[tuple[float, float, float], ...]:
        """The rate curves in at most a hundred or so points."""
        if not self.due_rate:
            return ()
        seconds = max(*self.due_rate, *self.sent_rate) + 1
        step = max(1, math.ceil(seconds / _CURVE_POINTS))
        return tuple(
            (
                float(at),
                sum(self.due_rate[s] for s in range(at, at + step)) / step,
                sum(self.sent_rate[s] for s in range(at, at + step)) / step,
            )
            for at in range(0, seconds, step)
        )


def _measures(dataset: Dataset, tally: _Tally) -> Measures:
    meta = dataset.meta
    books: dict[str, Any] = meta.get("books") or {}
    timed = meta["settings"].get("concurrency") is None
    planned = books.get("planned", tally.rows)
    lost = max(0, planned - tally.rows)
    # An arrival was as late as it seems, give or take what the clocks of machines may be apart: judged is the worse.
    clock_error_ns = int((meta.get("crew") or {}).get("clock_error_ns", 0))
    wall_ns = books.get("wall_ns") or tally.last_ns or 1
    error, correlation = _rate_errors(tally) if timed else (None, None)
    return Measures(
        timed=timed,
        lag_ns={name: lag + clock_error_ns for name, lag in _quantiles(tally.lag).items()} if timed else {},
        clock_error_ns=clock_error_ns,
        deserted=bool((meta.get("crew") or {}).get("lost")) and not meta.get("workers"),
        late_share=tally.late / max(1, tally.sent),
        rate_error=error,
        rate_correlation=correlation,
        gap_distance=_distance(tally.due_gaps, tally.sent_gaps) if timed else None,
        mix_divergence=_divergence(tally.planned_mix, tally.sent_mix),
        planned=planned,
        lost=lost,
        skipped=tally.skipped,
        exact_share=tally.exact / max(1, tally.sent),
        behind_share=books.get("behind", 0) / max(1, tally.sent),
        connections=tally.opened,
        recorded_connections=len(tally.connections),
        concurrency=tally.busy_ns / wall_ns,
        recorded_concurrency=_recorded_concurrency(meta),
        trips=tuple(dict.fromkeys(map(trip_text, _trips(dataset)))),
    )


def _recorded_concurrency(meta: dict[str, Any]) -> float | None:
    """Production's mean number of requests under way, sped up as the run was (Little's law).

    Only where the whole capture was replayed at its own times, and the capture is still there.
    """
    settings, source = meta["settings"], meta["source"]
    other = any(settings.get(name) is not None for name in ("rate", "ramp", "concurrency", "duration"))
    if other or meta["books"].get("left_out") or "capture" not in source:
        return None
    try:
        capture = Dataset.open(readable(source["capture"]), "capture")
    except InputError:
        return None
    busy, first, last = 0, None, 0
    for batch in capture.batches(("started_at", "duration_ns")):
        instants = batch["started_at"].cast(pa.int64())
        busy += pc.sum(batch["duration_ns"]).as_py() or 0
        first = instants[0].as_py() if first is None else first
        last = instants[-1].as_py()
    span = last - (first or 0)
    return busy * float(settings.get("speed", 1.0)) / span if span > 0 else None


def _rounded(values: pa.Array) -> pa.Array:
    """Nanoseconds to three significant digits, in whole microseconds below a millisecond."""
    micros = pc.divide(pc.max_element_wise(values, 0), 1000)
    small = pc.less(micros, 1000)
    digits = pc.floor(pc.log10(pc.max_element_wise(micros, 1).cast(pa.float64())))
    scale = pc.power(10.0, pc.max_element_wise(pc.subtract(digits, 2.0), 0.0))
    coarse = pc.multiply(pc.round(pc.divide(micros.cast(pa.float64()), scale)), scale).cast(pa.int64())
    return pc.multiply(pc.if_else(small, micros, coarse), 1000)


def _count(counter: Counter[Any], values: pa.Array) -> None:
    for item in pc.value_counts(values).to_pylist():
        counter[item["values"]] += item["counts"]


def _count_gaps(counter: Counter[int], instants: pa.Array, before: int | None) -> int:
    if before is not None:
        instants = pa.concat_arrays([pa.array([before], pa.int64()), instants])
    _count(counter, _rounded(pc.subtract(instants[1:], instants[:-1])))
    last: int = instants[-1].as_py()
    return last


def _quantiles(counts: Counter[int]) -> dict[str, float]:
    total = counts.total()
    if not total:
        return {}
    wanted = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    found: dict[str, float] = {}
    seen = 0
    for value, count in sorted(counts.items()):
        seen += count
        for name, share in wanted.items():
            if name not in found and seen >= share * total:
                found[name] = float(value)
    return found


def _rate_errors(tally: _Tally) -> tuple[float | None, float | None]:
    # The last second is rarely whole, and tells nothing about the rate.
    seconds = range(max(tally.due_rate, default=0))
    if len(seconds) < 1:
        return None, None
    due = [tally.due_rate[second] for second in seconds]
    sent = [tally.sent_rate[second] for second in seconds]
    mean = max(1.0, sum(due) / len(due))
    error = max(max(0, abs(a - b) - _BORDER) for a, b in zip(due, sent, strict=True)) / mean
    return error, _correlation(due, sent)


def _correlation(left: list[int], right: list[int]) -> float | None:
    """Pearson's r; `None` where the left hand hardly varies."""
    n = len(left)
    mean_left, mean_right = sum(left) / n, sum(right) / n
    var_left = sum((a - mean_left) ** 2 for a in left)
    var_right = sum((b - mean_right) ** 2 for b in right)
    if n < 5 or not mean_left or math.sqrt(var_left / n) / mean_left < _VARIES:
        return None
    if not var_right:
        return 0.0
    return sum((a - mean_left) * (b - mean_right) for a, b in zip(left, right, strict=True)) / math.sqrt(
        var_left * var_right
    )


def _distance(left: Counter[int], right: Counter[int]) -> float | None:
    """The two-sample Kolmogorov-Smirnov distance, blind to what is too small to matter (as Lévy's metric is).

    Gaps that differ by a tenth, or by 0.1 ms, are the same: otherwise a schedule of equal gaps would be far
    from itself for a microsecond's jitter.
    """
    if not left or not right:
        return None
    return max(_excess(left, right), _excess(right, left))


def _excess(left: Counter[int], right: Counter[int]) -> float:
    """How far the distribution function of `left` rises above that of `right`, taken a little further on."""
    a, b = left.total(), right.total()
    ahead = iter(sorted(right.items()))
    value: int | None
    value, count = next(ahead)
    below_left = below_right = 0
    largest = 0.0
    for at, found in sorted(left.items()):
        below_left += found
        while value is not None and value <= at * _GAP_TENTH + _GAP_NS:
            below_right += count
            value, count = next(ahead, (None, 0))
        largest = max(largest, below_left / a - below_right / b)
    return largest


def _divergence(planned: Counter[str], sent: Counter[str]) -> float:
    """Total variation distance of two mixes: half the sum of the differences of the shares."""
    if not sent:
        return 1.0 if planned else 0.0
    names = {*planned, *sent}
    return sum(abs(planned[n] / planned.total() - sent[n] / sent.total()) for n in names) / 2
