"""Builds under test as child processes: started, waited for, and ended with everything they started.

Each build gets a session of its own, so that ending its process group ends its workers too, and Ctrl-C at
the terminal reaches only us: we end the builds when it is their turn.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

from replay.config import parse_target
from replay.errors import TargetError
from replay.verbs.gate_settings import BuildSettings, shown
from replay.verbs.ports import free_port
from replay.verbs.signals import uninterrupted

_LAST_LINES = 20
_POLL_S = 0.05
_PROBE_TIMEOUT_S = 2
# How long the kernel may take to end what was killed; what hangs in a driver may take for ever.
_KILL_S = 5.0


@dataclass(frozen=True, slots=True)
class Running:
    """A build that is up; `process` is the one we started, if we did."""

    url: str
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def gone(self) -> str:
        """How a build that we started ended by itself, with its log's last lines; empty while it runs."""
        code = self.process.poll() if self.process is not None else None
        return "" if code is None else f"{_exit(code)}{_tail(self.log)}"


@contextmanager
def running(
    build: BuildSettings, role: str, log: Path, tls: ssl.SSLContext | None = None
) -> Iterator[Running]:
    """The build up and ready. One that we started is ended when the block is left.

    Its output goes to `log`; `tls` is what to trust where its URL is https. `TargetError`, with the last lines
    of the log, where it does not come up.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    port = str(free_port())
    url = build.url.replace("{port}", port)
    env = {**os.environ, **{name: value.replace("{port}", port) for name, value in build.env.items()}}
    env.update(REPLAY_ROLE=role, REPLAY_URL=url, REPLAY_PORT=str(parse_target(url).port))
    child = _Child(build, env, log, port)
    if build.reset:
        _reset(build, role, child)
    ready = _Readiness(build, role, url, build.ready and build.ready.replace("{port}", port), tls)
    if not build.command:
        ready.wait(None, log)
        yield Running(url, log)
        return
    ready.nobody_there()
    with child.started(build.command, "command") as process:
        ready.wait(process, log)
        yield Running(url, log, process)


@dataclass(frozen=True, slots=True)
class _Child:
    """How the commands of one build are started."""

    build: BuildSettings
    env: Mapping[str, str]
    log: Path
    port: str

    @contextmanager
    def started(self, command: Sequence[str], key: str) -> Iterator[subprocess.Popen[bytes]]:
        arguments = [item.replace("{port}", self.port) for item in command]
        process: subprocess.Popen[bytes] | None = None
        try:
            with self.log.open("ab") as output, uninterrupted():
                process = subprocess.Popen(
                    arguments,
                    env=dict(self.env),
                    cwd=self.build.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            yield process
        except OSError as error:
            if process is not None:
                raise
            where = f"[{self.build.role}] {key}: cannot start {arguments[0]}"
            raise TargetError(f"{where} in {self.build.directory}: {error.strerror}") from None
        finally:
            if process is not None:
                end_group(process, self.build.grace)


def _reset(build: BuildSettings, role: str, child: _Child) -> None:
    """Run the hook that restores staging's data. `TargetError` where it fails or takes too long."""
    what = f"[{build.role}] reset ({shown(build.reset)})"
    with child.started(build.reset, "reset") as process:
        try:
            code = process.wait(build.timeout)
        except subprocess.TimeoutExpired:
            raise TargetError(
                f"{what} did not end within {build.timeout:g} s before the {role} run: mend it, or raise timeout"
                f"{_tail(child.log)}"
            ) from None
    if code:
        raise TargetError(f"{what} failed before the {role} run: {_exit(code)}{_tail(child.log)}")


def end_group(process: subprocess.Popen[bytes], grace: float) -> None:
    """End a child that leads its own group, and everything in it: ask, wait `grace` seconds, then kill.

    Should that be interrupted, the group is killed at once; nothing of it is left either way.
    """
    try:
        _signal(process, signal.SIGTERM)
        _wait_for_end(process, grace)
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()
        _wait_for_end(process, _KILL_S)


def _wait_for_end(process: subprocess.Popen[bytes], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _alive(process) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _alive(process: subprocess.Popen[bytes]) -> bool:
    process.poll()  # a leader that has ended must be reaped, or it counts as part of its group
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    # Orphans that ended count too, until whoever adopted them reaps them; in a container that may be never.
    return any(_group_if_alive(stat) == process.pid for stat in Path("/proc").glob("[0-9]*/stat"))


def _group_if_alive(stat: Path) -> int | None:
    """The process group, by `proc_pid_stat(5)`; `None` for a process that has ended."""
    try:
        state, _, group = stat.read_bytes().rpartition(b")")[2].split()[:3]
    except (OSError, ValueError):
        return None
    return None if state in (b"Z", b"X") else int(group)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


@dataclass(frozen=True, slots=True)
class _Readiness:
    """Whether a build is up: `probe` (a path or URL) answers below 400, or without one its port is open."""

    build: BuildSettings
    role: str
    url: str
    probe: str | None
    tls: ssl.SSLContext | None

    def nobody_there(self) -> None:
        """Another server at the build's address would be taken for the build. `TargetError` if there is one."""
        target = parse_target(self.url)
        if not _connect(target.host, target.port):
            raise TargetError(
                f"[{self.build.role}] url: something listens at {self.url} already, before the {self.role} build"
                " was started: end it, or let {port} in command and url stand for a free port"
            )

    def wait(self, process: subprocess.Popen[bytes] | None, log: Path) -> None:
        """Return when it is up; `TargetError` where it ends, or its time does."""
        deadline = time.monotonic() + self.build.timeout
        while True:
            if process is not None and process.poll() is not None:
                raise TargetError(self._ended(process.returncode, log))
            why = self._missing()
            if not why:
                return
            if time.monotonic() >= deadline:
                raise TargetError(
                    f"the {self.role} build was not ready within {self.build.timeout:g} s:"
                    f" {self.probe or self.url}: {why}; check [{self.build.role}], or raise its timeout"
                    f"{_tail(log) if process else ''}"
                )
            time.sleep(_POLL_S)

    def _ended(self, code: int, log: Path) -> str:
        hint = "" if code else " (a build has to stay in the foreground)"
        command = shown(self.build.command)
        return f"the {self.role} build did not start: {command} ended with {_exit(code)}{hint}{_tail(log)}"

    def _missing(self) -> str:
        """Why the build is not ready; empty if it is."""
        target = parse_target(self.url)
        if self.probe is None:
            return _connect(target.host, target.port)
        try:
            return self._ask(self.probe)
        except (OSError, HTTPException) as error:
            return _reason(error)

    def _ask(self, probe: str) -> str:
        parts = urlsplit(probe if "//" in probe else self.url)
        path = parts.path or "/" if "//" in probe else probe
        query = f"?{parts.query}" if "//" in probe and parts.query else ""
        host, port, timeout = parts.hostname or "localhost", parts.port, _PROBE_TIMEOUT_S
        connection = (
            HTTPSConnection(host, port, timeout=timeout, context=self.tls)
            if parts.scheme == "https"
            else HTTPConnection(host, port, timeout=timeout)
        )
        with closing(connection):
            connection.request("GET", path + query)
            status = connection.getresponse().status
        return "" if status < 400 else f"status {status}"


def _connect(host: str, port: int) -> str:
    """Why a port takes no connection; empty if it does."""
    try:
        socket.create_connection((host, port), timeout=_PROBE_TIMEOUT_S).close()
    except OSError as error:
        return _reason(error)
    return ""


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _exit(code: int) -> str:
    return f"exit {code}" if code >= 0 else f"signal {-code}"


def _tail(log: Path) -> str:
    """The last lines of a log, below a line that names it."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            lines = file.read().decode("utf-8", "replace").splitlines()[-_LAST_LINES:]
    except OSError:
        lines = []
    printable = ("".join(char if char.isprintable() else "\ufffd" for char in line) for line in lines)
    text = "\n".join(f"  {line}" for line in printable)
    return f"; the end of {log}:\n{text}" if text else f"; it wrote nothing to {log}"
