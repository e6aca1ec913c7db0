"""Master and workers of one run agree on when it begins, and notice when one of them is gone.

Messages (Locust's own channel): a worker that has read ahead says READY; when all are, the master tells
everybody the instant, START; a worker that has seen to its share says DONE. A worker whose kill switch has
tripped says TRIP, and the master tells everybody.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from gevent.event import AsyncResult

from replay.plan.breaker import Trip

READY, START, DONE, TRIP = "replay_ready", "replay_start", "replay_done", "replay_trip"

LEAD_NS = 250_000_000
"""From agreement to the common start: messages travel and each worker's garbage is collected in it."""

_MISSING = "missing"


def start_soon() -> int:
    """The start of a run without other workers, in nanoseconds of the wall clock."""
    return time.time_ns() + LEAD_NS


class Hand:
    """A worker's side."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._start: AsyncResult = AsyncResult()
        self.heed: Callable[[Trip], None] | None = None
        """Called with the trips of other workers."""
        runner.register_message(START, self._on_start)
        runner.register_message(TRIP, self._on_trip)

    def agree(self) -> int:
        """Say that this worker is ready; wait for the common start, in nanoseconds of the wall clock."""
        self._runner.send_message(READY, {})
        start = int(self._start.get())
        self._start = AsyncResult()
        return start

    def alarm(self, trip: Trip) -> None:
        """Tell the other workers."""
        self._runner.send_message(TRIP, trip._asdict())

    def _on_trip(self, environment: Any, msg: Any, **_: Any) -> None:
        if self.heed is not None:
            self.heed(Trip(**msg.data))

    def _on_start(self, environment: Any, msg: Any, **_: Any) -> None:
        self._start.set(msg.data["at"])


class Crew:
    """The master's side."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._ready: set[str] = set()
        self._done: set[str] = set()
        self.started = False
        runner.register_message(READY, self._on_ready)
        runner.register_message(DONE, self._on_done)
        runner.register_message(TRIP, self._on_trip)

    def is_over(self) -> bool:
        """Whether every worker that began and still lives is done; a worker lost before it all is the end too."""
        lost = {client.id for client in self._runner.clients.values() if client.state == _MISSING}
        if not self.started:
            return bool(lost)
        return self._ready <= self._done | lost | (self._ready - set(self._runner.clients))

    def _on_ready(self, environment: Any, msg: Any, **_: Any) -> None:
        self._ready.add(msg.node_id)
        if len(self._ready) >= environment.parsed_options.expect_workers and not self.started:
            self.started = True
            self._runner.send_message(START, {"at": time.time_ns() + LEAD_NS})

    def _on_trip(self, environment: Any, msg: Any, **_: Any) -> None:
        self._runner.send_message(TRIP, msg.data)

    def _on_done(self, environment: Any, msg: Any, **_: Any) -> None:
        self._done.add(msg.node_id)
        # A worker may be done before it ever began: its planner found an error.
        self.started = True
        self._ready.add(msg.node_id)
