"""A worker's side of a run that several share: joining, going no further than granted, giving and taking shares."""

from __future__ import annotations

import time
from collections.abc import Callable
from time import monotonic, monotonic_ns
from typing import Any, Protocol

import gevent
from gevent.event import AsyncResult, Event
from gevent.queue import Queue

from replay.plan.breaker import STOPPED, Trip
from replay.plan.shares import Holding
from replay.send import messages
from replay.send.clocks import SAME, Offset, best, machine
from replay.send.leash import HELD, Leash

_EXCHANGES = 8
_ANSWER_S = 2.0
_ASK_S = 1.0
_PLACES = 5_000
"""In the closed loop: how far ahead a worker may go at least, in places of the plan."""
_BEATS = messages.LEASE_NS // int(messages.BEAT_S * 1e9)
_AHEAD_S = 3
"""How far beyond its limit a share is given up: so long the taker has for planning."""


class Work(Protocol):
    """What a hand does to the work of its worker (`replay.send.worker.Worker`)."""

    def take(self, holdings: tuple[Holding, ...]) -> None:
        """Plan these shares too, and send them."""

    def give(self, shares: tuple[int, ...], key: int) -> None:
        """Send nothing of these shares from `key` on."""

    @property
    def idle(self) -> bool:
        """Nothing is left to be sent, and nothing under way."""

    def heed(self, trip: Trip) -> None:
        """Another worker's kill switch has tripped."""

    def cut(self) -> None:
        """Send nothing of what waits for its connection either: it has failed."""

    def halt(self, rule: str, told: bool) -> None:
        """Send nothing more; what is under way is waited for a little. `told`: the books are to say so."""

    def interrupt(self, abandon: bool) -> None:
        """The user has stopped the run; `abandon`: give up what is under way."""


class Hand:
    """Joins one run after the other. `join`, then `ready`, then `done`."""

    def __init__(self, runner: Any) -> None:
        self.quitting = False
        """The process was told to end: it gives no account, and its master takes it for lost."""
        self._runner = runner
        self._clocks: Queue = Queue()
        self._forget()
        handlers = {
            messages.CLOCK: self._clocks.put,
            messages.JOB: lambda data: self._job.set(data),
            messages.START: lambda data: self._started.set(data["at"]),
            messages.GRANT: self._on_grant,
            messages.TAKE: self._on_take,
            messages.GIVE: self._on_give,
            messages.TRIP: self._on_trip,
            messages.END: self._on_end,
            messages.FENCED: lambda data: self._cut_off("it was taken for lost"),
        }
        for name, handler in handlers.items():
            runner.register_message(name, _listener(handler))

    def _forget(self) -> None:
        self.clock: Offset = SAME
        self.leash = Leash(0)
        self.fenced: str | None = None
        """Why this worker had to stop on its own."""
        self._job: AsyncResult = AsyncResult()
        self._started: AsyncResult = AsyncResult()
        self._over = Event()
        self._news = Event()
        self._work: Work | None = None
        self._trips: list[Trip] = []
        self._granted = 0
        self._granted_at = 0.0
        self._takes = 0
        self._before = 0
        self._start = 0
        self._by_place = False
        self._beater: Any = None

    def join(self) -> dict[str, Any]:
        """Take part in the run that the master has begun, or begins later; returns what it says there is to do."""
        self._forget()
        while not self._job.ready():
            measured = self._measured()
            if measured is not None:
                self.clock = measured
                self._runner.send_message(messages.JOIN, {"clock": measured._asdict()})
                self._job.wait(_ASK_S)
        return dict(self._job.get())

    def ready(self, work: Work, by_place: bool) -> int:
        """Say that this worker is ready; wait for the common start, in nanoseconds of this machine's wall clock."""
        self._work, self._by_place = work, by_place
        told = self._awaited_start()
        for trip in self._trips:
            work.heed(trip)
        at = told - self.clock.offset_ns
        self._start = monotonic_ns() + at - time.time_ns()
        self._granted_at = monotonic()
        self._beater = gevent.spawn(self._beat)
        return at

    def _awaited_start(self) -> int:
        """The instant of the master's clock; `GreenletExit` where the run is over before it has begun for this worker,
        or its master is gone."""
        heard = monotonic()
        while not self._over.is_set() and monotonic() - heard < messages.GONE_S:
            self._runner.send_message(messages.READY, {})
            self._runner.send_message(messages.CLOCK, {"sent": 0})
            self._started.wait(_ASK_S)
            if self._started.ready():
                return int(self._started.get())
            while not self._clocks.empty():
                self._clocks.get()
                heard = monotonic()
        raise gevent.GreenletExit

    def more(self) -> bool:
        """All is sent: wait for shares to take over (`True`), or for the end of the run."""
        self._news.wait()
        self._news.clear()
        return not self._over.is_set()

    def alarm(self, trip: Trip) -> None:
        """Tell the other workers."""
        self._runner.send_message(messages.TRIP, trip._asdict())

    def done(self, accounts: dict[str, dict[str, Any]], error: str | None = None, exit_code: int = 0) -> None:
        """Send this worker's account: it is out of the run then."""
        if self._beater is not None:
            self._beater.kill()
        if self.fenced is None and not self.quitting:
            self._runner.send_message(
                messages.DONE, {"accounts": accounts, "error": error, "exit_code": exit_code}
            )

    def wake(self) -> None:
        """Something has come up for whoever waits in `more`."""
        self._news.set()

    def _measured(self) -> Offset | None:
        """How far this clock is off the master's; `None` where the master does not answer."""
        exchanges: list[tuple[int, int, int]] = []
        for _ in range(_EXCHANGES):
            sent = time.time_ns()
            self._runner.send_message(messages.CLOCK, {"sent": sent})
            data: dict[str, Any] = {}
            with gevent.Timeout(_ANSWER_S, False):
                while data.get("sent") != sent:
                    data = self._clocks.get()
                if data["machine"] == machine():
                    return SAME
                exchanges.append((sent, data["at"], time.time_ns()))
        return best(exchanges) if exchanges else None

    def _beat(self) -> None:
        beat = 0
        while True:
            beat += 1
            idle = self._work is not None and self._work.idle
            told = {"until": self._wish(), "idle": idle, "takes": self._takes, "beat": beat}
            self._runner.send_message(messages.AT, told)
            gevent.sleep(messages.BEAT_S)
            silent = monotonic() - self._granted_at
            if silent > messages.HOLD_S:
                self.leash.until = HELD
            if silent > messages.LOST_S and self._work is not None:
                self._work.cut()
            if silent > messages.GONE_S:
                self._cut_off(f"the master was not heard of for {messages.GONE_S:.0f} s")

    def _wish(self) -> int:
        if not self._by_place:
            return monotonic_ns() - self._start + messages.LEASE_NS
        place, before = self.leash.place, self._before
        self._before = place
        return place + _PLACES + _BEATS * (place - before)

    def _on_grant(self, data: Any) -> None:
        self._granted = max(self._granted, data["until"])
        self._granted_at = monotonic()
        if self.fenced is None:
            self.leash.until = self._granted

    def _on_take(self, data: Any) -> None:
        if self._work is not None:
            self._work.take(tuple((share, key) for share, key in data["holdings"]))
            self._takes += 1
            self._news.set()

    def _on_give(self, data: Any) -> None:
        if self._work is None:
            return
        ahead = 3 * _PLACES if self._by_place else _AHEAD_S * 1_000_000_000
        key = self._granted + ahead
        self._work.give(tuple(data["shares"]), key)
        self._runner.send_message(messages.GIVEN, {"shares": data["shares"], "key": key, "to": data["to"]})

    def _on_trip(self, data: Any) -> None:
        if self._work is None:
            self._trips.append(Trip(**data))
        else:
            self._work.heed(Trip(**data))

    def _on_end(self, data: Any) -> None:
        self._over.set()
        if not self._started.ready():
            return  # whoever waits for the start sees it
        if self._work is not None:
            if data.get("stopped"):
                self._work.halt(STOPPED, told=True)
            elif data["interrupted"]:
                self._work.interrupt(bool(data.get("abandon")))
        self._news.set()

    def _cut_off(self, why: str) -> None:
        if self.fenced is None:
            self.fenced = why
            self.leash.until = HELD
            self._over.set()
            if self._work is not None:
                self._work.cut()
                self._work.halt("cut off from the master", told=False)
            self._news.set()


def _listener(handler: Callable[[Any], Any]) -> Callable[..., None]:
    def listen(environment: Any, msg: Any, **_: Any) -> None:
        handler(msg.data)

    return listen
