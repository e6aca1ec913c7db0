"""`replay inspect`: what is in a capture or a run, streamed column by column."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from replay.report.overview import EndpointMix, Overview
from replay.store.reader import Dataset
from replay.store.schema import TIME_KEY

_BARS = 60
_COLUMNS = ("session_id", "connection_id", "endpoint", "status", "error", "response_size", "duration_ns")
_LAG_COLUMNS = ("sent_ns", "held_ns")


@dataclass(slots=True)
class _Tally:
    count: int = 0
    failed: int = 0
    size: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    durations: list[pa.Array] = field(default_factory=list)


def inspect(path: Path) -> Overview:
    """Read a dataset's columns (not its bodies) and sum them up. `InputError` where it is none."""
    dataset = Dataset.open(path)
    key = TIME_KEY[dataset.kind]
    run = dataset.kind == "run"
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    sessions: set[str] = set()
    connections: set[str] = set()
    instants: list[pa.Array] = []
    lags: list[pa.Array] = []
    for batch in dataset.batches((key, *_COLUMNS, *(_LAG_COLUMNS if run else ()))):
        instants.append(batch[key].cast(pa.int64()))
        sessions.update(batch["session_id"].unique().to_pylist())
        connections.update(batch["connection_id"].unique().to_pylist())
        if run:
            lags.append(pc.subtract(pc.subtract(batch["sent_ns"], batch["due_ns"]), batch["held_ns"]))
        for endpoint in batch["endpoint"].unique().to_pylist():
            _add(tallies[endpoint], batch.filter(pc.equal(batch["endpoint"], endpoint)))
    step, rate, seconds = _rate(instants)
    return Overview(
        path=str(path),
        kind=dataset.kind,
        meta=dataset.meta,
        count=sum(tally.count for tally in tallies.values()),
        seconds=seconds,
        sessions=len(sessions),
        connections=len(connections),
        step_s=step,
        rate=rate,
        endpoints=tuple(
            _mix(endpoint, tally)
            for endpoint, tally in sorted(tallies.items(), key=lambda item: (-item[1].count, item[0]))
        ),
        lag_ns=_quantiles(lags) if run else {},
    )


def _add(tally: _Tally, rows: pa.RecordBatch) -> None:
    tally.count += rows.num_rows
    tally.failed += rows.num_rows - rows["error"].null_count
    tally.size += pc.sum(rows["response_size"]).as_py() or 0
    for item in pc.value_counts(rows["status"].drop_null()).to_pylist():
        tally.statuses[str(item["values"])] += item["counts"]
    tally.durations.append(rows["duration_ns"].drop_null())


def _mix(endpoint: str, tally: _Tally) -> EndpointMix:
    durations = pa.chunked_array(tally.durations, type=pa.int64())
    p50, p99 = pc.quantile(durations, q=[0.5, 0.99]).to_pylist() if len(durations) else (None, None)
    return EndpointMix(
        endpoint=endpoint,
        count=tally.count,
        statuses=dict(sorted(tally.statuses.items())),
        failed=tally.failed,
        mean_size=tally.size / max(1, tally.count),
        p50_ns=p50,
        p99_ns=p99,
    )


def _rate(instants: list[pa.Array]) -> tuple[float, tuple[int, ...], float]:
    """The width of a bar in seconds, requests in each bar, and the seconds from first to last."""
    everything = pa.chunked_array(instants, type=pa.int64())
    if not len(everything):
        return 1.0, (), 0.0
    span = pc.min_max(everything).as_py()
    seconds = (span["max"] - span["min"]) / 1e9
    step = next(
        (s for s in (0.1, 0.5, 1, 5, 10, 60, 300, 600, 3600) if seconds / s <= _BARS), seconds / _BARS
    )
    places = pc.divide(pc.subtract(everything, span["min"]), int(step * 1e9))
    counted: dict[int, int] = {item["values"]: item["counts"] for item in pc.value_counts(places).to_pylist()}
    return step, tuple(counted.get(place, 0) for place in range(max(counted) + 1)), seconds


def _quantiles(lags: list[pa.Array]) -> dict[str, Any]:
    everything = pa.chunked_array(lags, type=pa.int64()).drop_null()
    if not len(everything):
        return {}
    values = pc.quantile(everything, q=[0.5, 0.9, 0.99, 1.0]).to_pylist()
    return dict(zip(("p50", "p90", "p99", "max"), values, strict=True))
