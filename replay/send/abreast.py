"""Several builds asked at once: each arrival goes to all of them, in an order drawn anew for each.

Asked one after the other, builds meet other clocks, caches and neighbours, and what drifts looks like a
difference. Here every build has a worker of its own (connections, sessions, journal, books), and only the
sending is common: one greenlet takes up each arrival for all of them at its due instant. A single target is
driven by `Pump.run`, which knows nothing of this.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from time import monotonic_ns
from typing import Any

import gevent
from gevent.event import AsyncResult, Event

from replay.errors import ReplayError
from replay.plan.breaker import Trip
from replay.plan.shares import Holding
from replay.send.leash import Leash
from replay.send.plan_stream import Planned
from replay.send.pump import Pump, quiet
from replay.send.worker import Drive, Job, Worker


class Party:
    """Brings together what the workers of one share do in common: the start, and the sending."""

    def __init__(self, size: int, agree: Callable[[], int], seed: str, leash: Leash | None = None) -> None:
        self._size = size
        self._leash = leash or Leash()
        self._agree = agree
        self._random = random.Random(seed)
        self._ready = 0
        self._start: AsyncResult = AsyncResult()
        self._seats: dict[int, tuple[Pump, Iterable[Planned]]] = {}
        self._over = Event()

    def agree(self) -> int:
        """The common start, once every build's worker is ready."""
        self._ready += 1
        if self._ready == self._size:
            self._start.set(self._agree())
        return int(self._start.get())

    def seat(self, number: int) -> Drive:
        """How worker `number` drives its pump: the last to come sends for all, the others wait for their answers."""

        def drive(pump: Pump, source: Iterable[Planned]) -> None:
            self._seats[number] = (pump, source)
            try:
                if len(self._seats) == self._size:
                    try:
                        self._send()
                    finally:
                        self._over.set()
                else:
                    self._over.wait()
                pump.drain()
            finally:
                pump.close()

        return drive

    def _send(self) -> None:
        seats = [self._seats[number] for number in sorted(self._seats)]
        with quiet():
            send_abreast(
                [pump for pump, _ in seats], [source for _, source in seats], self._random, self._leash
            )


def send_abreast(
    pumps: Sequence[Pump],
    sources: Sequence[Iterable[Planned]],
    draw: random.Random,
    leash: Leash | None = None,
) -> None:
    """Take up each arrival for every pump when it is due. The sources are of one plan: the same arrivals."""
    order = list(range(len(pumps)))
    leash = leash or Leash()
    for arrivals in zip(*sources, strict=True):
        if not _await(pumps, arrivals[0], leash):
            return
        draw.shuffle(order)
        for number in order:
            pump, now = pumps[number], monotonic_ns()
            pump.take_up(arrivals[number], pump.due(arrivals[number], now), now)


def _await(pumps: Sequence[Pump], arrival: Planned, leash: Leash) -> bool:
    """Wait until an arrival is due and every pump has room for it; whether the run still goes on then."""
    now = monotonic_ns()
    # Each pump has its own zero: they were taken a microsecond apart.
    due_at = max(pump.due(arrival, now) for pump in pumps)
    if now >= due_at:
        for pump in pumps:
            pump.behind += 1
    leash.place = arrival.place
    key = arrival.place if pumps[0].closed_loop else arrival.due_ns
    while now < due_at or key >= leash.until or any(pump.full for pump in pumps):
        _rest(pumps, now, max(due_at - now, 0))
        now = monotonic_ns()
        if any(pump.over(now) for pump in pumps):
            return False
    return not any(pump.over(now) for pump in pumps)


def _rest(pumps: Sequence[Pump], now: int, wait_ns: int) -> None:
    for pump in pumps:
        pump.housekeep(now)
    busy = next((pump for pump in pumps if pump.has_finished), pumps[0])
    busy.rest(now, wait_ns)


def run_abreast(workers: Sequence[Worker]) -> None:
    """Run the workers of several builds together; killing this one's greenlet stops and drains them all.

    The first error of one stops the others, and is raised when they are done.
    """
    greenlets = [gevent.spawn(_attempt, worker) for worker in workers]
    failure: ReplayError | None = None
    try:
        for done in gevent.iwait(greenlets):
            if isinstance(done.value, ReplayError) and failure is None:
                failure = done.value
                gevent.killall(greenlets, block=False)
    except gevent.GreenletExit:
        gevent.killall(greenlets, block=False)
    while not all(greenlet.ready() for greenlet in greenlets):
        with suppress(gevent.GreenletExit):
            gevent.joinall(greenlets)
    if failure is not None:
        raise failure


def _attempt(worker: Worker) -> ReplayError | None:
    try:
        worker.run()
    except ReplayError as error:
        return error
    return None


def abreast(
    jobs: Sequence[Job],
    fire: Callable[..., Any],
    agree: Callable[[], int],
    alarm: Callable[[Trip], None] | None,
    leash: Leash | None = None,
) -> list[Worker]:
    """The workers of one share, one for each build's job. What stops one stops them all: the rest had no pair."""
    party = Party(len(jobs), agree, f"{jobs[0].settings.seed}/{jobs[0].name}", leash)
    workers: list[Worker] = []

    def alarm_all(trip: Trip) -> None:
        take_all(workers, trip)
        if alarm is not None:
            alarm(trip)

    for number, job in enumerate(jobs):
        named = replace(job, label=f"{job.out.name} {job.name}")
        told = labelled(fire, job.out.name)
        workers.append(Worker(named, told, party.agree, alarm_all, party.seat(number)))
    return workers


class AbreastWork:
    """The workers of one share as a crew's `replay.send.hand.Work`. They are in step, so shares never move."""

    def __init__(self, workers: Sequence[Worker], greenlet: Any) -> None:
        self._workers = workers
        self._greenlet = greenlet
        self.idle = False

    def take(self, holdings: tuple[Holding, ...]) -> None:
        """Not asked of builds in step."""

    def give(self, shares: tuple[int, ...], key: int) -> None:
        """Not asked of builds in step."""

    def heed(self, trip: Trip) -> None:
        """Another worker's kill switch has tripped."""
        take_all(self._workers, trip)

    def cut(self) -> None:
        """Send nothing of what waits for its connection either: it has failed."""
        for worker in self._workers:
            worker.cut()

    def halt(self, rule: str, told: bool) -> None:
        """Send nothing more; what is under way is waited for a little."""
        for worker in self._workers:
            worker.halt(rule, told)

    def interrupt(self, abandon: bool) -> None:
        """The user has stopped the run; `abandon`: give up what is under way."""
        if abandon:
            for worker in self._workers:
                worker.abandon()
        else:
            self._greenlet.kill(block=False)


def take_all(workers: Sequence[Worker], trip: Trip) -> None:
    """A kill switch has tripped: it is open for all of these too."""
    for worker in workers:
        worker.governor.take(trip)


def labelled(fire: Callable[..., Any], label: str) -> Callable[..., Any]:
    """Locust's request event with the build's name before the endpoint's."""

    def told(**given: Any) -> Any:
        return fire(**{**given, "name": f"{label} {given['name']}"})

    return told
