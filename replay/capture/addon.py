"""The mitmproxy addon: sees exchanges, packs them, passes them on.

Alone: `mitmdump -s replay/capture/addon.py --set replay_out=DIR`; `replay capture` runs the same.

It stands in production's way, so it does nothing that could wait: no disk, no redaction, no lock. Of each
exchange it packs one frame (`replay.capture.frames`) for the recorder, a process behind it, and when that
cannot keep up it drops frames and counts them. Answers stream: the client gets each part when the upstream
sends it, and a copy up to `replay_max_body` is kept.

Instants come from one monotonic clock, anchored to the wall clock once, so that a step of the wall clock
never shows as a gap or a burst in the recorded traffic.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgpack
from mitmproxy import ctx, exceptions
from mitmproxy.addonmanager import Loader
from mitmproxy.connection import Client
from mitmproxy.flow import Flow
from mitmproxy.http import HTTPFlow, Response
from mitmproxy.utils import human

import replay
from replay.capture.filters import Filters
from replay.capture.flows import RawHeaders, error_kind, host_of
from replay.capture.options import (
    ON_ERROR,
    SAMPLE_BY,
    SYNCS,
    choice,
    parse_floor,
    parse_rotate,
    parse_session_key,
)
from replay.capture.sampling import parse_share
from replay.capture.spool import Spool
from replay.errors import ReplayError

logger = logging.getLogger(__name__)

_READY_WITHIN = 30.0
_DONE_WITHIN = 30.0
_PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ

_HTTP1 = (b"HTTP/1.1", b"HTTP/1.0")


class Tee:
    """Passes a body on, part by part, and keeps a copy of its beginning. `size` is the true size."""

    __slots__ = ("_parts", "_room", "ended", "size")

    def __init__(self, room: int) -> None:
        self._parts: list[bytes] = []
        self._room = room
        self.size = 0
        self.ended = False

    def __call__(self, data: bytes) -> bytes:
        if not data:
            self.ended = True
            return data
        size = len(data)
        self.size += size
        if self._room > 0:
            self._parts.append(data if size <= self._room else data[: self._room])
            self._room -= size
        return data

    def kept(self) -> bytes:
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)


class Pending:
    """An exchange under way: what is gone by the time it ends."""

    __slots__ = ("fields", "flow", "request", "response", "started", "ttfb")

    def __init__(self, flow: HTTPFlow, started: int, fields: RawHeaders) -> None:
        self.flow = flow
        self.started = started
        self.fields = fields
        self.ttfb: int | None = None
        self.request: Tee | None = None
        self.response: Tee | None = None


class CaptureAddon:
    """The hooks."""

    def __init__(self) -> None:
        self._pending: dict[str, Pending] = {}
        self._seen = 0
        self._passed: Counter[str] = Counter()
        self._max_body = 1 << 20
        self._sink = False
        self._said: dict[str, Any] = {}
        self._listener: threading.Thread | None = None
        self._anchor = time.time_ns() - time.monotonic_ns()
        self._pack = msgpack.Packer().pack
        self._recorder: subprocess.Popen[bytes] | None = None
        self._spool = Spool(
            most_rows=100_000, most_bytes=64 << 20, report=self._totals, on_broken=self._recorder_gone
        )

    # --- life

    def load(self, loader: Loader) -> None:
        add = loader.add_option
        add("replay_out", str, "", "Directory of the capture.")
        add("replay_sample", str, "100%", "Share of the sessions to record: 5% or 0.05.")
        add("replay_key_file", str, "", "Key file for pseudonyms and sampling; made where missing.")
        add("replay_max_body", str, "1m", "Bytes of a body to record; what is beyond is cut and counted.")
        add("replay_config", str, "", "replay.toml to read routes from.")
        add("replay_rotate", str, "64m,5min", "Size or age of journal that becomes a Parquet file.")
        add("replay_sample_by", str, "session", "What is sampled: session or request.")
        add("replay_session_key", str, "", "What tells sessions apart: cookie:NAME, header:NAME, query:NAME.")
        add("replay_floor", str, "0", "At least so many of every endpoint: 20/min.")
        add("replay_only", Sequence[str], [], "Record only what fits FIELD:PATTERN.")
        add("replay_skip", Sequence[str], [], "Do not record what fits FIELD:PATTERN.")
        add("replay_sync", str, "segment", "When to force to the disk: segment, second or always.")
        add("replay_on_error", str, "pass", "When recording fails: pass traffic on, or stop.")
        add("replay_metrics", str, "", "HOST:PORT to serve the books for Prometheus at.")
        add("replay_sink", bool, False, "Answer 204 at once and record the request, for mirrored traffic.")
        add("replay_status_fd", int, -1, "File descriptor to tell the state on, for the replay command.")

    def configure(self, updated: set[str]) -> None:
        try:
            if "replay_sample" in updated:
                parse_share(ctx.options.replay_sample)
            if "replay_max_body" in updated:
                self._max_body = human.parse_size(ctx.options.replay_max_body) or 0
            parse_rotate(ctx.options.replay_rotate)
            parse_floor(ctx.options.replay_floor)
            parse_session_key(ctx.options.replay_session_key)
            Filters(ctx.options.replay_only, ctx.options.replay_skip)
            choice(ctx.options.replay_sync, SYNCS, "--sync")
            choice(ctx.options.replay_on_error, ON_ERROR, "--on-error")
            choice(ctx.options.replay_sample_by, SAMPLE_BY, "--sample-by")
            self._sink = ctx.options.replay_sink
        except (ReplayError, ValueError) as error:
            raise exceptions.OptionsError(f"replay: {error}") from None  # type: ignore[no-untyped-call]

    def running(self) -> None:
        problem = self._begin()
        if problem:
            self._tell({"event": "error", "message": problem})
            logger.error("replay: %s", problem)
            return
        self._tell({"event": "listening", "addresses": _listening()})
        logger.info("replay: recording to %s", ctx.options.replay_out)
        _quieten()
        if any(mode.startswith("reverse") for mode in ctx.options.mode) and not ctx.options.keep_host_header:
            logger.warning(
                "replay: the Host header is rewritten before it is seen: set keep_host_header=true"
            )

    def done(self) -> None:
        if self._recorder is None:
            return
        for pending in list(self._pending.values()):
            self.finish(pending.flow, "interrupted")
        until = time.monotonic() + _DONE_WITHIN
        self._spool.close(_DONE_WITHIN)
        try:
            self._recorder.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            logger.error("replay: the recorder is still writing after %d s; it goes on alone", _DONE_WITHIN)
            return
        if self._listener is not None:
            self._listener.join(5)
        books = self._said or None
        self._tell({"event": "closed" if books else "broken", "totals": self._totals(), "books": books})
        if books is None:
            logger.error(
                "replay: the recorder did not end well; of what was seen it got a part: %s", self._totals()
            )
        else:
            logger.info("replay: %s", books)

    def _begin(self) -> str | None:
        """Start the recorder; what is wrong, if it cannot record."""
        if not ctx.options.replay_out:
            return "say where to record to: --set replay_out=DIR"
        rotate_bytes, rotate_seconds = parse_rotate(ctx.options.replay_rotate)
        self._recorder = start_recorder(
            {
                "out": str(Path(ctx.options.replay_out).absolute()),
                "sample": parse_share(ctx.options.replay_sample),
                "key_file": ctx.options.replay_key_file or None,
                "config": ctx.options.replay_config or None,
                "max_body": self._max_body,
                "rotate_bytes": rotate_bytes or 1 << 40,
                "rotate_seconds": rotate_seconds or 1e9,
                "sample_by": ctx.options.replay_sample_by,
                "session_key": ctx.options.replay_session_key,
                "floor": parse_floor(ctx.options.replay_floor),
                "only": list(ctx.options.replay_only),
                "skip": list(ctx.options.replay_skip),
                "sync": ctx.options.replay_sync,
                "metrics": ctx.options.replay_metrics,
                "sink": ctx.options.replay_sink,
                "source": {"tool": "mitmproxy", "mode": list(ctx.options.mode)},
            }
        )
        problem = _not_ready(self._recorder)
        if problem:
            self._recorder.kill()
            self._recorder.wait()
            self._recorder = None
            return problem
        assert self._recorder.stdin is not None
        self._spool.start(os.dup(self._recorder.stdin.fileno()))
        self._recorder.stdin.close()
        if self._sink:
            ctx.master.addons.add(Sink(self))  # type: ignore[no-untyped-call]
        self._listener = threading.Thread(target=self._listen, name="replay-listen", daemon=True)
        self._listener.start()
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            ctx.master.event_loop.add_signal_handler(
                signal.SIGUSR1, self._recorder.send_signal, signal.SIGUSR1
            )
        return None

    def _listen(self) -> None:
        """What the recorder says after it was ready: that it failed, and at the end its books."""
        assert self._recorder is not None
        assert self._recorder.stdout is not None
        for line in self._recorder.stdout:
            said = json.loads(line)
            if "failed" in said and "seen" not in said:
                self._failed(said["failed"])
            else:
                self._said = said

    def _failed(self, why: str) -> None:
        self._tell({"event": "failed", "why": why})
        if ctx.options.replay_on_error == "stop":
            ctx.master.event_loop.call_soon_threadsafe(ctx.master.shutdown)

    def _totals(self) -> dict[str, Any]:
        return {"seen": self._seen, "dropped": dict(self._spool.dropped), "passed": dict(self._passed)}

    def _recorder_gone(self, reason: str) -> None:
        ctx.master.event_loop.call_soon_threadsafe(
            logger.error, "replay: the recorder is gone (%s): traffic goes on and is not recorded", reason
        )
        self._failed(f"the recorder is gone ({reason})")

    def _tell(self, status: dict[str, Any]) -> None:
        descriptor = ctx.options.replay_status_fd
        if descriptor >= 0:
            try:
                os.write(descriptor, json.dumps(status).encode() + b"\n")
            except OSError:
                logger.warning("replay: nobody reads the state at descriptor %d", descriptor)

    # --- exchanges

    def requestheaders(self, flow: HTTPFlow) -> None:
        # The snapshot is taken here: Expect and upgrade headers are gone later. The tuple is never altered.
        fields = flow.request.data.headers.fields
        pending = Pending(flow, time.monotonic_ns(), fields)
        self._pending[flow.id] = pending
        self._seen += 1
        data = flow.request.data
        if data.http_version not in _HTTP1 and _forges_lines(
            (data.method, data.path, data.authority), fields
        ):
            _refuse(flow)
            return
        if self._sink:
            return
        if _is_large_or_open_ended(flow, fields, self._max_body) and not flow.request.stream:
            pending.request = flow.request.stream = Tee(self._max_body)

    def responseheaders(self, flow: HTTPFlow) -> None:
        pending = self._pending.get(flow.id)
        response = flow.response
        if pending is None or response is None:
            return
        pending.ttfb = time.monotonic_ns() - pending.started
        if response.data.http_version not in _HTTP1 and _forges_lines((), response.data.headers.fields):
            _refuse(flow)
            return
        if response.data.status_code != 101 and not callable(response.stream):
            pending.response = response.stream = Tee(self._max_body)

    def response(self, flow: HTTPFlow) -> None:
        self.finish(flow, None)

    def error(self, flow: HTTPFlow) -> None:
        self.finish(flow, error_kind(flow.error.msg if flow.error else ""))

    def finish(self, flow: HTTPFlow, error: str | None) -> None:
        """Pack the exchange for the recorder; once, whoever comes first."""
        pending = self._pending.pop(flow.id, None)
        if pending is None:
            return
        request = flow.request
        data = request.data
        client: Client = flow.client_conn
        room = self._max_body
        request_body, request_size = _body(pending.request, data.content, room)
        status: int | None = None
        response_fields: RawHeaders = ()
        response_body, response_size = None, 0
        if flow.response is not None:
            answer = flow.response.data
            status, response_fields = answer.status_code, answer.headers.fields
            response_body, response_size = _body(pending.response, answer.content, room)
        ended = data.timestamp_end
        self._spool.put(
            self._pack(
                (
                    "",
                    client.peername[0],
                    client.id,
                    self._anchor + pending.started,
                    int((ended - data.timestamp_start) * 1e9) if ended else None,
                    pending.ttfb,
                    None if self._sink else time.monotonic_ns() - pending.started,
                    data.method,
                    "https" if client.tls else "http",
                    host_of(request, pending.fields),
                    data.path,
                    "",
                    data.http_version,
                    pending.fields,
                    response_fields,
                    request_body,
                    response_body,
                    request_size,
                    response_size,
                    request_size > room or response_size > room,
                    status,
                    error,
                    1.0,
                )
            )
        )

    # --- what passes without being an exchange

    def http_connect(self, flow: HTTPFlow) -> None:
        self._passed["connect"] += 1

    def websocket_start(self, flow: HTTPFlow) -> None:
        self._passed["websocket"] += 1

    def tcp_start(self, flow: Flow) -> None:
        self._passed["tcp"] += 1

    def udp_start(self, flow: Flow) -> None:
        self._passed["udp"] += 1

    def dns_request(self, flow: Flow) -> None:
        self._passed["dns"] += 1


class Sink:
    """Answers at once, for traffic that someone mirrors here and whose answers are thrown away.

    A hook of its own: a proxy that is no sink does not pay for it.
    """

    def __init__(self, capture: CaptureAddon) -> None:
        self._capture = capture

    def request(self, flow: HTTPFlow) -> None:
        # Recorded before it is answered: what the client got is not known here.
        self._capture.finish(flow, None)
        flow.response = Response.make(204)


def start_recorder(settings: dict[str, Any]) -> subprocess.Popen[bytes]:
    """The recorder's process, its stdin the pipe for frames, its stdout the line that says ready."""
    # Found where this package was found, and nowhere else (-P): not in whatever directory this was started.
    root = str(Path(replay.__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "replay.capture.recorder", json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        # Out of the terminal's process group: Ctrl-C ends the proxy, and the end of its pipe the recorder.
        start_new_session=True,
    )
    assert process.stdin is not None
    _widen(process.stdin.fileno())
    return process


def _widen(descriptor: int) -> None:
    try:
        import fcntl

        fcntl.fcntl(descriptor, _SET_PIPE_SIZE, _PIPE_BYTES)
    except (ImportError, OSError):
        logger.debug("replay: the recorder's pipe keeps its size")


def _not_ready(recorder: subprocess.Popen[bytes]) -> str | None:
    assert recorder.stdout is not None
    if not select.select([recorder.stdout], [], [], _READY_WITHIN)[0]:
        return f"the recorder did not start within {_READY_WITHIN:.0f} s"
    answer = recorder.stdout.readline()
    if not answer:
        return "the recorder ended as it started: see its error above"
    status: dict[str, str] = json.loads(answer)
    return status.get("error")


def _listening() -> list[list[Any]]:
    proxyserver = ctx.master.addons.get("proxyserver")  # type: ignore[no-untyped-call]
    return [list(address[:2]) for address in proxyserver.listen_addrs()]


def _quieten() -> None:
    # mitmproxy logs a line for every streamed body, which here is every body, for handlers to throw away.
    if ctx.options.termlog_verbosity in ("error", "warn"):
        logging.getLogger("mitmproxy.proxy.server").setLevel(logging.WARNING)


def _refuse(flow: Any) -> None:
    flow.kill()


def _forges_lines(parts: Iterable[bytes], fields: RawHeaders) -> bool:
    """Whether a message of HTTP/2 holds bytes that would become lines of their own once it is sent as HTTP/1.1.

    RFC 9113, 8.2.1 calls it malformed; h2 before 4.3.0 lets it pass, and it would be another request to the server.
    """
    whole = b"".join((*parts, *(text for field in fields for text in field)))
    return b"\n" in whole or b"\r" in whole or b"\0" in whole


def _is_large_or_open_ended(flow: HTTPFlow, fields: RawHeaders, room: int) -> bool:
    """Whether the request's body might fill the memory if mitmproxy gathered it before sending it on."""
    open_ended = False
    for name, value in fields:
        if len(name) == 14 and name.lower() == b"content-length":
            return value.isdigit() and (len(value) > 18 or int(value) > room)
        if len(name) == 17 and name.lower() == b"transfer-encoding":
            open_ended = True
    return open_ended or flow.request.data.http_version not in _HTTP1


def _body(tee: Tee | None, content: bytes | None, room: int) -> tuple[bytes | None, int]:
    """What was kept of a body, and its true size."""
    if tee is not None and (tee.size or tee.ended or content is None):
        return tee.kept(), tee.size
    if content is None:
        return None, 0
    return (content if len(content) <= room else content[:room]), len(content)


addons = [CaptureAddon()]
