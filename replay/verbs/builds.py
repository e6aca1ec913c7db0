"""Builds under test as child processes: started, waited for, and ended with everything they started.

Each build gets a session of its own, so that ending its process group ends its workers too, and Ctrl-C at
the terminal reaches only us: we end the builds when it is their turn.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

from replay.config import parse_target
from replay.errors import TargetError
from replay.verbs.gate_settings import BuildSettings, shown

_LAST_LINES = 20
_POLL_S = 0.05


@contextmanager
def running(build: BuildSettings, role: str, log: Path) -> Iterator[str]:
    """The build up and ready; gives its URL. One that we started is ended when the block is left.

    Its output goes to `log`. `TargetError`, with the last lines of the log, where it does not come up.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    url = _filled(build.url or "", port)
    env = {**os.environ, **{name: _filled(value, port) for name, value in build.env.items()}}
    env.update(REPLAY_ROLE=role, REPLAY_URL=url, REPLAY_PORT=str(parse_target(url).port))
    if build.reset:
        _reset(build, role, env, log, port)
    if not build.command:
        _wait_ready(build, role, url, port, None, log)
        yield url
        return
    with _child(build, role, env, log, port) as process:
        _wait_ready(build, role, url, port, process, log)
        yield url


def _filled(text: str, port: int) -> str:
    return text.replace("{port}", str(port))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _reset(build: BuildSettings, role: str, env: Mapping[str, str], log: Path, port: int) -> None:
    """Run the hook that restores staging's data. `TargetError` where it fails or takes too long."""
    arguments = [_filled(item, port) for item in build.reset]
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                arguments,
                env=dict(env),
                cwd=build.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            raise TargetError(
                f"[{build.role}] reset: cannot start {arguments[0]}: {error.strerror}"
            ) from None
        try:
            code = process.wait(build.timeout)
        except BaseException as error:
            end_group(process, build.grace)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise TargetError(
                f"[{build.role}] reset ({shown(build.reset)}) did not end within {build.timeout:g} s before the"
                f" {role} run: mend it, or raise timeout{_tail(log)}"
            ) from None
    if code:
        raise TargetError(
            f"[{build.role}] reset ({shown(build.reset)}) failed before the {role} run: exit {code}{_tail(log)}"
        )


@contextmanager
def _child(
    build: BuildSettings, role: str, env: Mapping[str, str], log: Path, port: int
) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [_filled(item, port) for item in build.command]
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                arguments,
                env=dict(env),
                cwd=build.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            raise TargetError(
                f"[{build.role}] command: cannot start {arguments[0]}: {error.strerror}"
            ) from None
    try:
        yield process
    finally:
        end_group(process, build.grace)


def end_group(process: subprocess.Popen[bytes], grace: float) -> None:
    """End a child that leads its own group, and everything in it: ask, wait `grace` seconds, then kill.

    Should that be interrupted, the group is killed at once; nothing of it is left either way.
    """
    try:
        _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while _alive(process) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()


def _alive(process: subprocess.Popen[bytes]) -> bool:
    process.poll()  # a leader that has ended must be reaped, or it counts as part of its group
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _wait_ready(
    build: BuildSettings, role: str, url: str, port: int, process: subprocess.Popen[bytes] | None, log: Path
) -> None:
    deadline = time.monotonic() + build.timeout
    probe = _filled(build.ready, port) if build.ready else None
    why = ""
    while True:
        if process is not None and process.poll() is not None:
            how = _exit(process.returncode)
            raise TargetError(
                f"the {role} build did not start: {shown(build.command)} ended with {how}{_tail(log)}"
            )
        why = _try(url, probe)
        if not why:
            return
        if time.monotonic() >= deadline:
            ask = probe or url
            raise TargetError(
                f"the {role} build was not ready within {build.timeout:g} s: {ask}: {why};"
                f" check [{build.role}], or raise its timeout{_tail(log) if process else ''}"
            )
        time.sleep(_POLL_S)


def _exit(code: int) -> str:
    return f"exit {code}" if code >= 0 else f"signal {-code}"


def _try(url: str, probe: str | None) -> str:
    """Why the build is not ready; empty if it is."""
    target = parse_target(url)
    try:
        if probe is None:
            socket.create_connection((target.host, target.port), timeout=2).close()
            return ""
        return _ask(url, probe)
    except (OSError, HTTPException) as error:
        return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _ask(url: str, probe: str) -> str:
    parts = urlsplit(probe if "//" in probe else url)
    path = probe if "//" not in probe else (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    maker = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    with closing(maker(parts.hostname or "localhost", parts.port, timeout=2)) as connection:
        connection.request("GET", path)
        status = connection.getresponse().status
    return "" if status < 400 else f"status {status}"


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
