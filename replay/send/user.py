"""Replaying inside Locust: one user per worker, which owns the schedule, and a shape that spawns it.

Locust's users model people who wait for answers; production does not wait. So the one `ReplayUser` of a
worker is a pump: it has no tasks, and what it sends is told to Locust through the request event, so that
statistics, web UI, CSV and HTML work as they do for any locustfile.

A locustfile needs no more than `from replay.send.user import ReplayShape, ReplayUser`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import gevent
from locust import LoadTestShape, User, events
from locust.stats import CSV_STATS_INTERVAL_SEC

from replay.config import RunSettings, Target, parse_target
from replay.errors import ReplayError, UsageError
from replay.send.options import add_options, settings_from
from replay.send.worker import Job, Worker
from replay.store import metadata
from replay.store.reader import Dataset


@events.init_command_line_parser.add_listener
def _add_options(parser: Any, **_: Any) -> None:
    add_options(parser)


@events.init.add_listener
def _check_early(environment: Any, **_: Any) -> None:
    """Without a web form to fill in, what is missing is missing for good: say it before anything starts."""
    options = environment.parsed_options
    if options.progress_fd is not None:
        # Somebody else speaks to the user; Locust's tables and its remarks on a busy CPU would only disturb.
        logging.disable(logging.WARNING)
    if options.headless and not options.worker:
        try:
            _checked(options, environment.host)
        except ReplayError as error:
            _say(error, options.progress_fd)
            sys.exit(error.exit_code)


class ReplayShape(LoadTestShape):
    """One user on every worker until all arrivals have been seen to."""

    def __init__(self) -> None:
        super().__init__()
        self.over = False

    def reset_time(self) -> None:
        """Locust calls this when a test starts."""
        super().reset_time()
        self.over = False

    def tick(self) -> tuple[int, float] | None:
        """Locust asks once a second how many users there should be; `None` ends the test."""
        if self.over:
            return None
        workers = max(1, getattr(self.runner, "worker_count", 1))
        return workers, float(workers)


class ReplayUser(User):
    """The pump of one worker."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.worker: Worker | None = None

    def start(self, group: Any) -> Any:
        """Run the pump in place of Locust's task loop."""
        self._state = "running"
        self._group = group
        self._greenlet = group.spawn(ReplayUser._replay, self)
        return self._greenlet

    def _replay(self) -> None:
        environment = self.environment
        try:
            job = _job(environment)
            self.worker = Worker(job, environment.events.request.fire)
            gevent.signal_handler(signal.SIGUSR2, self.worker.abandon)
            try:
                self.worker.run()
            finally:
                metadata.close(job.out, "run", self.worker.books)
        except ReplayError as error:
            environment.process_exit_code = error.exit_code
            _say(error, environment.parsed_options.progress_fd)
        gevent.spawn(_end, environment)

    def nothing(self) -> None:
        """Locust warns about users without tasks; this one is never run."""

    tasks = [nothing]  # noqa: RUF012 - Locust's own protocol


def _job(environment: Any) -> Job:
    options = environment.parsed_options
    target, settings = _checked(options, environment.host)
    out = Path(options.out)
    metadata.create(
        out,
        "run",
        source={"capture": str(Path(options.capture).resolve()), "target": target.url},
        settings={name: getattr(settings, name) for name in RunSettings.__slots__},
    )
    return Job(options.capture, out, target, settings, progress_fd=options.progress_fd)


def _checked(options: Any, host: str | None) -> tuple[Target, RunSettings]:
    if not options.capture:
        raise UsageError("--capture is missing: name the directory of a capture to replay")
    if not options.out:
        raise UsageError("--out is missing: name a new directory for the run's results")
    if not host:
        raise UsageError("--host is missing: name the target, such as http://staging:8080")
    if (Path(options.out) / "run.json").exists():
        raise UsageError(f"--out {options.out} already holds a run: choose another directory")
    Dataset.open(Path(options.capture), "capture")
    return parse_target(host, "--host"), settings_from(options)


def _end(environment: Any) -> None:
    if environment.parsed_options.csv_prefix:
        # Locust writes its CSV files once a second and not at the end: the last figures would be missing.
        gevent.sleep(2 * CSV_STATS_INTERVAL_SEC)
    shape = environment.shape_class
    if shape is not None:
        shape.over = True
    if environment.web_ui is None:
        environment.runner.quit()
    else:
        environment.runner.stop()


def _say(error: ReplayError, progress_fd: int | None) -> None:
    """To the process that follows the progress, if there is one; else to the terminal."""
    if progress_fd is None:
        print(f"replay: {error}", file=sys.stderr)
    else:
        os.write(
            progress_fd, json.dumps({"error": str(error), "exit_code": error.exit_code}).encode() + b"\n"
        )
