"""Every outcome becomes a row in the journal, a request in Locust's statistics, and an entry in the books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgpack

from replay.model import ERRORS
from replay.send.connection import Outcome
from replay.send.plan_stream import Planned
from replay.store.journal import Journal
from replay.store.schema import RESULTS

LATE_NS = 10_000_000
_SEGMENT_BYTES = 24 << 20

_ROW = b"\xdc" + len(RESULTS).to_bytes(2, "big")
# The columns after the five that the planner packed; an array of 16 or more opens with three bytes.
_IDENTITY_COLUMNS = 5
_TAIL_OPENING = 3
# From sent_ns to error.
_NOTHING_SENT = (None, 0, None, None, None, None, False, False, None, None, None, b"", None, 0, False, None)
assert len(RESULTS) - _IDENTITY_COLUMNS >= 16


class Failed(Exception):  # noqa: N818 - Locust shows the class's name: it is a failed request, not an error of ours
    """An arrival without a whole answer; its text is one of `replay.model.ERRORS`."""


_FAILURES = {kind: Failed(kind) for kind in ERRORS}


class Recorder:
    """Keeps the results of one worker. `fire` is Locust's request event, or a stand-in with its signature."""

    def __init__(self, directory: Path, writer: str, start: int, fire: Callable[..., Any]) -> None:
        self.answered = 0
        self.failed: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.late = 0
        """Arrivals taken up more than 10 ms after they were due: the generator's own lateness."""
        self.lag_max_ns = 0
        # Forcing a segment to the disk would hold up the sender for tens of milliseconds, and a run can be
        # made again. Small segments: the compactor holds a whole one.
        self._journal = Journal(directory, writer, segment_bytes=_SEGMENT_BYTES, settle=False)
        self.start = start
        self._fire = fire
        self._pack = msgpack.Packer().pack

    @property
    def settled(self) -> int:
        """Arrivals whose fate is recorded."""
        return self.answered + self.failed.total() + self.skipped.total()

    def books(self) -> dict[str, Any]:
        """planned = sent + skipped (by reason); sent = answered + failed (by kind)."""
        sent = self.answered + self.failed.total()
        return {
            "planned": sent + self.skipped.total(),
            "sent": sent,
            "answered": self.answered,
            "failed": dict(self.failed),
            "skipped": dict(self.skipped),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
        }

    def record(self, outcome: Outcome) -> None:
        """Write the row of an arrival that was sent, or tried."""
        (arrival, due_at, submitted_at, sent_at, first_at, last_at, connect_ns, tls_ns) = outcome[:8]
        status, head, body, size, error, learned = outcome[8:]
        start = self.start
        changed = arrival.changed
        if submitted_at - due_at > self.lag_max_ns:
            self.lag_max_ns = submitted_at - due_at
        self.late += submitted_at - due_at > LATE_NS
        # Held: from when the sender turned to the arrival to its first byte, waiting for the target.
        tail = self._pack(
            (
                due_at - start,
                None if sent_at is None else sent_at - start,
                (last_at if sent_at is None else sent_at) - submitted_at,
                connect_ns,
                tls_ns,
                None if first_at is None or sent_at is None else first_at - sent_at,
                None if sent_at is None else last_at - sent_at,
                connect_ns is None and sent_at is not None,
                arrival.exact,
                None if changed is None else changed[0],
                None if changed is None else changed[1],
                status,
                head,
                body if status is not None else None,
                size,
                size > len(body),
                error,
                None,
                learned,
                arrival.unbound,
            )
        )
        self._journal.append(b"%b%b%b" % (_ROW, arrival.identity, tail[_TAIL_OPENING:]))
        if error is None and status is not None:
            self.answered += 1
            self.statuses[status] += 1
            failure = None
        else:
            self.failed[str(error)] += 1
            failure = _FAILURES[str(error)]
        self._fire(
            request_type=_cell(arrival.method),
            name=_cell(arrival.endpoint),
            response_time=(last_at - due_at) / 1e6,
            response_length=size,
            exception=failure,
            context={},
            response=None,
        )

    def skip(self, arrival: Planned, due_ns: int) -> None:
        """Write the row of an arrival that is not sent, for the reason it carries."""
        tail = self._pack((due_ns, *_NOTHING_SENT, arrival.skipped, (), None))
        self._journal.append(b"%b%b%b" % (_ROW, arrival.identity, tail[_TAIL_OPENING:]))
        self.skipped[str(arrival.skipped)] += 1

    def flush(self) -> None:
        """Write what is gathered: call it at least once a second."""
        self._journal.flush()

    def discard(self) -> None:
        """End the journal without what has not become Parquet yet."""
        self._journal.discard()

    def close(self) -> None:
        """End the journal; the compactor takes it from there."""
        self._journal.close()


@lru_cache(maxsize=1 << 12)
def _cell(text: str) -> str:
    """Text from the capture as Locust's CSV files may hold it: no spreadsheet takes it for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
