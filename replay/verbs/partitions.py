"""A comparison in pieces: each of a bounded size, any number at a time, the same result however they are shared.

Exchanges are cut into ranges of their ids, which sort by time as the files do, so that a piece reads few row
groups besides its own. (A hash of the id would spread every piece over every file.) Where the cuts are depends
on the data alone, never on the number of jobs.

`compare` makes a `Partial` of one `Partition`; both can be pickled, and partials merge in any order: a pool of
processes here, a cluster elsewhere.
"""

from __future__ import annotations

import multiprocessing
import operator
import os
import signal
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.dataset as ds

from replay.diff.answers import Answer
from replay.diff.diverged import NO_WAYS, Ways, Wrote, turned
from replay.diff.pairs import join
from replay.diff.partial import Partial
from replay.diff.session import Comparison
from replay.diff.settings import DiffSettings
from replay.plan.dispatch import SAFE_METHODS
from replay.store.reader import Dataset, to_rows

PARTITION_BYTES = 64 << 20
"""About what one partition holds of all its runs together, uncompressed."""

_ENOUGH_FOR_A_POOL = 4
# Each takes some 300 MB: more of them are for those to ask who have that.
_MOST_BY_ITSELF = 2
_ORDER = ("exchange_id", "lap")
_CAPTURED = (
    *("exchange_id", "session_id", "endpoint", "status", "response_headers", "response_body"),
    *("response_size", "truncated", "error", "duration_ns"),
)

Span = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Source:
    """Where one side's answers are: a run, or a capture, which has what production answered."""

    path: Path
    kind: str

    def answers(self, where: ds.Expression | None = None) -> Iterator[Answer]:
        """Its answers by exchange and lap."""
        dataset = Dataset(self.path, self.kind, {})
        if self.kind == "run":
            for batch in dataset.batches(Answer._fields, where, _ORDER):
                yield from map(Answer._make, to_rows(batch))
            return
        for batch in dataset.batches(_CAPTURED, where, _ORDER[:1]):
            for eid, session, endpoint, status, headers, body, size, cut, error, duration in to_rows(batch):
                yield Answer(
                    eid, 0, session, endpoint, status, headers, body, size, cut, error, None, 0, 0, duration
                )

    def writes(self) -> Iterator[Wrote]:
        """What became of its requests that are not safe, by exchange and lap."""
        dataset = Dataset(self.path, self.kind, {})
        columns, where = Wrote._fields, _is_write()
        if self.kind == "run":
            for batch in dataset.batches(columns, where, _ORDER):
                yield from map(Wrote._make, to_rows(batch))
            return
        known = ("exchange_id", "session_id", "endpoint", "status", "error")
        for batch in dataset.batches(known, where, _ORDER[:1]):
            for exchange_id, session_id, endpoint, status, error in to_rows(batch):
                yield Wrote(exchange_id, 0, session_id, endpoint, status, error, None)


@dataclass(frozen=True, slots=True)
class Partition:
    """The exchanges from `low` on and before `high` (`None`: open), of two or three sides."""

    sources: tuple[Source, ...]
    settings: DiffSettings
    low: str | None = None
    high: str | None = None
    ways: Ways = NO_WAYS

    def located(self) -> Partition:
        """The same with absolute paths, for processes that work elsewhere in the file system."""
        return replace(self, sources=tuple(replace(side, path=side.path.resolve()) for side in self.sources))


def partitions(sources: Sequence[Source], settings: DiffSettings) -> list[Partition]:
    """All exchanges of these sides, in partitions of about `PARTITION_BYTES`."""
    spans = [span for side in sources for span in Dataset(side.path, side.kind, {}).spans("exchange_id")]
    edges = [None, *cuts(spans, PARTITION_BYTES), None]
    ways = ways_of(sources)
    return [
        Partition(tuple(sources), settings, low, high, ways.before(high)) for low, high in pairwise(edges)
    ]


def ways_of(sources: Sequence[Source]) -> Ways:
    """Which sessions of the candidate and the control went another way than the baseline's."""
    baseline, *others = sources
    found = [turned(baseline.writes(), other.writes()) for other in others]
    return Ways(found[0], found[1] if len(found) > 1 else {})


def compare(partition: Partition) -> Partial:
    """The tallies of one partition, read from disk in the memory of one partition."""
    comparison = beginning(partition.sources, partition.settings, partition.ways)
    where = _within(partition.low, partition.high)
    sides = [side.answers(where) for side in partition.sources]
    if comparison.captured:
        sides[1:] = [_first_lap(side) for side in sides[1:]]
    for trio in join(*sides):
        comparison.add(trio)
    return comparison.partial()


def compare_all(
    sources: Sequence[Source], settings: DiffSettings, jobs: int | None = None, dask: str | None = None
) -> Comparison:
    """The whole comparison, shared by `jobs` processes (`None`: two, where it is worth it) or the cluster at `dask`."""
    comparison = beginning(sources, settings)
    tasks = partitions(sources, settings)
    if jobs is None:
        cores = min(_MOST_BY_ITSELF, len(os.sched_getaffinity(0)))
        jobs = cores if len(tasks) >= _ENOUGH_FOR_A_POOL else 1
    for partial in _partials(tasks, jobs, dask):
        comparison.absorb(partial)
    return comparison


def _partials(tasks: Sequence[Partition], jobs: int, dask: str | None) -> Iterable[Partial]:
    if dask is not None:
        from replay.verbs.dask_cluster import compared

        return compared([task.located() for task in tasks], dask)
    return map(compare, tasks) if jobs == 1 or len(tasks) == 1 else _pooled(tasks, jobs)


def beginning(sources: Sequence[Source], settings: DiffSettings, ways: Ways = NO_WAYS) -> Comparison:
    """A comparison of these sides, nothing added yet."""
    return Comparison(settings, len(sources) > 2, sources[0].kind == "capture", ways)


def cuts(spans: Iterable[Span], size: int) -> list[str]:
    """Where to cut keys so that about `size` bytes lie between two cuts.

    A span (lowest key, highest key, bytes) is taken to be even: it spreads its bytes over the edges of all
    spans that it covers.
    """
    known = list(spans)
    edges = sorted({edge for low, high, _ in known for edge in (low, high)})
    filled = [0.0] * len(edges)
    for low, high, nbytes in known:
        first, last = bisect_left(edges, low), bisect_left(edges, high)
        for place in range(first, max(last, first + 1)):
            filled[place] += nbytes / max(1, last - first)
    found, gathered = [], 0.0
    for edge, weight in zip(edges, filled, strict=True):
        if gathered and gathered + weight > size:
            found.append(edge)
            gathered = 0.0
        gathered += weight
    return found


def _pooled(tasks: Sequence[Partition], jobs: int) -> Iterator[Partial]:
    # Spawned, not forked: Arrow has threads, and a fork would keep their locks.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(tasks)), context, _ignore_interrupts) as pool:
        try:
            yield from pool.map(compare, tasks)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _ignore_interrupts() -> None:
    """Ctrl-C comes to the whole group: the one who shares out the work decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _first_lap(answers: Iterable[Answer]) -> Iterator[Answer]:
    return (answer for answer in answers if answer.lap == 0)


def _is_write() -> ds.Expression:
    field = ds.field("endpoint")
    found = [pc.starts_with(field, pattern=f"{method} ") for method in sorted(SAFE_METHODS)]
    return ~reduce(operator.or_, found)


def _within(low: str | None, high: str | None) -> ds.Expression | None:
    field = ds.field("exchange_id")
    if low is None:
        return None if high is None else field < high
    return field >= low if high is None else (field >= low) & (field < high)
