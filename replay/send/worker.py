"""One worker's part of a run, from the capture to the closed journal."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns, process_time_ns
from typing import Any

import gevent
from gevent.subprocess import Popen

from replay.config import Config, RunSettings, Target, load
from replay.errors import ConfigError, ReplayError
from replay.plan.breaker import EVERYTHING, STOP_FILE, STOPPED, AbortRules, Governor, Trip
from replay.plan.shares import Holding, part_of
from replay.send.arrivals import Arrivals
from replay.send.finishing import Finisher
from replay.send.hand import Hand
from replay.send.lean import environment, waited_for
from replay.send.learning import Rule
from replay.send.logins import Login
from replay.send.plan_stream import Planned
from replay.send.planner import Order
from replay.send.pump import Pump
from replay.send.recorder import Recorder
from replay.send.source import Source
from replay.send.target import resolve
from replay.store import metadata
from replay.store.reader import Dataset

_PROGRESS_S = 0.25


@dataclass(frozen=True, slots=True)
class Job:
    """What one worker is to do."""

    capture: str
    out: Path
    target: Target
    settings: RunSettings
    name: str = "w0"
    holdings: tuple[Holding, ...] = ((0, 0),)
    shares: int = 1
    progress_fd: int | None = None
    label: str = ""
    """What it is called where several builds are asked at once: the build's name besides its own."""
    rules: tuple[Rule, ...] | None = None
    """The bindings that whoever began the run has learned; `None`: the planner learns them."""
    bring: Callable[[Collection[int]], None] = lambda shares: None
    """Has these shares of the capture at hand, where not all of it is here."""


Drive = Callable[[Pump, Iterable[Planned]], None]
"""Sends arrivals by a pump; returns when all are taken up and answered."""


class Worker:
    """Runs a job. `books` is complete once `run` has returned, also when it was interrupted.

    `fire` is Locust's request event. `agree` is called when this worker is ready; it waits for the others and
    returns the common start, in nanoseconds of the wall clock. `alarm` tells the other workers of a trip of the
    kill switch; theirs come in by `governor.take`. `drive` does the sending, perhaps in step
    with the workers of other builds.
    """

    def __init__(
        self,
        job: Job,
        fire: Callable[..., Any],
        agree: Callable[[], int],
        alarm: Callable[[Trip], None] | None = None,
        drive: Drive | None = None,
        hand: Hand | None = None,
    ) -> None:
        self.books: dict[str, Any] = {}
        self._job = job
        self._fire = fire
        self._agree = agree
        self._alarm = alarm
        self._stop_file = job.out / STOP_FILE
        self.governor = _governor(job)
        self._drive = drive or self._drive_alone
        self._hand = hand
        self._arrivals = Arrivals(by_place=job.settings.concurrency is not None)
        self._sources: list[Source] = []
        self._planners = itertools.count()
        self._held = {share for share, _ in job.holdings}
        self._preparing = 0
        self._waiting = False
        self._greenlet: Any = None
        self._pump: Pump | None = None
        self._recorder: Recorder | None = None
        self._interrupted = False
        self._told_all = False

    def run(self) -> None:
        """Plan, send, drain, compact. Killing the greenlet it runs in stops sending, then drains."""
        job = self._job
        rules = job.settings.rules
        config = load(Path(rules)) if rules else Config()
        finisher = Finisher(config) if rules else None
        endpoint = resolve(job.target, job.settings)._replace(finish=finisher or None)
        login = Login(config, endpoint, job.target.authority) if "login" in config.auth else None
        if login is not None and job.settings.sessions == "off":
            raise ConfigError("[auth.login] is for sessions: choose --sessions live, or ordered")
        compactor = self._compactor()
        self._greenlet = gevent.getcurrent()
        try:
            if job.holdings:
                self._plan(job.holdings).wait_ready()
                self._arrivals.add(self._sources[0], job.holdings)
            started_at = self._agree()
            start = monotonic_ns() + started_at - time.time_ns()
            self._recorder = Recorder(job.out, job.name, start, self._fire)
            self._pump = Pump(
                endpoint,
                self._recorder,
                start=start,
                timeout_ns=int(job.settings.timeout * 1e9),
                spin_ns=int(job.settings.spin * 1e9),
                concurrency=job.settings.concurrency,
                duration_ns=None if job.settings.duration is None else int(job.settings.duration * 1e9),
                pooled=job.settings.connections == "pooled",
                login=login,
                governor=self.governor,
                watch=lambda: self._watch(start),
                leash=None if self._hand is None else self._hand.leash,
                keeps=self._arrivals.keeps,
            )
            cpu = process_time_ns()
            self._send(self._pump, self._recorder)
            self.books = {
                **self._recorder.books(),
                "behind": self._pump.behind,
                "sessions": self._pump.sessions.books(),
                "left_out": self._left_out(),
                "planned_by_all": max(
                    (source.counts.get("planned_by_all", 0) for source in self._sources), default=0
                ),
                "complete": all(source.counts for source in self._sources),
                "interrupted": self._interrupted,
                "trips": [trip._asdict() for trip in self.governor.trips],
                "started_at_ns": started_at,
                "wall_ns": monotonic_ns() - start,
                "cpu_ns": process_time_ns() - cpu,
            }
        finally:
            for source in self._sources:
                source.close()
            if finisher is not None:
                finisher.close()
            self._finish(compactor)

    def figures(self) -> dict[str, Any] | None:
        """The books and the lag as they stand; `None` before it all begins."""
        if self._pump is None or self._recorder is None:
            return None
        return {
            "worker": self._job.label or self._job.name,
            **_counts(self._pump, self._recorder),
            "late": self._recorder.late,
            "lag_max_ms": round(self._recorder.lag_max_ns / 1e6, 2),
        }

    def _watch(self, start: int) -> None:
        if os.path.exists(self._stop_file):
            self.governor.stop(STOPPED, monotonic_ns() - start)
        for trip in self.governor.untold():
            if self._alarm is not None:
                self._alarm(trip)

    def abandon(self) -> None:
        """Stop at once: what is under way has failed as `interrupted`."""
        self._interrupted = True
        if self._pump is not None:
            self._pump.abandon("interrupted")

    # What the others of a crew have this worker do: `replay.send.hand.Work`

    def take(self, holdings: tuple[Holding, ...]) -> None:
        """Plan these shares too, and send them."""
        self._preparing += 1
        self._held.update(share for share, _ in holdings)
        self._limit()
        gevent.spawn(self._take, holdings)

    def give(self, shares: tuple[int, ...], key: int) -> None:
        """Send nothing of these shares from `key` on."""
        self._arrivals.give(shares, key)
        self._held.difference_update(shares)
        self._limit()

    @property
    def idle(self) -> bool:
        """Nothing is left to be sent, and nothing under way."""
        return self._waiting and not self._preparing and not self._left

    def heed(self, trip: Trip) -> None:
        """Another worker's kill switch has tripped."""
        self.governor.take(trip)

    def cut(self) -> None:
        """Send nothing of what waits for its connection either: it has failed."""
        if self._pump is not None:
            self._pump.cut(monotonic_ns())

    def halt(self, rule: str, told: bool) -> None:
        """Send nothing more; what is under way is waited for a little."""
        now = 0 if self._recorder is None else monotonic_ns() - self._recorder.start
        if told:
            self.governor.stop(rule, now)
        else:
            self.governor.take(Trip(EVERYTHING, rule, 1.0, 0.0, now))

    def interrupt(self, abandon: bool) -> None:
        """The user has stopped the run; `abandon`: give up what is under way."""
        if abandon:
            self.abandon()
        elif self._greenlet is not None and not self.books:
            self._greenlet.kill(block=False)

    @property
    def _left(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._arrivals) and not (self._pump is not None and self._pump.expired)

    def _plan(self, holdings: tuple[Holding, ...]) -> Source:
        job = self._job
        # Lanes and sessions of one planner must not be taken for those of another; two may be started at a time.
        first = next(self._planners) << 32
        order = Order(job.capture, job.settings, job.target.authority, holdings, job.shares, first, job.rules)
        source = Source(order)
        self._sources.append(source)
        return source

    def _take(self, holdings: tuple[Holding, ...]) -> None:
        try:
            self._job.bring([share for share, _ in holdings])
            source = self._plan(holdings)
            source.wait_ready(1)
            self._arrivals.add(source, holdings)
        except ReplayError as error:
            # They are missing in the books then, as lost.
            print(f"replay: shares could not be taken over: {error}", file=sys.stderr)
        finally:
            self._preparing -= 1
            if self._hand is not None:
                self._hand.wake()

    def _limit(self) -> None:
        """Ceilings are for all workers together: this one's part is that of its shares."""
        self.governor.limit(*_ceilings(self._job, self._held))

    def _drive_alone(self, pump: Pump, arrivals: Iterable[Planned]) -> None:
        pump.run(arrivals, self._more if self._hand is not None else lambda: False)

    def _more(self) -> bool:
        """Wait for shares to take over; `False` when the run is over."""
        assert self._hand is not None
        while not self._left:
            if self.governor.stopped:
                return False
            self._waiting = True
            try:
                if not self._hand.more():
                    return False
            finally:
                self._waiting = False
        return not self.governor.stopped

    def _left_out(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for source in self._sources:
            counts |= Counter({k: v for k, v in source.counts.items() if not k.startswith("planned") and v})
        return dict(counts)

    def _send(self, pump: Pump, recorder: Recorder) -> None:
        ticker = gevent.spawn(self._tell, pump, recorder) if self._job.progress_fd is not None else None
        try:
            self._drive(pump, self._arrivals)
        except gevent.GreenletExit:
            self._interrupted = True
            pump.drain()
        finally:
            if ticker is not None:
                ticker.kill()
                if not self._told_all:
                    self._tell_once(pump, recorder)
            if self._is_too_late():
                recorder.discard()
            else:
                recorder.close()

    def _is_too_late(self) -> bool:
        """Whether the run was closed without this worker, which had been cut off: its rows are booked as lost."""
        if self._hand is None or self._hand.fenced is None:
            return False
        return bool(metadata.load(self._job.out, "run")["state"] == "closed")

    def _finish(self, compactor: Any) -> None:
        compactor.stdin.close()
        if waited_for(compactor):
            # It was killed, or the disk was full for a while: what is in the journal is not lost yet.
            again = self._compactor()
            again.stdin.close()
            if waited_for(again):
                raise ReplayError(
                    f"the results of {self._job.name} in {self._job.out} could not be made Parquet"
                )

    def _compactor(self) -> Any:
        return Popen(
            [sys.executable, "-m", "replay.store.compactor", str(self._job.out), "run"],
            stdin=subprocess.PIPE,
            env=environment(),
        )

    def _tell(self, pump: Pump, recorder: Recorder) -> None:
        while not self._told_all:
            self._tell_once(pump, recorder)
            gevent.sleep(_PROGRESS_S)

    def _tell_once(self, pump: Pump, recorder: Recorder) -> None:
        line = {"worker": self._job.label or self._job.name, **_counts(pump, recorder)}
        assert self._job.progress_fd is not None
        try:
            os.write(self._job.progress_fd, json.dumps(line).encode() + b"\n")
        except BrokenPipeError:
            # Whoever started the run is gone, and nobody else would ever stop it: end it as Ctrl-C does.
            self._told_all = True
            os.kill(os.getpid(), signal.SIGINT)


COUNTED = ("started", "under_way", "answered", "failed", "skipped")
"""What progress tells, in arrivals."""


def _counts(pump: Pump, recorder: Recorder) -> dict[str, int]:
    return {
        "started": pump.started,
        "under_way": pump.under_way,
        "answered": recorder.answered,
        "failed": recorder.failed.total(),
        "skipped": recorder.skipped.total(),
    }


def _governor(job: Job) -> Governor:
    """This worker's part of the ceilings, and the rules for all."""
    settings = job.settings
    rules = AbortRules(
        errors=settings.abort_errors,
        p99_ns=int(settings.abort_p99 * 1e9),
        failures=settings.abort_failures,
        refused=settings.abort_refused,
        window_ns=int(settings.abort_window * 1e9),
        least=settings.abort_least,
        groups=settings.abort_groups,
    )
    # Counting reads whole columns, which must not hold up the event loop.
    usual = gevent.get_hub().threadpool.apply(usual_failures, (Path(settings.abort_beside or job.capture),))
    rate, concurrency = _ceilings(job, {share for share, _ in job.holdings})
    return Governor(rules, usual, max_rate=rate, max_concurrency=concurrency)


def _ceilings(job: Job, held: Collection[int]) -> tuple[float | None, int | None]:
    """The part of the ceilings for rate and concurrency that belongs to these shares."""
    rate, concurrency = job.settings.max_rate, job.settings.max_concurrency
    return (
        None if rate is None else rate * len(held) / job.shares,
        None if concurrency is None else part_of(concurrency, held, job.shares),
    )


def usual_failures(dataset: Path) -> dict[str, tuple[int, int]]:
    """Endpoint → how many requests a capture or run has, and how many of them failed or were answered 5xx."""
    found: dict[str, tuple[int, int]] = {}
    for (endpoint, status, error), count in (
        Dataset.open(dataset).counts(("endpoint", "status", "error")).items()
    ):
        total, bad = found.get(endpoint, (0, 0))
        failed = error is not None or (status is not None and status >= 500)
        found[endpoint] = (total + count, bad + count * failed)
    return found
