"""`replay capture`: mitmproxy with the addon in front of a service, until told to stop."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replay.capture import books
from replay.capture.filters import Filters
from replay.capture.options import (
    ON_ERROR,
    SAMPLE_BY,
    SYNCS,
    choice,
    parse_floor,
    parse_rotate,
    parse_session_key,
    parse_size,
)
from replay.capture.redact import Policy
from replay.capture.sampling import parse_share
from replay.config import load as load_config
from replay.config import parse_target
from replay.errors import InputError, ReplayError, TargetError, UsageError
from replay.keys import load_key
from replay.store import metadata

_READY_WITHIN = 60.0
_DONE_WITHIN = 60.0
# The console script may be elsewhere, or of another installation; the module is the one beside us.
_MITMDUMP = "import sys; sys.argv[0] = 'mitmdump'; from mitmproxy.tools.main import mitmdump; mitmdump()"
_OPTIONS = (
    # What the client sent is what the upstream gets and what is recorded.
    "keep_host_header=true",
    "keep_alt_svc_header=true",
    "validate_inbound_headers=false",
    "anticomp=false",
    # No connection to the upstream but for a request; nothing gathered in memory, nothing printed.
    "connection_strategy=lazy",
    "store_streamed_bodies=false",
    "flow_detail=0",
    "termlog_verbosity=warn",
    "onboarding=false",
)


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """What to capture. One of `upstream` (reverse mode) and `mode` (any other of mitmproxy's) is given.

    `listen` is HOST:PORT, port 0 for a free one; `duration` in seconds, `None` until stopped; `options` are
    further `name=value` for mitmproxy.
    """

    out: Path
    upstream: str | None = None
    mode: str | None = None
    listen: str = "127.0.0.1:8080"
    sample: str = "100%"
    max_body: str = "1m"
    key_file: Path | None = None
    config: Path | None = None
    duration: float | None = None
    sample_by: str = "session"
    session_key: str = ""
    floor: str = "0"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    rotate: str = "64m,5min"
    sync: str = "segment"
    on_error: str = "pass"
    metrics: str = ""
    sink: bool = False
    cert: Path | None = None
    cert_key: Path | None = None
    upstream_ca: Path | None = None
    insecure: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CaptureSummary:
    """How a capture ended: the dataset and its books, as in capture.json."""

    out: Path
    books: dict[str, Any]
    redacted: dict[str, int]


def capture(settings: CaptureSettings, on_ready: Callable[[str, int], None] | None = None) -> CaptureSummary:
    """Capture until SIGINT, SIGTERM or the end of `duration`; `on_ready` is told the address it listens on.

    Raises a `ReplayError` where it cannot begin (and then leaves no dataset behind), or when the proxy ends
    by itself.
    """
    process = CaptureProcess(settings)
    with _signals(process.ask_to_stop, process.tell_books):
        host, port = process.start()
        if on_ready is not None:
            on_ready(host, port)
        process.wait(settings.duration)
        return process.stop()


class CaptureProcess:
    """A running capture, for those who have something else to do meanwhile. Also a context manager."""

    def __init__(self, settings: CaptureSettings) -> None:
        self._settings = settings
        self._mode, self._listen = _check(settings)
        self._process: subprocess.Popen[str] | None = None
        self._status: _StatusPipe | None = None
        self._output: list[str] = []
        self._reader: threading.Thread | None = None
        self._stop_asked = threading.Event()

    def __enter__(self) -> CaptureProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.stop()

    def start(self) -> tuple[str, int]:
        """Start it; returns the address it listens on."""
        _check_free(*self._listen)
        status = self._status = _StatusPipe()
        certificate = _certificate(self._settings)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _MITMDUMP, *self._arguments(status.write_end, certificate)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=(status.write_end, *certificate),
            # Out of the terminal's process group: the signals it gets are the ones given on.
            start_new_session=True,
        )
        status.close_write_end()
        for descriptor in certificate:
            os.close(descriptor)
        self._reader = threading.Thread(target=self._relay, daemon=True)
        self._reader.start()
        told = status.next(_READY_WITHIN)
        if told is None or told["event"] != "listening":
            raise self._failed(told)
        host, port = told["addresses"][0]
        return str(host), int(port)

    def wait(self, duration: float | None = None) -> None:
        """Until it is asked to stop, the time is over, or the proxy has ended."""
        assert self._process is not None
        until = None if duration is None else time.monotonic() + duration
        while not self._stop_asked.wait(0.1):
            if self._process.poll() is not None or (until is not None and time.monotonic() >= until):
                return

    def ask_to_stop(self) -> None:
        """End `wait`; safe in a signal handler."""
        self._stop_asked.set()

    def tell_books(self) -> None:
        """Have the recorder say its books on standard error."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGUSR1)

    def stop(self) -> CaptureSummary:
        """End the capture, wait until everything is on disk; returns the summary."""
        assert self._process is not None
        ended_by_itself = self._process.poll() is not None
        if not ended_by_itself:
            self._process.send_signal(signal.SIGTERM)
        told = self._end()
        failed = told and (told.get("why") or (told.get("books") or {}).get("problem"))
        if failed and not str(failed).startswith("the recorder is gone"):
            raise TargetError(_stopped_recording(self._settings, str(failed), told or {}))
        # Whoever crashed, the books are closed over what is there.
        broken = books.settle(self._settings.out, told and told.get("totals"))
        if ended_by_itself and self._process.returncode:
            raise TargetError(f"mitmproxy ended by itself: {self._last_words()}")
        if broken:
            raise TargetError(
                f"the recorder died before the capture ended; what it wrote until then is in {self._settings.out}"
            )
        meta = metadata.load(self._settings.out, "capture")
        return CaptureSummary(self._settings.out, meta["books"], meta.get("redacted", {}))

    def kill(self) -> None:
        """End the proxy at once, as a crash would; what the recorder has got, it still writes."""
        if self._process is not None:
            self._process.kill()
            self._end()

    def _end(self) -> dict[str, Any] | None:
        """Wait for the end; returns the last that the addon told."""
        process, self_reader = self._process, self._reader
        assert process is not None
        try:
            process.wait(_DONE_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self_reader is not None:
            self_reader.join(5)
        if process.stdout is not None:
            process.stdout.close()
        return self._status.close() if self._status is not None else None

    def _arguments(self, status: int, certificate: list[int]) -> list[str]:
        settings = self._settings
        host, port = self._listen
        options = [
            *_OPTIONS,
            f"replay_out={settings.out.absolute()}",
            f"replay_sample={settings.sample}",
            f"replay_max_body={parse_size(settings.max_body, '--max-body')}",
            f"replay_status_fd={status}",
            f"replay_sample_by={settings.sample_by}",
            f"replay_session_key={settings.session_key}",
            f"replay_floor={settings.floor}",
            *(f"replay_only={text}" for text in settings.only),
            *(f"replay_skip={text}" for text in settings.skip),
            f"replay_rotate={settings.rotate}",
            f"replay_sync={settings.sync}",
            f"replay_on_error={settings.on_error}",
            f"replay_metrics={settings.metrics}",
            f"replay_sink={str(settings.sink).lower()}",
            f"ssl_insecure={str(settings.insecure).lower()}",
            *(f"certs=*=/proc/self/fd/{descriptor}" for descriptor in certificate),
        ]
        if settings.upstream_ca is not None:
            options.append(f"ssl_verify_upstream_trusted_ca={settings.upstream_ca.absolute()}")
        if settings.key_file is not None:
            options.append(f"replay_key_file={settings.key_file.absolute()}")
        if settings.config is not None:
            options.append(f"replay_config={settings.config.absolute()}")
        addon = Path(__file__).resolve().parent.parent / "capture" / "addon.py"
        arguments = [
            "-s",
            str(addon),
            "--mode",
            self._mode,
            "--listen-host",
            host,
            "--listen-port",
            str(port),
        ]
        for option in (*options, *settings.options):
            arguments += ["--set", option]
        return arguments

    def _relay(self) -> None:
        """What mitmproxy says goes on to standard error; the last of it is kept for an error message."""
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._output = [*self._output[-19:], line.rstrip()]
            if self._status is not None and self._status.heard:
                sys.stderr.write(line)

    def _failed(self, told: dict[str, Any] | None) -> ReplayError:
        assert self._process is not None
        if self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        self._process.kill()
        self._end()
        self._process = None
        if told is not None:
            return InputError(str(told.get("message")))
        return UsageError(f"mitmproxy did not start: {self._last_words()}")

    def _last_words(self) -> str:
        said = [line for line in self._output if line.strip() and "logged during startup" not in line]
        return said[-1].strip() if said else "it said nothing"


class _StatusPipe:
    """Where the addon tells its state: a line of JSON each."""

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()
        self._buffer = b""
        self._open = True
        self.heard = False

    def close_write_end(self) -> None:
        os.close(self.write_end)

    def next(self, timeout: float) -> dict[str, Any] | None:
        """The next line; `None` at the end, or when none came in time."""
        until = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            if not select.select([self._read_end], [], [], max(0.0, until - time.monotonic()))[0]:
                return None
            data = os.read(self._read_end, 4096)
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        self.heard = self.heard or told["event"] == "listening"
        return told

    def close(self) -> dict[str, Any] | None:
        """The last line, and the end."""
        last = None
        while self._open and (told := self.next(0)) is not None:
            last = told
        if self._open:
            self._open = False
            os.close(self._read_end)
        return last


def _check(settings: CaptureSettings) -> tuple[str, tuple[str, int]]:
    """mitmproxy's mode and the address to listen on; whatever is wrong is said here, before anything runs."""
    if sum((settings.upstream is not None, settings.mode is not None, settings.sink)) != 1:
        raise UsageError(
            "say what to record: --upstream URL, --sink for mirrored traffic, or --mode for another of mitmproxy's"
        )
    parse_share(settings.sample)
    _check_words(settings)
    if settings.duration is not None and not settings.duration > 0:
        raise UsageError(f"--duration {settings.duration:g} must be above 0")
    load_key(settings.key_file)
    Policy.of(load_config(settings.config).redact)
    if settings.out.exists() and not settings.out.is_dir():
        raise UsageError(f"--out {settings.out} is a file: name a directory")
    if settings.sink:
        # Nothing is ever sent there: port 9 is `discard`.
        return "reverse:http://127.0.0.1:9", _address(settings.listen)
    mode = settings.mode or f"reverse:{_resolved(settings.upstream or '')}"
    return mode, _address(settings.listen)


def _check_words(settings: CaptureSettings) -> None:
    parse_rotate(settings.rotate)
    parse_size(settings.max_body, "--max-body")
    parse_floor(settings.floor)
    parse_session_key(settings.session_key)
    choice(settings.sample_by, SAMPLE_BY, "--sample-by")
    choice(settings.sync, SYNCS, "--sync")
    choice(settings.on_error, ON_ERROR, "--on-error")
    Filters(settings.only, settings.skip)
    if settings.cert_key is not None and settings.cert is None:
        raise UsageError("--cert-key without --cert: name the certificate it belongs to")
    for option, path in (
        ("--cert", settings.cert),
        ("--cert-key", settings.cert_key),
        ("--upstream-ca", settings.upstream_ca),
    ):
        if path is not None and not os.access(path, os.R_OK):
            raise UsageError(f"{option} {path} cannot be read")


def _certificate(settings: CaptureSettings) -> list[int]:
    """Certificate and key as one file, as mitmproxy wants them: in memory, for no key is copied to a disk."""
    if settings.cert is None:
        return []
    text = settings.cert.read_bytes() + b"\n" + (settings.cert_key.read_bytes() if settings.cert_key else b"")
    if b"PRIVATE KEY-----" not in text or b"BEGIN CERTIFICATE-----" not in text:
        raise UsageError(
            f"--cert {settings.cert}: PEM with a certificate is needed, and its key there or in --cert-key"
        )
    descriptor = os.memfd_create("certificate", 0)
    os.write(descriptor, text)
    return [descriptor]


def _stopped_recording(settings: CaptureSettings, why: str, told: dict[str, Any]) -> str:
    totals = told.get("books") or {}
    written = f"; {totals['written']} of {totals['seen']} exchanges were written" if totals else ""
    ended = (
        "the proxy was stopped, as --on-error stop asks" if settings.on_error == "stop" else "traffic went on"
    )
    return f"recording to {settings.out} stopped: {why}; {ended}{written}"


def _resolved(upstream: str) -> str:
    target = parse_target(upstream, "--upstream")
    try:
        socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TargetError(
            f"--upstream {upstream}: {target.host} cannot be resolved ({error.strerror})"
        ) from None
    host = f"[{target.host}]" if ":" in target.host else target.host
    return f"{target.scheme}://{host}:{target.port}"


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise UsageError(f"--listen {listen}: write HOST:PORT, or :PORT for all addresses")
    return host.strip("[]"), int(port)


def _check_free(host: str, port: int) -> None:
    if port == 0:
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"--listen {host}:{port} cannot be used ({error.strerror}): choose another address or port"
            ) from None


@contextlib.contextmanager
def _signals(handle: Callable[[], None], tell: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call `handle` meanwhile, SIGUSR1 `tell`, where that can be: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [
        signal.signal(number, lambda got, _: tell() if got == signal.SIGUSR1 else handle())
        for number in numbers
    ]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
