"""The master's side of a run that several workers share: who takes part, how far each may go, who takes over."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gevent

from replay.plan.shares import SHARES_EACH, Deal
from replay.send import messages
from replay.send.clocks import machine

_MISSING = "missing"
_OVERSLEPT_S = 1.0
"""So long the master may not have looked after its workers before it distrusts its own clock rather than them."""
_CLOSING_S = 90
"""How long workers may take for their last answers and files when the run was stopped."""

Books = dict[str, Any]


@dataclass(slots=True, eq=False)
class _Member:
    """A worker, as the master knows it."""

    name: str
    node: str
    heard_at: float
    ready: bool = False
    idle: bool = False
    done: bool = False
    takes: int = 0
    """How often it was told to take shares over: what it says is of that many."""
    clock: dict[str, int] = field(default_factory=dict)


class Crew:
    """All workers of the run under way. `begin` before each."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._forget()
        handlers = {
            messages.CLOCK: self._on_clock,
            messages.JOIN: self._on_join,
            messages.READY: self._on_ready,
            messages.AT: self._on_at,
            messages.GIVEN: self._on_given,
            messages.DONE: self._on_done,
            messages.TRIP: self._on_trip,
        }
        for name, handler in handlers.items():
            runner.register_message(name, _listener(handler))

    def _forget(self) -> None:
        self.started = False
        self.accounts: dict[str, dict[str, Books]] = {}
        """The workers' accounts by their names, each by the directory of the run."""
        self.failed: tuple[str, int] | None = None
        """What kept a worker from taking part, and the exit code for it."""
        self._members: dict[str, _Member] = {}
        self._deal = Deal(1)
        self._expected = 0
        self._job: dict[str, Any] = {}
        self._movable = False
        self._start = 0
        self._ended = False
        self._closing = False
        self._late = 0
        self._moved = 0
        self._trips: list[Any] = []
        self._looked_at = 0.0
        self._watcher: Any = None

    def begin(
        self, job: Mapping[str, Any], expected: int, movable: bool, stopped: Callable[[], bool]
    ) -> None:
        """A run begins: what every worker is told, how many are waited for, whether shares may move from one to
        another. `stopped` tells whether the run is to be stopped from outside."""
        self.close()
        self._forget()
        self._job = dict(job)
        self._expected = expected
        self._movable = movable
        self._deal = Deal(expected * SHARES_EACH if movable else expected)
        self._deal.open(f"w{number}" for number in range(expected))
        self._watcher = gevent.spawn(self._watch, stopped)

    def is_over(self) -> bool:
        """Whether every worker that is left has sent its account; one that was lost before it all is the end too."""
        if not self.started:
            self.failed = self.failed or self._cannot_begin()
            return self.failed is not None
        return all(member.done for member in self._at_work())

    def _cannot_begin(self) -> tuple[str, int] | None:
        """All that are expected are needed for the start: why they will not come, and the exit code for it."""
        there = {node for node, client in self._runner.clients.items() if client.state != _MISSING}
        gone = [member.name for member in self._first() if member.done or member.node not in there]
        if gone or len(there) < self._expected:
            which = f"worker {gone[0]}" if gone else "a worker"
            return f"{which} went away before the run began: start it again, then the run", 2
        return None

    def finish(self) -> None:
        """The run was stopped: have all workers end, and wait for their accounts."""
        self._end(interrupted=not self._ended)
        if not self.started:
            return
        with gevent.Timeout(_CLOSING_S, False):
            while not self.is_over():
                gevent.sleep(0.05)

    def abandon(self) -> None:
        """Have all workers give up what is under way."""
        self._end(interrupted=True, abandon=True)

    def close(self) -> None:
        """The run is over."""
        if self._watcher is not None:
            self._watcher.kill()

    @property
    def lost(self) -> tuple[str, ...]:
        """The workers that were lost."""
        return tuple(sorted(self._deal.lost))

    def told(self) -> Books:
        """What the books say of the workers."""
        members = [member for member in self._members.values() if member.clock]
        return {
            "joined_late": self._late,
            "shares": self._deal.count,
            "shares_moved": self._moved,
            "clock_error_ns": max((member.clock["error_ns"] for member in members), default=0),
            "clocks": {member.name: member.clock for member in members},
        }

    def _living(self) -> list[_Member]:
        return [member for member in self._members.values() if member.name not in self._deal.lost]

    def _at_work(self) -> list[_Member]:
        """The workers that have read ahead and tell how far they are; one that still fetches the capture does not."""
        return [member for member in self._living() if member.ready]

    def _all_are_ready(self) -> bool:
        """Whether all that hold shares from the beginning are; a late one does not stand in for any of them."""
        first = self._first()
        return len(first) == self._expected and all(member.ready for member in first)

    def _first(self) -> list[_Member]:
        return list(self._members.values())[: self._expected]

    # What workers say

    def _on_clock(self, node: str, data: Any) -> None:
        self._send(messages.CLOCK, {"sent": data["sent"], "at": time.time_ns(), "machine": machine()}, node)

    def _on_join(self, node: str, data: Any) -> None:
        if not self._job or node in self._members:
            return
        name = f"w{len(self._members)}"
        member = self._members[node] = _Member(name, node, time.monotonic(), clock=data["clock"])
        self._send(
            messages.JOB,
            {**self._job, "name": name, "holdings": self._deal.holdings(name), "shares": self._deal.count},
            member.node,
        )

    def _on_ready(self, node: str, data: Any) -> None:
        member = self._members.get(node)
        if member is None or self.failed is not None or self._closing:
            # It had joined another run, or this one is over before it has begun.
            self._send(messages.END, {"interrupted": True}, node)
            return
        if member.ready:
            return
        member.ready = True
        member.heard_at = time.monotonic()
        if member not in self._first():
            # Not before: nothing can be given to a worker that is still fetching the capture.
            self._late += 1
            self._deal.join(member.name)
        if self.started:
            self._send(messages.START, {"at": self._start}, node)
            for trip in self._trips:
                self._send(messages.TRIP, trip, node)
            self._even_out(member)
        elif self._all_are_ready():
            self.started = True
            self._start = time.time_ns() + messages.LEAD_NS
            for other in self._members.values():
                other.heard_at = time.monotonic()
            self._tell_all(messages.START, {"at": self._start})
            for other in self._at_work():
                self._even_out(other)

    def _on_at(self, node: str, data: Any) -> None:
        member = self._members.get(node)
        if member is None or member.name in self._deal.lost:
            self._send(messages.FENCED, {}, node)
            return
        member.heard_at = time.monotonic()
        member.idle = data["idle"] and data["takes"] == member.takes
        limit = self._deal.grant(member.name, data["until"])
        self._send(messages.GRANT, {"until": limit, "beat": data["beat"]}, node)

    def _on_given(self, node: str, data: Any) -> None:
        member = self._members.get(node)
        if member is None:
            return
        holder, moved = self._deal.move(member.name, data["to"], data["shares"], data["key"])
        if moved:
            self._take(holder, moved)

    def _on_done(self, node: str, data: Any) -> None:
        member = self._members.get(node)
        if member is None:
            return
        error = data.get("error")
        if error and self.started and not self._deal.holdings(member.name):
            # It came late, and nothing depends on it.
            print(f"replay: worker {member.name} takes no part: {error}", file=sys.stderr)
        elif error:
            self.failed = self.failed or (error, data["exit_code"])
            self._end(interrupted=True)
        member.ready = member.done = True
        self.accounts[member.name] = data["accounts"]
        cut_short = not data["accounts"] or any(books["interrupted"] for books in data["accounts"].values())
        if self.started and not self._closing and cut_short:
            # It has ended before the run: others send what it held.
            self._lose(member)

    def _on_trip(self, node: str, data: Any) -> None:
        # Also for those that come later.
        self._trips.append(data)
        self._tell_all(messages.TRIP, data)

    # What the master sees to

    def _watch(self, stopped: Callable[[], bool]) -> None:
        told = False
        while True:
            gevent.sleep(messages.BEAT_S)
            if not told and self.started and stopped():
                told = True
                self._end(interrupted=False, stopped=True)
            if self.started:
                self.look_after()

    def look_after(self) -> None:
        """Notice who is lost, and whether all is sent. Until its account is there a worker may be lost, also after
        the end: whoever waits for it would wait for ever."""
        now = time.monotonic()
        late, self._looked_at = now - self._looked_at > _OVERSLEPT_S, now
        if late:
            # This process was held up, and with it what the workers have said meanwhile: hear it first.
            for member in self._at_work():
                member.heard_at = now
            return
        for member in self._at_work():
            if not member.done and now - member.heard_at > messages.LOST_S:
                self._lose(member)
        at_work = self._at_work()
        if not self._ended and at_work and all(member.idle or member.done for member in at_work):
            self._ended = True
            self._end(interrupted=False)

    def _lose(self, member: _Member) -> None:
        takes = self._deal.lose(member.name)
        if self._movable and not self._ended:
            for taker, taken in takes.items():
                self._take(taker, taken)

    def _even_out(self, member: _Member) -> None:
        """Have others give up shares to a worker that has fewer."""
        if self._movable and not self._ended:
            for giver, shares in self._deal.wanted_by(member.name).items():
                self._send(messages.GIVE, {"shares": shares, "to": member.name}, self._named(giver).node)

    def _take(self, taker: str, holdings: list[tuple[int, int]]) -> None:
        member = self._named(taker)
        member.takes += 1
        member.idle = False
        self._moved += len(holdings)
        self._send(messages.TAKE, {"holdings": holdings}, member.node)

    def _named(self, name: str) -> _Member:
        return next(member for member in self._members.values() if member.name == name)

    def _end(self, **how: bool) -> None:
        self._closing = True
        self._tell_all(messages.END, how)

    def _tell_all(self, name: str, data: Any) -> None:
        for member in self._living():
            self._send(name, data, member.node)

    def _send(self, name: str, data: Any, node: str) -> None:
        self._runner.send_message(name, data, client_id=node)


def _listener(handler: Callable[[str, Any], None]) -> Callable[..., None]:
    def listen(environment: Any, msg: Any, **_: Any) -> None:
        handler(msg.node_id, msg.data)

    return listen
