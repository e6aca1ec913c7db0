"""Which connection an arrival is sent on: one recorded connection is one lane here.

Requests that overlapped on one recorded connection (HTTP/2 streams) cannot share an HTTP/1.1 connection
without waiting for each other, so each takes the first lane of that connection that was free in the
recording.
"""

from __future__ import annotations

NEVER = 1 << 62


class Lanes:
    """Gives each exchange its lane. Ask in order of time; `close` when a connection has no more exchanges."""

    def __init__(self) -> None:
        self._busy_until: dict[str, list[int]] = {}

    def assign(self, connection_id: str, started_at: int, duration_ns: int | None) -> int:
        """The number of the lane (0 for all exchanges of a connection whose exchanges never overlap).

        An exchange without a known end keeps its lane busy for none of the time: what followed it on the
        same connection had waited for it.
        """
        ends = self._busy_until.setdefault(connection_id, [])
        end = started_at + (duration_ns or 0)
        for lane, busy_until in enumerate(ends):
            if busy_until <= started_at:
                ends[lane] = end
                return lane
        ends.append(end)
        return len(ends) - 1

    def close(self, connection_id: str) -> None:
        """Forget a connection."""
        self._busy_until.pop(connection_id, None)
