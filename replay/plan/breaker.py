"""The kill switch: a live run that does harm is stopped, as a whole or one group of endpoints alone.

Pure: instants come in, decisions go out. Each group of endpoints has a breaker, as a service has in Nygard's
circuit breaker pattern; so have all together. A breaker that trips stays open for the rest of the run: what a
target needs that is going down is not to be tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

EVERYTHING = "everything"
EACH = "each"
"""As the one group: every endpoint is a group of its own."""

OPEN, TOO_FAST, TOO_MANY = "kill switch", "above --max-rate", "above --max-concurrency"
"""Why an arrival is not sent."""

STOP_FILE = "stop"
"""A file of this name in the run's directory ends the run."""

STOPPED = "stop file"
_BUCKETS = 10
# A limit on the rate bounds each tenth of a second too: this many seconds' worth may come at once.
_BURST_S = 0.1


@dataclass(frozen=True, slots=True)
class AbortRules:
    """When to stop; 0 switches a rule off.

    `errors`: the share of failures (no answer, or 5xx) within `window_ns` that exceeds the usual share by this
    much, among `least` requests or more. `p99_ns`: 99 % of the answers within the window must come faster.
    `failures` and `refused`: that many in a row without an answer, or without a connection, for the length of
    the window. `groups`: patterns of endpoints that are judged and stopped alone; only failures in a row across
    all of them still stop everything.
    """

    errors: float = 0.5
    p99_ns: int = 0
    failures: int = 100
    refused: int = 20
    window_ns: int = 1_000_000_000
    least: int = 100
    groups: tuple[str, ...] = ()


class Trip(NamedTuple):
    """What tripped, when (ns since the run's start), and by which rule."""

    group: str
    rule: str
    value: float
    limit: float
    at_ns: int


class Breaker:
    """Watches one group. `usual` is the share of failures that is no news."""

    def __init__(self, group: str, rules: AbortRules, usual: float) -> None:
        self.group = group
        self.open = False
        self._rules = rules
        self._usual = usual
        self._width = max(1, rules.window_ns // _BUCKETS)
        self._failing_since: int | None = None
        self._refused_since: int | None = None
        self.clear()

    def clear(self) -> None:
        """Forget what has been heard."""
        self._slot = -1
        self._total = [0] * _BUCKETS
        self._bad = [0] * _BUCKETS
        self._slow = [0] * _BUCKETS
        self._failures = self._refused = 0

    def hear(self, now: int, status: int | None, error: str | None, took_ns: int) -> Trip | None:
        """Take in one outcome at `now`; the trip that it causes, if any."""
        return self.in_a_row(now, error) or self._counted(now, status, error, took_ns)

    def _counted(self, now: int, status: int | None, error: str | None, took_ns: int) -> Trip | None:
        rules = self._rules
        slot = now // self._width
        trip = self._turn(slot, now) if slot != self._slot else None
        place = slot % _BUCKETS
        self._total[place] += 1
        if rules.p99_ns and took_ns > rules.p99_ns:
            self._slow[place] += 1
        if error is not None or (status is not None and status >= 500):
            self._bad[place] += 1
        return trip

    def in_a_row(self, now: int, error: str | None) -> Trip | None:
        """Take in one outcome for the rules alone that ask for failures in a row."""
        if error is None:
            self._failures = self._refused = 0
            return None
        rules = self._rules
        self._failing_since = now if not self._failures else self._failing_since
        self._failures += 1
        if error != "refused":
            self._refused = 0
        else:
            self._refused_since = now if not self._refused else self._refused_since
            self._refused += 1
            if rules.refused and self._refused >= rules.refused and self._lasted(now, self._refused_since):
                return self._trip("connections refused", self._refused, rules.refused, now)
        if rules.failures and self._failures >= rules.failures and self._lasted(now, self._failing_since):
            return self._trip("failures in a row", self._failures, rules.failures, now)
        return None

    def _lasted(self, now: int, since: int | None) -> bool:
        return since is not None and now - since >= self._rules.window_ns

    def _turn(self, slot: int, now: int) -> Trip | None:
        """A bucket is full: judge the window, and make room for the next one."""
        trip = self._judge(now)
        for passed in range(max(self._slot + 1, slot - _BUCKETS + 1), slot + 1):
            place = passed % _BUCKETS
            self._total[place] = self._bad[place] = self._slow[place] = 0
        self._slot = slot
        return trip

    def _judge(self, now: int) -> Trip | None:
        rules, total = self._rules, sum(self._total)
        if total < max(1, rules.least):
            return None
        share = sum(self._bad) / total
        if rules.errors and share - self._usual >= rules.errors:
            return self._trip("share of failures", share, min(1.0, self._usual + rules.errors), now)
        if rules.p99_ns and sum(self._slow) > 0.01 * total:
            return self._trip(
                "p99 above the limit: share of slow answers", sum(self._slow) / total, 0.01, now
            )
        return None

    def _trip(self, rule: str, value: float, limit: float, now: int) -> Trip | None:
        if self.open:
            return None
        self.open = True
        return Trip(self.group, rule, value, limit, now)


class Governor:
    """Holds the breakers and the ceilings of one worker's run. Instants count from the run's start.

    `usual` maps an endpoint to its requests and failures in production, or in the run to compare with.
    """

    def __init__(
        self,
        rules: AbortRules,
        usual: Mapping[str, tuple[int, int]] | None = None,
        max_rate: float | None = None,
        max_concurrency: int | None = None,
    ) -> None:
        self.trips: list[Trip] = []
        self.stopped = False
        self._untold: list[Trip] = []
        self._rules = rules
        self._usual = usual or {}
        self._all = Breaker(EVERYTHING, rules, self._usual_of(lambda endpoint: True))
        self._groups: dict[str, Breaker] = {}
        self._of: dict[str, Breaker | None] = {}
        self.limit(max_rate, max_concurrency)
        self._allowed = -self._burst

    def refuses(self, endpoint: str, now: int, under_way: int) -> str | None:
        """Why an arrival must not be sent now, or `None`. One that is not refused counts as sent."""
        if self._rules.groups:
            breaker = self._breaker(endpoint)
            if breaker is not None and breaker.open:
                return OPEN
        if self._max_concurrency is not None and under_way >= self._max_concurrency:
            return TOO_MANY
        if self._gap:
            # The generic cell rate algorithm (ITU-T I.371): a virtual clock that runs ahead of the real one.
            ahead = max(self._allowed, now - self._burst)
            if ahead > now:
                return TOO_FAST
            self._allowed = ahead + self._gap
        return None

    def limit(self, max_rate: float | None, max_concurrency: int | None) -> None:
        """Other ceilings from now on."""
        self._gap = 1e9 / max_rate if max_rate else 0.0
        self._burst = max(self._gap, _BURST_S * 1e9)
        self._max_concurrency = max_concurrency

    def hear(self, endpoint: str, now: int, status: int | None, error: str | None, took_ns: int) -> None:
        """Take in what became of an arrival."""
        breaker = self._breaker(endpoint) if self._rules.groups else None
        if breaker is None:
            trip = self._all.hear(now, status, error, took_ns)
        elif breaker.open:
            return
        elif trip := breaker.hear(now, status, error, took_ns):
            # What this group did must not count against the others.
            self._all.clear()
        else:
            trip = self._all.in_a_row(now, error)
        if trip is not None:
            self._record(trip)

    def stop(self, rule: str, now: int) -> None:
        """Stop everything, for a reason from outside."""
        if not self.stopped:
            self._record(Trip(EVERYTHING, rule, 1.0, 0.0, now))

    def take(self, trip: Trip) -> None:
        """Another worker's breaker has tripped: it is open here too. Already known ones change nothing."""
        if trip.group == EVERYTHING:
            self.stopped = True
        else:
            self._group(trip.group).open = True

    def untold(self) -> list[Trip]:
        """The trips of this worker that nobody has been told yet."""
        told, self._untold = self._untold, []
        return told

    def _record(self, trip: Trip) -> None:
        self.trips.append(trip)
        self._untold.append(trip)
        self.take(trip)

    def _breaker(self, endpoint: str) -> Breaker | None:
        if endpoint not in self._of:
            if self._rules.groups == (EACH,):
                self._of[endpoint] = self._group(endpoint)
            else:
                found = next((group for group in self._rules.groups if in_group(endpoint, group)), None)
                self._of[endpoint] = None if found is None else self._group(found)
        return self._of[endpoint]

    def _group(self, name: str) -> Breaker:
        if name not in self._groups:
            usual = self._usual_of(lambda endpoint: endpoint == name or in_group(endpoint, name))
            self._groups[name] = Breaker(name, self._rules, usual)
        return self._groups[name]

    def _usual_of(self, belongs: Callable[[str], bool]) -> float:
        mine = [counts for endpoint, counts in self._usual.items() if belongs(endpoint)]
        total = sum(count for count, _ in mine)
        return sum(bad for _, bad in mine) / total if total else 0.0


def in_group(endpoint: str, pattern: str) -> bool:
    """Whether an endpoint is one of a group's: `/orders/*` by its route, `POST /cart*` with its method."""
    return fnmatchcase(endpoint if " " in pattern else endpoint.partition(" ")[2], pattern)
