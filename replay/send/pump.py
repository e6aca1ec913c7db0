"""The pump: hands each arrival to its connection when it is due, whatever the answers do.

Deadlines are absolute, so lateness is made good at once and never accumulates. The pump is one greenlet. In
the time before a deadline it records what has been answered, a piece at a time, and lets the event loop
run; the last stretch is spent spinning (still letting the loop run), because a timer's grain is coarser than
a millisecond. The garbage collector is off meanwhile: with it, stalls of a hundred milliseconds appear.
"""

from __future__ import annotations

import gc
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic_ns

import gevent

from replay.plan.breaker import AbortRules, Governor
from replay.send.connection import Connection, Outcome
from replay.send.leash import HELD, Leash
from replay.send.logins import Login
from replay.send.plan_stream import Planned
from replay.send.recorder import Recorder
from replay.send.sessions import Due, Sessions
from replay.send.target import Endpoint
from replay.send.turns import Turns

NEVER = AbortRules(errors=0, failures=0, refused=0)
"""Rules that never stop anything."""

_MS = 1_000_000
_HELD_NS = 5 * _MS
_FLUSH_NS = 500 * _MS
_SWEEP_NS = 250 * _MS
# How many sends or records may pass before the event loop must get its turn.
_SLICE = 16
_BACKLOG = 256
_DRAIN_S = 0.002
_DRAIN_TIMEOUTS = 3
# How long answers may still come once the kill switch has stopped everything.
_STOPPED_NS = 1000 * _MS


@contextmanager
def quiet() -> Iterator[None]:
    """The garbage collector frozen and off meanwhile."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


class Pump:
    """Drives arrivals against one endpoint. One use: `run`, then read the recorder's books.

    `concurrency` bounds the arrivals under way (the closed loop), and `duration_ns` how long that goes on:
    in the open loop the due instants tell. `pooled` sends each arrival on whichever connection is free
    instead of on its recorded one. `governor` may refuse arrivals and stop it all; `watch` is called a few
    times a second, to look around and to tell others. `keeps` tells of an arrival that was waited with beyond the
    leash whether it is still this pump's.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        recorder: Recorder,
        *,
        start: int,
        timeout_ns: int,
        spin_ns: int = 1_500_000,
        concurrency: int | None = None,
        duration_ns: int | None = None,
        pooled: bool = False,
        login: Login | None = None,
        governor: Governor | None = None,
        watch: Callable[[], None] | None = None,
        leash: Leash | None = None,
        keeps: Callable[[Planned], bool] = lambda arrival: True,
    ) -> None:
        self.started = 0
        """Arrivals taken up so far."""
        self.under_way = 0
        self.behind = 0
        """Arrivals that were due already when the pump came to them. Of arrivals at random, the share that
        finds a server busy is its utilisation (PASTA): so this share tells how near the pump is to its limit."""
        self._endpoint = endpoint
        self._recorder = recorder
        self._start = start
        self._timeout_ns = timeout_ns
        self._spin_ns = spin_ns
        self._concurrency = concurrency
        self._closed_until = math.inf if duration_ns is None else start + duration_ns
        self._pooled = pooled or concurrency is not None
        self._governor = governor or Governor(NEVER)
        self._watch = watch
        self._leash = leash or Leash()
        self._keeps = keeps
        self._loop = gevent.get_hub().loop
        self._lanes: dict[int, Connection] = {}
        self._free: list[Connection] = []
        self._closing: set[Connection] = set()
        self._finished: deque[Outcome] = deque()
        self.sessions = Sessions(login, self._release)
        self._released: deque[Due] = deque()
        self._next_flush = start
        self._next_sweep = start
        self._since_yield = 0
        self._turns = Turns()

    def run(self, arrivals: Iterable[Planned], more: Callable[[], bool] = lambda: False) -> None:
        """Send all arrivals, each at its instant, and wait for the last answer or timeout; then again, where there is
        `more`."""
        try:
            with quiet():
                while True:
                    if self._concurrency is None:
                        self._open_loop(arrivals)
                    else:
                        self._closed_loop(arrivals, self._concurrency)
                    self.drain()
                    if not more():
                        return
        finally:
            self.close()

    def close(self) -> None:
        """Release what the pump waits with: it is not used again."""
        self._turns.close()

    def drain(self) -> None:
        """Wait for what is under way, and for what waits for it on the same connection.

        Each arrival has its own timeout. A whole queue behind a target that answers nothing is not waited
        for to its end: what is left after three timeouts has failed as `timeout`.
        """
        deadline = monotonic_ns() + _DRAIN_TIMEOUTS * self._timeout_ns
        stopped = False
        while (self.under_way or self._finished) and (now := monotonic_ns()) < deadline:
            if self._governor.stopped and not stopped:
                stopped, deadline = True, min(deadline, now + _STOPPED_NS)
                self.cut(now)
            self._housekeep(now)
            self._record_some(_SLICE)
            gevent.sleep(0 if self._finished else _DRAIN_S)
        self.abandon("interrupted" if self._governor.stopped else "timeout")
        self._look_around()

    def cut(self, now: int) -> None:
        """Send nothing of what has been taken up: what waits for its connection has failed."""
        for connection in self._connections():
            connection.cut(now, "interrupted")

    def _look_around(self) -> None:
        if self._watch is not None:
            self._watch()

    def abandon(self, error: str) -> None:
        """Fail what is under way at once, close every connection, record everything."""
        now = monotonic_ns()
        for connection in self._connections():
            connection.abandon(now, error)
        for arrival, due_at, taken_up in [*self._released, *self.sessions.held()]:
            self.under_way -= 1
            self._finished.append(Outcome.unsent(arrival, due_at, taken_up, now, error))
        self._released.clear()
        self._lanes.clear()
        self._free.clear()
        self._record_some(len(self._finished))
        self._recorder.flush()

    def _open_loop(self, arrivals: Iterable[Planned]) -> None:
        start = self._start
        governor = self._governor
        leash = self._leash
        for arrival in arrivals:
            if governor.stopped:
                return
            due_at = start + arrival.due_ns
            now = monotonic_ns()
            if arrival.due_ns >= leash.until:
                while arrival.due_ns >= leash.until:
                    self._rest(now, _HELD_NS)
                    now = monotonic_ns()
                    if self._governor.stopped:
                        return
                if not self._keeps(arrival):
                    continue
            if now >= due_at:
                self.behind += 1
            while now < due_at:
                self._rest(now, due_at - now)
                now = monotonic_ns()
                if self._governor.stopped:
                    return
            self._take_up(arrival, due_at, now)

    def _closed_loop(self, arrivals: Iterable[Planned], concurrency: int) -> None:
        leash = self._leash
        for arrival in arrivals:
            leash.place = arrival.place
            held = arrival.place >= leash.until
            while (
                self.under_way >= concurrency or arrival.place >= leash.until
            ) and not self._governor.stopped:
                self._rest(monotonic_ns(), _MS)
                held = held or arrival.place >= leash.until
            if held and not self._keeps(arrival):
                continue
            now = monotonic_ns()
            if now >= self._closed_until or self._governor.stopped:
                return
            self._take_up(arrival, now, now)

    def _take_up(self, arrival: Planned, due_at: int, now: int) -> None:
        self.started += 1
        if arrival.skipped is None:
            reason = self._governor.refuses(arrival.endpoint, now - self._start, self.under_way)
            if reason is not None:
                arrival = arrival._replace(skipped=reason)
        if arrival.skipped is not None:
            self._recorder.skip(arrival, arrival.due_ns)
            self.sessions.skip(arrival)
            if arrival.ends:
                self._end(arrival.ends)
        else:
            self.under_way += 1
            ready = self.sessions.admit(arrival, due_at, now)
            if ready is not None:
                self._submit(ready, due_at, now, now)
        self._since_yield += 1
        if self._since_yield >= _SLICE:
            # Behind schedule there is no waiting in which the loop would get its turn: give it one.
            self._breathe(now)

    def _submit(self, arrival: Planned, due_at: int, taken_up: int, now: int) -> None:
        if self._pooled:
            connection = self._free.pop() if self._free else self._new_connection()
        else:
            connection = self._lanes.get(arrival.lane) or self._new_lane(arrival.lane)
        connection.submit(arrival, due_at, taken_up, now)
        if arrival.ends:
            self._end(arrival.ends)

    def _rest(self, now: int, wait_ns: int) -> None:
        """Use the time before a deadline: record, or let the event loop run, or sleep."""
        if self._finished:
            self._record_some(1)
            self._since_yield += 1
            if self._since_yield >= _SLICE:
                self._breathe(now)
        elif wait_ns > self._spin_ns:
            self._housekeep(now)
            self._since_yield = 0
            gevent.sleep(min(wait_ns - self._spin_ns, _SWEEP_NS) / 1e9)
        else:
            self._breathe(now)

    def _breathe(self, now: int) -> None:
        self._since_yield = 0
        self._housekeep(now)
        self._turns.give()
        if len(self._finished) > _BACKLOG:
            self._record_some(_BACKLOG // 2)

    def _record_some(self, count: int) -> None:
        finished = self._finished
        record = self._recorder.record
        for _ in range(min(count, len(finished))):
            record(finished.popleft())

    def _housekeep(self, now: int) -> None:
        if now >= self._next_flush:
            self._recorder.flush()
            self._next_flush = now + _FLUSH_NS
        if now >= self._next_sweep:
            for connection in self._connections():
                connection.expire(now, self._timeout_ns)
            if self._released:
                # Left while this worker was not to send.
                self._loop.run_callback(self._submit_released)
            self._look_around()
            self._next_sweep = now + _SWEEP_NS

    def _connections(self) -> list[Connection]:
        return [*self._lanes.values(), *self._closing]

    # In step with the pumps of other builds: see `replay.send.abreast`

    @property
    def full(self) -> bool:
        """The closed loop has as many arrivals under way as it may have."""
        return self._concurrency is not None and self.under_way >= self._concurrency

    @property
    def closed_loop(self) -> bool:
        """Arrivals are due when there is room for them."""
        return self._concurrency is not None

    @property
    def expired(self) -> bool:
        """The closed loop's duration is over, however much is left to be sent."""
        return monotonic_ns() >= self._closed_until

    @property
    def has_finished(self) -> bool:
        """There are outcomes to record."""
        return bool(self._finished)

    def due(self, arrival: Planned, now: int) -> int:
        """When an arrival is due: in the closed loop, whenever its turn has come."""
        return now if self._concurrency is not None else self._start + arrival.due_ns

    def over(self, now: int) -> bool:
        """Nothing more is to be taken up."""
        return self._governor.stopped or (self._concurrency is not None and now >= self._closed_until)

    def take_up(self, arrival: Planned, due_at: int, now: int) -> None:
        """Send one arrival now."""
        self._take_up(arrival, due_at, now)

    def rest(self, now: int, wait_ns: int) -> None:
        """Use some of the time before the next arrival."""
        self._rest(now, wait_ns or _MS)

    def housekeep(self, now: int) -> None:
        """Write what is gathered, give up what has waited too long: cheap to ask, seldom to be done."""
        self._housekeep(now)

    # Connections

    def _new_lane(self, lane: int) -> Connection:
        connection = Connection(self._endpoint, self._loop, self._on_finished)
        self._lanes[lane] = connection
        return connection

    def _new_connection(self) -> Connection:
        connection = Connection(self._endpoint, self._loop, self._on_finished)
        self._lanes[-1 - len(self._lanes)] = connection
        return connection

    def _on_finished(self, outcome: Outcome, connection: Connection) -> None:
        self.under_way -= 1
        outcome, released = self.sessions.settle(outcome)
        self._finished.append(outcome)
        last_at = outcome.last_at
        self._governor.hear(
            outcome.arrival.endpoint,
            last_at - self._start,
            outcome.status,
            outcome.error,
            last_at - outcome.due_at,
        )
        if released:
            self._release(released)
        if self._pooled:
            self._free.append(connection)
        elif connection.over and connection.idle:
            self._closing.discard(connection)

    def _release(self, ready: list[Due]) -> None:
        """Send these from the loop, not from here: a connection may be in the midst of finishing."""
        if ready and not self._released:
            self._loop.run_callback(self._submit_released)
        self._released.extend(ready)

    def _submit_released(self) -> None:
        """Send what has waited for answers of its session that are there now."""
        released = self._released
        while released and not self._governor.stopped and self._leash.until != HELD:
            self._submit(*released.popleft(), monotonic_ns())

    def _end(self, lanes: Iterable[int]) -> None:
        if self._pooled:
            return
        for lane in lanes:
            connection = self._lanes.pop(lane, None)
            if connection is None:
                continue
            connection.over = True
            if connection.idle:
                connection.close()
            else:
                self._closing.add(connection)
