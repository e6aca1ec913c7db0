"""`replay run`: drive a capture against a target with Locust, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import orjson

from replay.config import RunSettings, from_environment, parse_target
from replay.errors import InputError, ReplayError
from replay.plan.breaker import STOP_FILE
from replay.send import closing, places
from replay.send.guard import admit
from replay.send.options import to_environment
from replay.send.target import check_reachable
from replay.store import metadata, remote
from replay.store.compact import recover
from replay.store.reader import Dataset
from replay.verbs.ports import free_port
from replay.verbs.signals import terminable, uninterrupted

MASTER_PORT = 5557
LOCUSTFILE = Path(__file__).parent.parent / "send" / "locustfile.py"
_STOP_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come, in arrivals."""

    planned: int
    started: int
    under_way: int
    answered: int
    failed: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Remote:
    """Workers from elsewhere: how many are waited for and how long (seconds), and where the master listens."""

    expect: int
    port: int = MASTER_PORT
    bind: str = "0.0.0.0"  # noqa: S104 - workers are on other machines
    wait_s: int = 300


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What became of a run: where it is, and its books (see `replay.send.recorder`)."""

    out: Path
    books: dict[str, Any]
    interrupted: bool

    @property
    def balanced(self) -> bool:
        """planned = sent + skipped, and sent = answered + failed."""
        books = self.books
        return bool(
            books["planned"] == books["sent"] + sum(books["skipped"].values())
            and books["sent"] == books["answered"] + sum(books["failed"].values())
        )


def replay_run(
    capture: Path,
    target: str,
    out: Path,
    settings: RunSettings,
    progress: Callable[[Progress], None] | None = None,
    crew: Remote | None = None,
) -> RunSummary:
    """Replay `capture` against `target` into the new run `out`; with a `crew`, by workers from elsewhere.

    Raises `ReplayError` when it cannot start: nothing has been written then. Ctrl-C once stops sending,
    waits for what is under way and closes the run; twice gives up waiting. SIGTERM counts as Ctrl-C.
    """
    planned = _checked(capture, out)
    settings = _reachable(target, capture, settings)
    arguments = ["--host", target, "--out", str(out)]
    return _replay(capture, [out], arguments, settings, planned, progress, crew)[0]


def replay_abreast(
    capture: Path,
    targets: Mapping[str, str],
    out: Path,
    settings: RunSettings,
    progress: Callable[[Progress], None] | None = None,
    crew: Remote | None = None,
) -> dict[str, RunSummary]:
    """Replay `capture` against several builds at once: each arrival to all of them, in random order.

    `targets` maps a build's name to its URL; its run is `out`/name. Everything else is as of `replay_run`.
    """
    planned = _checked(capture, out) * len(targets)
    for url in targets.values():
        _reachable(url, capture, settings)
    routes = [f"--target={name}={url}" for name, url in targets.items()]
    arguments = [*routes, "--out", str(out)]
    outs = [out / name for name in targets]
    summaries = _replay(capture, outs, arguments, settings, planned, progress, crew)
    return dict(zip(targets, summaries, strict=True))


def _checked(capture: Path, out: Path) -> int:
    """The number of exchanges; `InputError` where there is no capture, or no room for a new run."""
    planned = Dataset.open(capture, "capture").count
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise InputError(f"{out} is there already and not empty: choose another --out for this run")
    return planned


def _reachable(target: str, capture: Path, settings: RunSettings) -> RunSettings:
    """The settings with the target's address pinned; `TargetError` where it must not, or cannot, be hit."""
    destination = parse_target(target)
    settings = admit(destination, capture, settings)
    from_environment(settings.set_headers)
    check_reachable(destination, settings)
    return settings


def _replay(
    capture: Path,
    outs: Sequence[Path],
    arguments: Sequence[str],
    settings: RunSettings,
    planned: int,
    progress: Callable[[Progress], None] | None,
    crew: Remote | None = None,
) -> list[RunSummary]:
    """Run the replayer to its end, whatever ends it; what became of each of its runs."""
    if crew is not None:
        _check_port(crew)
    reading, writing = os.pipe()
    command = [*_command(capture, crew or settings.workers, writing), *arguments]
    environment = {**to_environment(settings), **places.to_environment(capture, outs)}
    with terminable(), _locust(command, environment, writing) as process:
        os.close(writing)
        with os.fdopen(reading, "rb") as lines:
            try:
                interrupted = _follow(process, lines, planned, progress)
            except ReplayError:
                process.wait(_STOP_TIMEOUT_S)
                for out in outs:
                    _remove_empty(out)
                if len(outs) > 1:
                    with suppress(OSError):
                        outs[0].parent.rmdir()
                raise
    if crew is not None and not interrupted and not (outs[0] / "run.json").exists():
        raise InputError(
            f"not all of {crew.expect} expected workers joined within {crew.wait_s} s: start each with `replay worker"
            f" --master HOST --port {crew.port}`, or expect fewer"
        )
    return [_summary(out, process.returncode, interrupted) for out in outs]


def stop(run: str | Path) -> None:
    """Have a run that is under way stop, wherever it was started. `InputError` where there is none."""
    if remote.is_remote(run := str(run)):
        store = remote.Store(run)
        if "run.json" not in store.names():
            raise InputError(f"{remote.shown(run)} is not a run: there is no run.json in it")
        if orjson.loads(store.get("run.json"))["state"] != "open":
            raise InputError(f"{remote.shown(run)} is over already: there is nothing to stop")
        store.put(remote.STOP_OBJECT, b"")
        return
    _stop_here(Path(run))


def _stop_here(run: Path) -> None:
    state = metadata.load(run, "run")["state"]
    if state != "open":
        raise InputError(f"{run} is over already: there is nothing to stop")
    (run / STOP_FILE).touch(mode=0o600)


def work(master: str, port: int) -> NoReturn:
    """Become a worker of the run, or runs, that a master begins: the process is replaced, its exit code is the
    worker's."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    os.execv(  # noqa: S606 - no shell is wanted
        sys.executable, [*_LOCUST, "--worker", "--master-host", master, "--master-port", str(port)]
    )


def _check_port(crew: Remote) -> None:
    try:
        socket.create_server((crew.bind, crew.port)).close()
    except OSError as error:
        raise InputError(
            f"cannot listen on port {crew.port} for workers: {error.strerror}; choose another --master-port"
        ) from None


_LOCUST = (sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--only-summary", "--skip-log-setup")


def _command(capture: Path, workers: Remote | int, progress_fd: int) -> list[str]:
    several: tuple[str, ...] = ()
    if isinstance(workers, Remote):
        several = ("--master", "--expect-workers", str(workers.expect))
        several += ("--expect-workers-max-wait", str(workers.wait_s))
        several += ("--master-bind-host", workers.bind, "--master-bind-port", str(workers.port))
    elif workers > 1:
        port = str(free_port())
        several = ("--processes", str(workers), "--master-bind-host", "127.0.0.1")
        several += ("--master-bind-port", port, "--master-port", port)
    return [
        *(*_LOCUST, "--headless"),
        *("--capture", str(capture), "--progress-fd", str(progress_fd)),
        *several,
    ]


@contextmanager
def _locust(
    arguments: list[str], environment: dict[str, str], progress_fd: int
) -> Iterator[subprocess.Popen[bytes]]:
    # A session of its own: Ctrl-C comes to this process, which decides what it means for the run.
    process: subprocess.Popen[bytes] | None = None
    try:
        with uninterrupted():
            process = subprocess.Popen(
                arguments,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(progress_fd,),
                start_new_session=True,
            )
        yield process
    finally:
        if process is not None:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _follow(
    process: subprocess.Popen[bytes], lines: Any, planned: int, progress: Callable[[Progress], None] | None
) -> bool:
    """Pass progress on until the process ends; returns whether the user interrupted it."""
    interrupted = 0
    tally = _Tally(planned)
    while True:
        try:
            for line in lines:
                told = tally.hear(json.loads(line))
                if progress is not None:
                    progress(told)
            process.wait(_STOP_TIMEOUT_S)
            return interrupted > 0
        except KeyboardInterrupt:
            interrupted += 1
            with suppress(ProcessLookupError):
                process.send_signal(_ending(interrupted, tally))


def _ending(interrupted: int, tally: _Tally) -> signal.Signals:
    """How to end the replayer; one that is still starting would only complain of a Ctrl-C, at length."""
    if not tally.heard:
        return signal.SIGTERM
    return signal.SIGINT if interrupted == 1 else signal.SIGUSR2


class _Tally:
    """Adds up what the workers tell of themselves."""

    def __init__(self, planned: int) -> None:
        self._planned = planned
        self._of: dict[str, dict[str, int]] = {}

    @property
    def heard(self) -> bool:
        """Whether any worker has said anything."""
        return bool(self._of)

    def hear(self, line: dict[str, Any]) -> Progress:
        """Take in one worker's line; an error it tells is raised here."""
        if "error" in line:
            error = ReplayError(line["error"])
            error.exit_code = line["exit_code"]
            raise error
        self._of[line.pop("worker")] = line
        sums = {name: sum(other[name] for other in self._of.values()) for name in line}
        return Progress(planned=self._planned, **sums)


def _summary(out: Path, returncode: int, interrupted: bool) -> RunSummary:
    if not (out / "run.json").exists():
        if interrupted:
            raise KeyboardInterrupt
        raise ReplayError(f"the replayer ended before it began (exit {returncode}): its messages are above")
    meta = metadata.load(out, "run")
    if not meta.get("workers") and meta["state"] != "closed":
        recover(out, "run")
        if interrupted:  # before it had sent anything
            _remove_empty(out)
            raise KeyboardInterrupt
        raise ReplayError(f"the replayer died (exit {returncode}); what it had recorded is readable in {out}")
    books = meta["books"] if meta["state"] == "closed" else closing.close(out)
    return RunSummary(out, books, interrupted or bool(books["interrupted"]))


def _remove_empty(out: Path) -> None:
    """A run that never sent anything leaves nothing behind."""
    if out.is_dir() and not any(out.glob("part-*")) and not any(out.glob("journal-*")):
        for path in (out / "run.json", out / ".compact", out / STOP_FILE):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            out.rmdir()
