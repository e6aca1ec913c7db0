"""One worker's part of a run, from the capture to the closed journal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns, process_time_ns
from typing import Any

import gevent
from gevent.subprocess import Popen

from replay.config import Config, RunSettings, Target, load
from replay.plan.breaker import STOP_FILE, STOPPED, AbortRules, Governor, Trip
from replay.send.finishing import Finisher
from replay.send.lean import environment
from replay.send.logins import Login
from replay.send.planner import Order
from replay.send.pump import Pump
from replay.send.recorder import Recorder
from replay.send.source import Source
from replay.send.target import resolve
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
    share: int = 0
    shares: int = 1
    progress_fd: int | None = None
    label: str = ""
    """What it is called where several builds are asked at once: the build's name besides its own."""


Drive = Callable[[Pump, Source], None]
"""Sends a source's arrivals by a pump; returns when all are taken up and answered."""


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
        drive: Drive = Pump.run,
    ) -> None:
        self.books: dict[str, Any] = {}
        self._job = job
        self._fire = fire
        self._agree = agree
        self._alarm = alarm
        self._stop_file = job.out / STOP_FILE
        self.governor = _governor(job)
        self._drive = drive
        self._source: Source | None = None
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
        compactor = Popen(
            [sys.executable, "-m", "replay.store.compactor", str(job.out), "run"],
            stdin=subprocess.PIPE,
            env=environment(),
        )
        try:
            self._source = Source(
                Order(job.capture, job.settings, job.target.authority, job.share, job.shares)
            )
            self._source.wait_ready()
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
            )
            cpu = process_time_ns()
            self._send(self._pump, self._recorder, self._source)
            self.books = {
                **self._recorder.books(),
                "behind": self._pump.behind,
                "sessions": self._pump.sessions.books(),
                "left_out": {
                    k: v for k, v in self._source.counts.items() if not k.startswith("planned") and v
                },
                "planned_by_all": self._source.counts.get("planned_by_all", 0),
                "interrupted": self._interrupted,
                "trips": [trip._asdict() for trip in self.governor.trips],
                "started_at_ns": started_at,
                "wall_ns": monotonic_ns() - start,
                "cpu_ns": process_time_ns() - cpu,
            }
        finally:
            if self._source is not None:
                self._source.close()
            self._finish(compactor)
            if finisher is not None:
                finisher.close()

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

    def _send(self, pump: Pump, recorder: Recorder, source: Source) -> None:
        ticker = gevent.spawn(self._tell, pump, recorder) if self._job.progress_fd is not None else None
        try:
            self._drive(pump, source)
        except gevent.GreenletExit:
            self._interrupted = True
            pump.drain()
        finally:
            if ticker is not None:
                ticker.kill()
                if not self._told_all:
                    self._tell_once(pump, recorder)
            recorder.close()

    def _finish(self, compactor: Any) -> None:
        compactor.stdin.close()
        while True:
            # The compactor must not be left half-way because the run was stopped.
            with suppress(gevent.GreenletExit):
                compactor.wait()
                return

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
    return Governor(
        rules,
        usual,
        max_rate=None if settings.max_rate is None else settings.max_rate / job.shares,
        max_concurrency=None
        if settings.max_concurrency is None
        else _share_of(settings.max_concurrency, job.share, job.shares),
    )


def _share_of(whole: int, share: int, shares: int) -> int:
    return whole // shares + (share < whole % shares)


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
