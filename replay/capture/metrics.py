"""The books for Prometheus: counters read when they are asked for, served by the recorder, not by the proxy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from replay.errors import UsageError

_OUTCOMES = ("written", "sampled_out", "filtered", "dropped", "failed")
_REASONS = ("filtered", "dropped", "failed")


class BooksCollector(Collector):
    """`totals` and `redacted` are called at each scrape."""

    def __init__(
        self, totals: Callable[[], Mapping[str, Any]], redacted: Callable[[], Mapping[str, int]]
    ) -> None:
        self._totals = totals
        self._redacted = redacted

    def collect(self) -> Iterable[CounterMetricFamily]:
        """The books as counters."""
        books = self._totals()
        by_reason: dict[tuple[str, ...], int] = {
            (part, reason): count for part in _REASONS for reason, count in books[f"{part}_by_reason"].items()
        }
        yield CounterMetricFamily("replay_capture_seen", "Exchanges seen.", value=books["seen"])
        yield _family("exchanges", "What became of them.", ("outcome",), {(o,): books[o] for o in _OUTCOMES})
        yield _family("reasons", "Why exchanges were not written.", ("outcome", "reason"), by_reason)
        yield CounterMetricFamily("replay_capture_truncated", "Bodies kept cut.", value=books["truncated"])
        yield _family("passed", "What passed unrecorded.", ("kind",), _keyed(books["passed"]))
        yield _family("streams", "Exchanges that are streams.", ("kind",), _keyed(books["streams"]))
        yield _family("redacted", "Secrets replaced.", ("detector",), _keyed(dict(self._redacted())))


def _keyed(counts: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    return {(name,): count for name, count in counts.items()}


def _family(
    name: str, what: str, labels: tuple[str, ...], counts: Mapping[tuple[str, ...], int]
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"replay_capture_{name}", what, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family


def serve(address: str, collector: BooksCollector) -> int:
    """Serve at `HOST:PORT` or `:PORT` from a thread; returns the port. `UsageError` where it cannot."""
    host, colon, port = address.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise UsageError(f"--metrics {address}: write HOST:PORT, or :PORT for all addresses")
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, _ = start_http_server(int(port), host.strip("[]") or "0.0.0.0", registry)  # noqa: S104
    except OSError as error:
        raise UsageError(f"--metrics {address} cannot be used ({error.strerror}): choose another") from None
    return int(server.server_port)
