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
import time
import traceback
from dataclasses import asdict
from functools import partial
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
from replay.plan.breaker import STOP_FILE
from replay.send import closing, descriptors, places
from replay.send.abreast import AbreastWork, abreast, run_abreast
from replay.send.crew import Crew
from replay.send.guard import admit
from replay.send.hand import Hand
from replay.send.learning import Rule
from replay.send.live import KEY, Figures, Live, show_in
from replay.send.messages import LEAD_NS
from replay.send.options import add_options, parse_targets, settings_from, settings_in
from replay.send.worker import COUNTED, Job, Worker
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
    """One user on every worker there is, until all arrivals have been seen to."""

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
        workers = max(_workers(self.runner.environment), len(getattr(self.runner, "clients", ())))
        return workers, float(workers)


class ReplayUser(User):
    """The pump of this process. In a worker it stands for the pump only, which comes and goes with the crew: Locust
    moves users among workers as it likes."""

    def start(self, group: Any) -> Any:
        """Run the pump in place of Locust's task loop."""
        self._state = "running"
        self._group = group
        self._greenlet = group.spawn(ReplayUser._replay, self)
        return self._greenlet

    def _replay(self) -> None:
        environment = self.environment
        options = environment.parsed_options
        if options.worker:
            Event().wait()
        try:
            _replay_alone(environment, options)
        except ReplayError as error:
            environment.process_exit_code = error.exit_code
            _say(error, options.progress_fd)
        gevent.spawn(_end, environment)

    def nothing(self) -> None:
        """Locust warns about users without tasks; this one is never run."""

    tasks = [nothing]  # noqa: RUF012 - Locust's own protocol


_CREWS: WeakKeyDictionary[Any, Crew | Hand] = WeakKeyDictionary()
_TAKING_PART: list[tuple[Hand, Any]] = []
"""What takes part in the runs of a master."""
_QUIT_S = 60
_WORKERS: list[Worker] = []
"""This process's own workers: one, or one for each build that is asked."""


def _progress_fd() -> int | None:
    """Where this process tells its progress. From its own command line: a worker's options may be the master's by now,
    and name a descriptor of the master's."""
    option = "--progress-fd"
    return int(sys.argv[sys.argv.index(option) + 1]) if option in sys.argv[:-1] else None


@events.init.add_listener
def _join_up(environment: Any, runner: Any, **_: Any) -> None:
    options = environment.parsed_options
    if isinstance(runner, MasterRunner):
        _CREWS[runner] = crew = Crew(runner)
        _be_quiet_about_interrupts()
        gevent.signal_handler(signal.SIGUSR2, crew.abandon)
        if options.progress_fd is not None and not options.processes:
            # The workers are elsewhere: their progress is told here.
            environment.events.worker_report.add_listener(_pass_on)
    elif isinstance(runner, WorkerRunner):
        _CREWS[runner] = hand = Hand(runner)
        _TAKING_PART.append((hand, gevent.spawn(_take_part_in_all, environment, hand)))


@events.quitting.add_listener
def _end_in_order(**_: Any) -> None:
    """A worker that is told to end waits for what is under way, and hands in what it has; the others send the rest."""
    for hand, greenlet in _TAKING_PART:
        hand.quitting = True
        greenlet.kill(timeout=_QUIT_S)


def _pass_on(client_id: str, data: dict[str, Any]) -> None:
    for figures in data.get(KEY, ()):
        line = {name: figures[name] for name in ("worker", *COUNTED)}
        try:
            os.write(int(_progress_fd() or 0), json.dumps(line).encode() + b"\n")
        except BrokenPipeError:
            # Whoever started the run is gone, and nobody else would ever stop it: end it as Ctrl-C does.
            os.kill(os.getpid(), signal.SIGINT)
            return


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
    return [figures for worker in _WORKERS if (figures := worker.figures())]


@events.test_start.add_listener
def _begin_run(environment: Any, **_: Any) -> None:
    """The process that has the whole run in view begins it: the master, or the only one."""
    options = environment.parsed_options
    if options.worker:  # its runner may not be known yet
        return
    try:
        routes = _checked(options, environment.host)
        for out, (target, settings) in routes.items():
            descriptors.check(Path(options.capture), settings, _workers(environment), len(routes))
            metadata.create(
                out,
                "run",
                source={
                    "capture": places.told(Path(options.capture)),
                    "target": target.url,
                    "workers": _workers(environment),
                },
                settings=_to_keep(settings, Path(options.capture)),
            )
        if isinstance(crew := _CREWS.get(environment.runner), Crew):
            crew.begin(
                {**_job(options.capture, routes), "rules": _rules(options.capture, routes)},
                _workers(environment),
                # Builds that are asked at once are asked in step: their shares stay where they are.
                movable=len(routes) == 1,
                stopped=lambda: any((out / STOP_FILE).exists() for out in routes),
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


def _job(capture: str, routes: dict[Path, tuple[Target, RunSettings]]) -> dict[str, Any]:
    """What every worker is told there is to do, in types of msgpack."""
    builds = [
        (str(out.resolve()), places.address(out), target.url, asdict(settings))
        for out, (target, settings) in routes.items()
    ]
    at = Path(capture).resolve()
    return {"capture": (str(at), places.address(at)), "builds": builds}


def _rules(capture: str, routes: dict[Path, tuple[Target, RunSettings]]) -> list[Rule] | None:
    """The bindings, for all workers: each would learn the same."""
    settings = next(iter(routes.values()))[1]
    if settings.sessions != "live":
        return None
    arguments = (capture, settings.rules) if settings.rules else (capture,)
    return [tuple(rule) for rule in json.loads(places.helped("replay.send.learning", *arguments))]


@events.test_stopping.add_listener
def _end_run(environment: Any, **_: Any) -> None:
    """Before Locust stops its users: the workers end on their own, with all their answers and accounts."""
    if isinstance(crew := _CREWS.get(environment.runner), Crew):
        crew.finish()


@events.test_stop.add_listener
def _close_run(environment: Any, **_: Any) -> None:
    """The master closes the run with its workers' accounts."""
    crew = _CREWS.get(environment.runner)
    if not isinstance(crew, Crew):
        return
    crew.close()
    if crew.failed is not None:
        error = ReplayError(crew.failed[0])
        environment.process_exit_code = error.exit_code = crew.failed[1]
        _say(error, environment.parsed_options.progress_fd)
    if crew.started and (crew.accounts or crew.lost):
        for out in _routes(environment.parsed_options, environment.host):
            _gather(environment, out)
            accounts = {name: books[str(out.resolve())] for name, books in crew.accounts.items() if books}
            closing.conclude(out, accounts, crew.lost, crew.told())


def _gather(environment: Any, out: Path) -> None:
    try:
        places.gather(out)
    except ReplayError as error:
        # The books are closed all the same: the workers' accounts are here.
        environment.process_exit_code = error.exit_code
        _say(error, environment.parsed_options.progress_fd)


def _take_part_in_all(environment: Any, hand: Hand) -> None:
    while hand.fenced is None and not hand.quitting:
        _take_part(environment, hand)


def _take_part(environment: Any, hand: Hand) -> None:
    """A worker's part in one run, from joining to its account."""
    try:
        job = hand.join()
        accounts = _replay_part(environment, hand, job)
        hand.done(accounts)
    except ReplayError as error:
        hand.done({}, str(error), error.exit_code)
    except gevent.GreenletExit:
        hand.done({})
    except Exception as error:
        # Whatever it was: a worker that says nothing would be waited for.
        traceback.print_exc()
        hand.done({}, f"a worker failed: {type(error).__name__}: {error}", ReplayError.exit_code)
    if hand.fenced is not None and not hand.quitting:
        print(f"replay: this worker ended by itself: {hand.fenced}", file=sys.stderr)
        environment.process_exit_code = ReplayError.exit_code
        environment.runner.quit()


def _replay_part(environment: Any, hand: Hand, told: dict[str, Any]) -> dict[str, Any]:
    """This worker's share of the work; its accounts by the directories in which the master has the runs."""
    masters = [(out, at) for out, at, _, _ in told["builds"]]
    with places.brought(told["capture"], masters) as (capture, outs):
        capture.bring(told["shares"], [share for share, _ in told["holdings"]])
        workers = _workers_of(environment, hand, told, capture, outs)
        _run(workers)
    accounts = zip(masters, workers, strict=True)
    clock = hand.clock._asdict()
    return {out: {**worker.books, "clock": clock} for (out, _), worker in accounts if worker.books}


def _workers_of(
    environment: Any, hand: Hand, told: dict[str, Any], capture: places.Capture, outs: list[Path]
) -> list[Worker]:
    rules = told["rules"] and tuple(map(tuple, told["rules"]))
    jobs = []
    for out, (_, _, url, data) in zip(outs, told["builds"], strict=True):
        target, settings = parse_target(url), settings_in(data)
        jobs.append(
            Job(
                capture.path,
                out,
                target,
                admit(target, Path(capture.path), settings),
                name=told["name"],
                holdings=tuple(map(tuple, told["holdings"])),
                shares=told["shares"],
                progress_fd=_progress_fd(),
                rules=rules,
                bring=partial(capture.bring, told["shares"]),
            )
        )
    by_place = jobs[0].settings.concurrency is not None
    fire = environment.events.request.fire
    descriptors.raise_limit()
    workers: list[Worker] = []
    if len(jobs) == 1:
        workers = [Worker(jobs[0], fire, lambda: hand.ready(workers[0], by_place), hand.alarm, hand=hand)]
    else:
        party: list[AbreastWork] = []
        workers = abreast(jobs, fire, lambda: hand.ready(party[0], by_place), hand.alarm, hand.leash)
        party.append(AbreastWork(workers, gevent.getcurrent()))
    return workers


def _replay_alone(environment: Any, options: Any) -> None:
    descriptors.raise_limit()
    routes = _checked(options, environment.host, begun=True)
    fire = environment.events.request.fire
    jobs = [
        Job(options.capture, out, target, settings, progress_fd=options.progress_fd)
        for out, (target, settings) in routes.items()
    ]
    agree = start_soon
    workers = [Worker(jobs[0], fire, agree)] if len(jobs) == 1 else abreast(jobs, fire, agree, None)
    try:
        _run(workers)
    finally:
        for job, worker in zip(jobs, workers, strict=True):
            if worker.books:
                closing.conclude(job.out, {job.name: worker.books})


def start_soon() -> int:
    """The start of a run without other workers, in nanoseconds of the wall clock."""
    return time.time_ns() + LEAD_NS


def _run(workers: list[Worker]) -> None:
    for worker in workers:
        gevent.signal_handler(signal.SIGUSR2, worker.abandon)
    _be_quiet_about_interrupts()
    _WORKERS[:] = workers
    if len(workers) == 1:
        workers[0].run()
    else:
        run_abreast(workers)


def _be_quiet_about_interrupts() -> None:
    """Locust ends well on Ctrl-C; gevent would print it as an error first."""
    hub = gevent.get_hub()
    if KeyboardInterrupt not in hub.NOT_ERROR:
        hub.NOT_ERROR += (KeyboardInterrupt,)


def _workers(environment: Any) -> int:
    """How many workers share the run, at first."""
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
