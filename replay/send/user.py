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
from dataclasses import asdict
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import gevent
from gevent.event import Event
from locust import LoadTestShape, User, events
from locust.runners import LocalRunner, MasterRunner, WorkerRunner
from locust.stats import CSV_STATS_INTERVAL_SEC

from replay.config import RunSettings, Target, parse_target
from replay.errors import ReplayError, UsageError
from replay.keys import load_key
from replay.send import closing, descriptors
from replay.send.abreast import abreast, run_abreast, take_all
from replay.send.crew import DONE, Crew, Hand, start_soon
from replay.send.guard import admit
from replay.send.live import KEY, Figures, Live, show_in
from replay.send.options import add_options, parse_targets, settings_from
from replay.send.worker import Job, Worker
from replay.store import metadata, sealing
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
        crew = _CREWS.get(self.runner)
        if self.over or (isinstance(crew, Crew) and crew.is_over()):
            return None
        workers = _shares(self.runner.environment)
        return workers, float(workers)


class ReplayUser(User):
    """The pump of one worker."""

    def start(self, group: Any) -> Any:
        """Run the pump in place of Locust's task loop."""
        self._state = "running"
        self._group = group
        self._greenlet = group.spawn(ReplayUser._replay, self)
        return self._greenlet

    def _replay(self) -> None:
        environment = self.environment
        share = environment.runner.worker_index
        if share in _PUMPING or share >= _shares(environment):
            # Locust moves the user of a lost worker to another, which has its own share to see to.
            Event().wait()
        _PUMPING.add(share)
        try:
            _replay_share(environment, share)
        except ReplayError as error:
            environment.process_exit_code = error.exit_code
            _say(error, environment.parsed_options.progress_fd)
        finally:
            _PUMPING.discard(share)
        if isinstance(environment.runner, WorkerRunner):
            environment.runner.send_message(DONE, {})
        else:
            gevent.spawn(_end, environment)

    def nothing(self) -> None:
        """Locust warns about users without tasks; this one is never run."""

    tasks = [nothing]  # noqa: RUF012 - Locust's own protocol


_PUMPING: set[int] = set()
_CREWS: WeakKeyDictionary[Any, Crew | Hand] = WeakKeyDictionary()
_WORKERS: dict[int, list[Worker]] = {}
"""This process's own workers by their share."""


@events.init.add_listener
def _join_up(environment: Any, runner: Any, **_: Any) -> None:
    if isinstance(runner, MasterRunner):
        _CREWS[runner] = Crew(runner)
    elif isinstance(runner, WorkerRunner):
        _CREWS[runner] = Hand(runner)


@events.init.add_listener
def _show_live(environment: Any, runner: Any, web_ui: Any, **_: Any) -> None:
    if web_ui is None:
        return
    live = Live(_own_figures)
    environment.events.worker_report.add_listener(lambda client_id, data: live.hear(data.get(KEY, ())))
    environment.events.test_start.add_listener(lambda environment: live.forget())
    show_in(web_ui, live)


@events.report_to_master.add_listener
def _report_live(client_id: str, data: dict[str, Any]) -> None:
    data[KEY] = _own_figures()


def _own_figures() -> list[Figures]:
    return [figures for workers in _WORKERS.values() for worker in workers if (figures := worker.figures())]


@events.test_start.add_listener
def _begin_run(environment: Any, **_: Any) -> None:
    """The process that has the whole run in view begins it: the master, or the only one."""
    if isinstance(environment.runner, WorkerRunner):
        return
    options = environment.parsed_options
    try:
        routes = _checked(options, environment.host)
        for out, (target, settings) in routes.items():
            descriptors.check(Path(options.capture), settings, _shares(environment), len(routes))
            metadata.create(
                out,
                "run",
                source={
                    "capture": str(Path(options.capture).resolve()),
                    "target": target.url,
                    "workers": _shares(environment),
                },
                settings=_to_keep(settings, Path(options.capture)),
            )
    except ReplayError as error:
        environment.process_exit_code = error.exit_code
        _say(error, options.progress_fd)
        gevent.spawn(_end, environment)


def _to_keep(settings: RunSettings, capture: Path) -> dict[str, Any]:
    """The settings as run.json keeps them: without the values of headers, with how results are redacted."""
    kept = {**asdict(settings), "set_headers": [(name, "…") for name, _ in settings.set_headers]}
    redaction = sealing.redaction_of(metadata.load(capture, "capture"))
    if redaction is not None:
        file = None if settings.key_file is None else Path(settings.key_file).resolve()
        kept["redaction"] = {
            "key": sealing.key_id(load_key(file)),
            "key_file": file and str(file),
            "rules": redaction.get("rules", []),
        }
    return kept


@events.test_stop.add_listener
def _close_run(environment: Any, **_: Any) -> None:
    """The master closes what its workers could not."""
    crew = _CREWS.get(environment.runner)
    if isinstance(crew, Crew) and crew.started:
        for out in _routes(environment.parsed_options, environment.host):
            closing.close(out)


def _replay_share(environment: Any, share: int) -> None:
    options = environment.parsed_options
    descriptors.raise_limit()
    routes = _checked(options, environment.host, begun=True)
    shares = _shares(environment)
    hand = _CREWS.get(environment.runner)
    agree = hand.agree if isinstance(hand, Hand) else start_soon
    alarm = hand.alarm if isinstance(hand, Hand) else None
    fire = environment.events.request.fire
    jobs = [
        Job(options.capture, out, target, settings, f"w{share}", share, shares, options.progress_fd)
        for out, (target, settings) in routes.items()
    ]
    workers = [Worker(jobs[0], fire, agree, alarm)] if len(jobs) == 1 else abreast(jobs, fire, agree, alarm)
    if isinstance(hand, Hand):
        hand.heed = lambda trip: take_all(workers, trip)
    for worker in workers:
        gevent.signal_handler(signal.SIGUSR2, worker.abandon)
    # Locust ends well on Ctrl-C; gevent would print it as an error first.
    gevent.get_hub().NOT_ERROR += (KeyboardInterrupt,)
    _WORKERS[share] = workers
    try:
        if len(workers) == 1:
            workers[0].run()
        else:
            run_abreast(workers)
    finally:
        for job, worker in zip(jobs, workers, strict=True):
            if worker.books and closing.enter(job.out, job.name, worker.books, shares):
                closing.close(job.out)


def _shares(environment: Any) -> int:
    """How many workers share the run."""
    if isinstance(environment.runner, LocalRunner):
        return 1
    return max(1, int(environment.parsed_options.expect_workers))


def _routes(options: Any, host: str | None) -> dict[Path, str]:
    """Directory of a run → the URL it goes to: one, or one for each build that is asked at once."""
    out = Path(options.out)
    if options.target:
        return {out / name: url for name, url in parse_targets(options.target).items()}
    return {out: host or ""}


def _checked(options: Any, host: str | None, begun: bool = False) -> dict[Path, tuple[Target, RunSettings]]:
    """Where each run goes, and its settings, the target's address pinned; `begun`: the runs are there already."""
    if not options.capture:
        raise UsageError("--capture is missing: name the directory of a capture to replay")
    if not options.out:
        raise UsageError("--out is missing: name a new directory for the run's results")
    if not host and not options.target:
        raise UsageError("--host is missing: name the target, such as http://staging:8080")
    routes = _routes(options, host)
    for out in routes:
        if (out / "run.json").exists() and not begun:
            raise UsageError(f"--out {out} already holds a run: choose another directory")
    capture = Path(options.capture)
    Dataset.open(capture, "capture")
    option = "--target" if options.target else "--host"
    targets = {out: parse_target(url, option) for out, url in routes.items()}
    return {out: (target, admit(target, capture, settings_from(options))) for out, target in targets.items()}


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
