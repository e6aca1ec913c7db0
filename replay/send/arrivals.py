"""A worker's arrivals: of the shares it began with and those it has taken over, without those it has given up."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import gevent

from replay.plan.shares import Holding
from replay.send.plan_stream import Planned

_POLL_S = 0.002


class Plan(Protocol):
    """One planner's stream (`replay.send.source.Source`)."""

    def __iter__(self) -> Iterator[Planned]: ...

    @property
    def waits(self) -> bool:
        """Whether asking for the next arrival would wait for the planner."""


@dataclass(slots=True, eq=False)
class _Running:
    plan: Plan
    arrivals: Iterator[Planned]
    head: Planned | None = None
    given: dict[int, int] = field(default_factory=dict)
    """Shares that were given up, and the key from which on."""


class Arrivals:
    """Iterates over the arrivals of all plans in the order of their instants, until there are none.

    Plans may be added and shares given up meanwhile. What a plan that was added later has not ready yet does not hold
    up the others: it comes when it is there. Afterwards more plans may be added, and it be iterated over again.
    """

    def __init__(self, by_place: bool = False) -> None:
        """`by_place`: everything is due at once, and keys are places in the plan."""
        self._by_place = by_place
        self._running: list[_Running] = []
        self._last: _Running | None = None
        self._given: dict[int, int] = {}
        self._changed = False

    def __bool__(self) -> bool:
        """Whether any plan is left."""
        return bool(self._running)

    def add(self, plan: Plan, holdings: Iterable[Holding] = ()) -> None:
        """The plan of shares that this worker holds from now on. One that was given up while this was prepared is left
        out from there on, unless it has been taken over again."""
        limits = {
            share: self._given[share] for share, since in holdings if since < self._given.get(share, since)
        }
        self._running.append(_Running(plan, iter(plan), given=limits))
        self._changed = True

    def give(self, shares: Collection[int], key: int) -> None:
        """Leave out what comes of these shares from `key` on, in the plans there are now."""
        self._given.update(dict.fromkeys(shares, key))
        for running in filter(None, (*self._running, self._last)):
            running.given.update((share, min(key, running.given.get(share, key))) for share in shares)
        self._changed = True

    def keeps(self, arrival: Planned) -> bool:
        """Whether the arrival that came last is still to be sent: it may have been given up since."""
        until = None if self._last is None else self._last.given.get(arrival.share)
        return until is None or self._key(arrival) < until

    def _key(self, arrival: Planned) -> int:
        return arrival.place if self._by_place else arrival.due_ns

    def __iter__(self) -> Iterator[Planned]:
        while self._running:
            self._changed = False
            first = self._running[0]
            if len(self._running) == 1 and first.head is None and not first.given:
                yield from self._alone(first)
            elif (arrival := self._next()) is not None:
                yield arrival

    def _alone(self, running: _Running) -> Iterator[Planned]:
        self._last = running
        for arrival in running.arrivals:
            yield arrival
            if self._changed:
                return
        self._running.remove(running)

    def _next(self) -> Planned | None:
        """The earliest arrival that is at hand; `None` where there is none just now, or it was given up."""
        ready = [running for running in list(self._running) if self._has_head(running)]
        if not ready:
            if self._running:
                gevent.sleep(_POLL_S)
            return None
        running = min(ready, key=_instant)
        arrival, running.head = running.head, None
        assert arrival is not None
        self._last = running
        return arrival if self.keeps(arrival) else None

    def _has_head(self, running: _Running) -> bool:
        if running.head is None and not (running.plan.waits and len(self._running) > 1):
            running.head = next(running.arrivals, None)
            if running.head is None:
                self._running.remove(running)
        return running.head is not None


def _instant(running: _Running) -> tuple[int, int]:
    assert running.head is not None
    return running.head.due_ns, running.head.place
