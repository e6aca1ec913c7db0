"""Closing a run: the workers' accounts become the run's books, and its latencies become histograms.

Each worker enters its own account in run.json when it is done. Whoever is last, or whoever is left when a
worker was lost, closes the run. A lost worker leaves what its journal held; what it had not recorded is in
the books as skipped, `worker lost`: planned is known from the others, whose planners saw the whole capture.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from hdrh.histogram import HdrHistogram

from replay.store import metadata
from replay.store.compact import compact
from replay.store.reader import Dataset

Books = dict[str, Any]

_COUNTS = ("planned", "sent", "answered", "behind")
_BY_KIND = ("failed", "skipped", "statuses", "sessions")
LOST = "worker lost"

LOWEST_US, HIGHEST_US, DIGITS = 1, 3_600_000_000, 3
"""Histograms span a microsecond to an hour, to three significant digits."""


def conclude(
    out: Path, accounts: Mapping[str, Books], lost: Iterable[str] = (), crew: Books | None = None
) -> Books:
    """Enter the workers' accounts by their names, and close the run. `lost` are workers that gave none; `crew` is what
    else is to be told of the workers."""

    def change(meta: metadata.Metadata) -> None:
        meta["workers"] = dict(accounts)
        if crew is not None:
            meta["crew"] = {**crew, "lost": list(lost)}

    metadata.update(out, "run", change)
    return close(out)


def close(out: Path) -> Books:
    """Close the run with what is there. Returns its books; closing twice changes nothing."""
    compact(out, "run", wait=True)
    dataset = Dataset.open(out, "run")
    if dataset.meta["state"] == "closed":
        return dict(dataset.meta["books"])
    accounts = dataset.meta.get("workers", {})
    books = merge(accounts.values())
    lost = len(dataset.meta.get("crew", {}).get("lost", ()))
    short = not lost and books["complete"] and books["planned_by_all"] > books["planned"]
    if lost or short:
        # Nothing that was planned goes missing silently, whatever became of it.
        books = with_lost(books, _counted(dataset), lost)
    metadata.close(out, "run", books, latency=histograms(dataset))
    return books


def merge(accounts: Iterable[Mapping[str, Any]]) -> Books:
    """One set of books of several workers'."""
    books: Books = dict.fromkeys((*_COUNTS, "planned_by_all", "wall_ns", "cpu_ns"), 0)
    kinds: dict[str, Counter[Any]] = {name: Counter() for name in (*_BY_KIND, "left_out")}
    for account in accounts:
        for name in _COUNTS:
            books[name] += account[name]
        for name in kinds:
            # What was left out was left out of the whole capture: every worker says the same.
            kinds[name] = (
                kinds[name] | Counter(account[name])
                if name == "left_out"
                else kinds[name] + Counter(account[name])
            )
        books["trips"] = [*books.get("trips", ()), *account.get("trips", ())]
        books["interrupted"] = books.get("interrupted", False) or account["interrupted"]
        books["complete"] = books.get("complete", True) and account.get("complete", False)
        books["started_at_ns"] = min(
            books.get("started_at_ns", account["started_at_ns"]), account["started_at_ns"]
        )
        books["wall_ns"] = max(books.get("wall_ns", 0), account["wall_ns"])
        books["cpu_ns"] = books.get("cpu_ns", 0) + account["cpu_ns"]
        books["planned_by_all"] = max(books.get("planned_by_all", 0), account["planned_by_all"])
    books.setdefault("complete", False)
    books.setdefault("interrupted", False)
    return {**books, **{name: dict(sorted(counter.items())) for name, counter in kinds.items()}}


def with_lost(books: Books, recorded: Mapping[str, Any], missing: int) -> Books:
    """Books in which the rows on disk count, and what the lost workers never recorded is skipped."""
    failed, skipped = dict(recorded["failed"]), dict(recorded["skipped"])
    rows = recorded["answered"] + sum(failed.values()) + sum(skipped.values())
    planned = max(rows, books["planned_by_all"])
    if planned > rows:
        skipped[LOST] = planned - rows
    sent = recorded["answered"] + sum(failed.values())
    return {
        **books,
        "planned": planned,
        "sent": sent,
        "answered": recorded["answered"],
        "failed": failed,
        "skipped": skipped,
        "statuses": recorded["statuses"],
        "workers_lost": missing,
    }


def _counted(dataset: Dataset) -> Books:
    """The books as the rows on disk tell them."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("status", "error", "skipped")}
    answered = 0
    for batch in dataset.batches(("status", "error", "skipped")):
        plain = pc.and_(pc.is_null(batch["error"]), pc.is_null(batch["skipped"]))
        answered += pc.sum(plain).as_py() or 0
        for name, column in (
            ("status", batch["status"].filter(plain)),
            *((n, batch[n]) for n in ("error", "skipped")),
        ):
            for item in pc.value_counts(column.drop_null()).to_pylist():
                counts[name][str(item["values"])] += item["counts"]
    return {
        "answered": answered,
        "failed": dict(counts["error"]),
        "skipped": dict(counts["skipped"]),
        "statuses": dict(sorted(counts["status"].items())),
    }


def histograms(dataset: Dataset) -> dict[str, dict[str, str]]:
    """Per endpoint, times in microseconds as encoded HDR histograms: `response` from the due instant, `service`."""
    made: dict[str, dict[str, HdrHistogram]] = {}
    columns = ("endpoint", "due_ns", "sent_ns", "duration_ns", "error")
    for batch in dataset.batches(columns, order_by=("due_ns",)):
        answered = batch.filter(pc.and_(pc.is_null(batch["error"]), pc.is_valid(batch["duration_ns"])))
        late = pc.subtract(answered["sent_ns"], answered["due_ns"])
        times = {"response": pc.add(late, answered["duration_ns"]), "service": answered["duration_ns"]}
        for endpoint in answered["endpoint"].unique().to_pylist():
            mine = pc.equal(answered["endpoint"], endpoint)
            for name, column in times.items():
                histogram = made.setdefault(endpoint, {}).setdefault(
                    name, HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
                )
                _record(histogram, column.filter(mine))
    return {
        endpoint: {name: base64.b64encode(histogram.encode()).decode() for name, histogram in pair.items()}
        for endpoint, pair in sorted(made.items())
    }


def _record(histogram: HdrHistogram, times_ns: pa.Array) -> None:
    # Distinct values with their counts: far fewer calls than rows, once rounded to what is kept anyway.
    rounded = pc.round_to_multiple(pc.divide(times_ns, 1000).cast(pa.float64()), 1.0).cast(pa.int64())
    for item in pc.value_counts(rounded).to_pylist():
        histogram.record_value(min(HIGHEST_US, max(LOWEST_US, item["values"])), item["counts"])
