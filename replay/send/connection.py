"""One connection to the target: nonblocking, driven by gevent's event loop, one request at a time.

There is no greenlet per connection and none per request: the event loop calls back when the socket can be
read or written, and httptools (llhttp) reads the answers. Requests are written as they come from the planner
and never written twice. What became of each is handed to `finished` exactly once, as an `Outcome`.

A reused connection may turn out to be closed. If the kernel refuses the first byte of a request, nothing of
it has left this machine, and the request goes out on a new connection instead: still its only sending. If
the kernel took any of it and the peer closes or resets without a byte of answer, the peer may or may not
have seen it: the arrival has failed, as `stale`.
"""

from __future__ import annotations

import errno
import ssl
from collections import deque
from collections.abc import Callable
from time import monotonic_ns
from typing import Any, NamedTuple

import gevent
import gevent.monkey
import httptools

from replay.send.plan_stream import Planned
from replay.send.target import Endpoint

# The event loop drives these sockets: the cooperative ones of gevent would only add a layer.
_socket = gevent.monkey.get_original("socket", "socket")
_AF_INET6 = 10
_SOCK_STREAM = 1
_IPPROTO_TCP = 6
_TCP_NODELAY = 1
_READ, _WRITE = 1, 2

RECEIVE_BYTES = 64 << 10
MAX_HEAD_BYTES = 256 << 10
MAX_INTERIM = 32

_CONNECT_ERRORS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.ETIMEDOUT: "connect_timeout",
}


class Outcome(NamedTuple):
    """What became of one arrival on its connection. Instants are of the monotonic clock, in ns.

    `submitted_at` is when the sender turned to the arrival: before it the generator was late, after it the
    target was waited for. `sent_at` is `None` when nothing was sent. `connect_ns` and `tls_ns` are durations,
    `None` on a reused connection. `head` is the raw head of the final answer, `body` what was kept of the
    answer's body. `learned` are pairs of a recorded value and the live one that this answer gave for it.
    """

    arrival: Planned
    due_at: int
    submitted_at: int
    sent_at: int | None
    first_at: int | None
    last_at: int
    connect_ns: int | None
    tls_ns: int | None
    status: int | None
    head: bytes
    body: bytes
    size: int
    error: str | None
    learned: tuple[tuple[str, str], ...] = ()

    @classmethod
    def unsent(cls, arrival: Planned, due_at: int, submitted_at: int, now: int, error: str) -> Outcome:
        """An arrival that waited for other answers until it was given up."""
        nothing = (None, None, now, None, None, None, b"", b"", 0)
        return cls(arrival, due_at, submitted_at, *nothing, error)


class Connection:
    """Sends arrivals in the order of `submit`, each when the one before has been answered."""

    __slots__ = (
        "_begun_at",
        "_body",
        "_body_size",
        "_connect_from",
        "_connect_ns",
        "_current",
        "_done",
        "_due_at",
        "_endpoint",
        "_finished",
        "_first_at",
        "_fresh",
        "_head",
        "_headers_done",
        "_interim",
        "_is_head",
        "_keep",
        "_kept",
        "_loop",
        "_parser",
        "_sent_at",
        "_socket",
        "_status",
        "_submitted_at",
        "_tls",
        "_tls_from",
        "_tls_in",
        "_tls_ns",
        "_tls_out",
        "_unsent",
        "_waiting",
        "_watch_read",
        "_watch_write",
        "over",
    )

    def __init__(
        self, endpoint: Endpoint, loop: Any, finished: Callable[[Outcome, Connection], None]
    ) -> None:
        self._endpoint = endpoint
        self._loop = loop
        self._finished = finished
        self._waiting: deque[tuple[Planned, int, int]] = deque()
        self._current: Planned | None = None
        self._socket: Any = None
        self._parser: Any = None
        self._tls: ssl.SSLObject | None = None
        self._unsent: memoryview | None = None
        self._connect_ns: int | None = None
        self._tls_ns: int | None = None
        self._sent_at: int | None = None
        self._begun_at = 0
        self._fresh = True
        self.over = False
        """Set when the recording closed this connection: it closes once idle."""

    @property
    def idle(self) -> bool:
        """Nothing is being sent, awaited or queued."""
        return self._current is None and not self._waiting

    @property
    def open(self) -> bool:
        """There is a socket, connected or on its way."""
        return self._socket is not None

    def submit(self, arrival: Planned, due_at: int, submitted_at: int, now: int) -> None:
        """Send `arrival` now, or as soon as what is before it has been answered."""
        if self._current is None and not self._waiting and self._socket is not None:
            self._send(arrival, due_at, submitted_at, now)
            return
        self._waiting.append((arrival, due_at, submitted_at))
        if self._socket is None:
            self._next(now)

    def close(self) -> None:
        """Close the socket; what is queued stays queued."""
        if self._socket is None:
            return
        self._watch_read.stop()
        self._watch_read.close()
        self._watch_write.stop()
        self._watch_write.close()
        self._socket.close()
        self._socket = None
        # The parser holds this object's methods: without this the pair would wait for the garbage
        # collector, which is off while a run is on.
        self._parser = None
        self._tls = None
        self._unsent = None

    def expire(self, now: int, timeout_ns: int) -> None:
        """Fail what has waited longer than `timeout_ns` for its connection or its answer."""
        if self._current is not None and now - self._begun_at > timeout_ns:
            self._fail("timeout" if self._sent_at is not None else "connect_timeout", now)

    def abandon(self, now: int, error: str) -> None:
        """Fail everything that is under way or queued, and close."""
        while not self.idle:
            if self._current is None:
                self._current, self._due_at, self._submitted_at = self._waiting.popleft()
                self._begin(now)
            self._settle(error, now)
        self.close()

    def cut(self, now: int, error: str) -> None:
        """Fail what is queued; what is under way may still be answered."""
        while self._waiting:
            self._finished(Outcome.unsent(*self._waiting.popleft(), now, error), self)

    # Connecting

    def _next(self, now: int) -> None:
        """Take up what is waiting, connecting first where there is no connection."""
        if self._current is not None or not self._waiting:
            return
        if self._socket is not None:
            self._send(*self._waiting.popleft(), now)
            return
        self._current, self._due_at, self._submitted_at = self._waiting.popleft()
        self._begin(now)
        self._connect(now)

    def _begin(self, now: int) -> None:
        """A new arrival is current: nothing is known of its answer yet."""
        self._begun_at = now
        self._sent_at = None
        self._first_at: int | None = None
        self._status: int | None = None
        self._head = b""
        self._body: list[bytes] = []
        self._body_size = 0
        self._kept = 0
        self._interim = 0
        self._headers_done = False
        self._done = False

    def _connect(self, now: int) -> None:
        self._fresh = True
        self._connect_ns = self._tls_ns = None
        self._connect_from = now
        try:
            self._socket = sock = _socket(self._endpoint.family, _SOCK_STREAM)
        except OSError:
            # No descriptors left: the start of the run checks the limit, but the machine has one as well.
            self._fail("unreachable", now)
            return
        sock.setblocking(False)
        sock.setsockopt(_IPPROTO_TCP, _TCP_NODELAY, 1)
        self._watch_read = self._loop.io(sock.fileno(), _READ)
        self._watch_write = self._loop.io(sock.fileno(), _WRITE)
        code = sock.connect_ex(self._endpoint.address)
        if code in (0, errno.EINPROGRESS):
            self._watch_write.start(self._on_connected)
        else:
            self._fail(_CONNECT_ERRORS.get(code, "unreachable"), now)

    def _on_connected(self) -> None:
        now = monotonic_ns()
        self._watch_write.stop()
        code = self._socket.getsockopt(1, 4)  # SOL_SOCKET, SO_ERROR
        if code:
            self._fail(_CONNECT_ERRORS.get(code, "unreachable"), now)
            return
        self._connect_ns = now - self._connect_from
        if self._endpoint.tls is not None:
            self._begin_tls(self._endpoint.tls, now)
            return
        self._watch_read.start(self._on_readable)
        self._send_current(now)

    def _begin_tls(self, context: ssl.SSLContext, now: int) -> None:
        self._tls_from = now
        self._tls_in, self._tls_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._tls_in, self._tls_out, server_hostname=self._endpoint.server_name)
        self._watch_read.start(self._on_handshake)
        self._handshake(now)

    def _on_handshake(self) -> None:
        now = monotonic_ns()
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._fail("tls", now)
            return
        self._tls_in.write(data)
        self._handshake(now)

    def _handshake(self, now: int) -> None:
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush_tls()
            return
        except (ssl.SSLError, ValueError):
            self._flush_tls()
            self._fail("tls", now)
            return
        now = monotonic_ns()
        self._tls_ns = now - self._tls_from
        self._watch_read.stop()
        self._watch_read.start(self._on_readable)
        self._send_current(now)

    # Sending

    def _send(self, arrival: Planned, due_at: int, submitted_at: int, now: int) -> None:
        self._current, self._due_at, self._submitted_at = arrival, due_at, submitted_at
        self._begin(now)
        self._send_current(now)

    def _send_current(self, now: int) -> None:
        arrival = self._current
        assert arrival is not None
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        if self._endpoint.finish is not None:
            arrival = self._current = self._endpoint.finish(arrival)
        self._is_head = arrival.method == "HEAD"
        self._sent_at = now
        if self._tls is not None:
            self._tls.write(arrival.wire)
            self._flush_tls()
            return
        wire = arrival.wire
        try:
            taken = self._socket.send(wire)
        except BlockingIOError:
            taken = 0
        except OSError:
            self._refused_first_byte(now)
            return
        if taken < len(wire):
            self._unsent = memoryview(wire)[taken:]
            self._watch_write.start(self._on_writable)

    def _refused_first_byte(self, now: int) -> None:
        """The kernel knows that the peer is gone and took nothing: a new connection is this one's first."""
        if self._fresh:
            self._fail("reset", now)
            return
        self.close()
        self._sent_at = None
        self._connect(now)

    def _flush_tls(self) -> None:
        data = self._tls_out.read()
        if self._unsent is not None:
            self._unsent = memoryview(bytes(self._unsent) + data)
            return
        if not data:
            return
        try:
            taken = self._socket.send(data)
        except BlockingIOError:
            taken = 0
        except OSError:
            # Reading reports what happened, with whatever the peer had said before.
            return
        if taken < len(data):
            self._unsent = memoryview(data)[taken:]
            self._watch_write.start(self._on_writable)

    def _on_writable(self) -> None:
        assert self._unsent is not None
        try:
            taken = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            # The peer stopped reading. It may have answered early: reading tells.
            self._unsent = None
            self._watch_write.stop()
            return
        self._unsent = self._unsent[taken:]
        if not self._unsent:
            self._unsent = None
            self._watch_write.stop()

    # Receiving

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._lost("reset", monotonic_ns())
            return
        now = monotonic_ns()
        if self._tls is not None:
            self._on_ciphertext(data, now)
        elif data:
            self._on_data(data, now)
        else:
            self._on_eof(now)

    def _on_ciphertext(self, data: bytes, now: int) -> None:
        tls = self._tls
        assert tls is not None
        tls_in = self._tls_in
        if data:
            tls_in.write(data)
        else:
            tls_in.write_eof()
        while self._tls is tls:
            try:
                plain = tls.read(RECEIVE_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:
                # Many servers close without the closing alert; the framing of HTTP tells what was cut.
                if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
                    self._on_eof(now)
                else:
                    self._lost("tls", now)
                return
            if not plain:
                self._on_eof(now)
                return
            self._on_data(plain, now)
            if not tls_in.pending and not tls.pending():
                # Asking once more would only raise: an exception for every answer.
                break
        if self._tls is tls and self._tls_out.pending:
            self._flush_tls()

    def _on_data(self, data: bytes, now: int) -> None:
        if self._current is None:
            # Bytes nobody asked for: whatever they are, the next answer could not be told from them.
            self.close()
            return
        if self._first_at is None:
            self._first_at = now
        if not self._headers_done:
            self._head = self._head + data if self._head else data
            if len(self._head) > MAX_HEAD_BYTES and b"\r\n\r\n" not in self._head:
                self._fail("protocol", now)
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._done = True
            self.over = self.over or self._status == 101
            self._complete(now, keep=False)
            return
        except httptools.HttpParserError:
            # An answer that is whole stays an answer, whatever came after it.
            if self._done:
                self._complete(now, keep=False)
            else:
                self._fail("protocol", now)
            return
        if self._done:
            if self._is_head:
                # This parser waits for a body that no answer to HEAD has.
                self._parser = None
            self._complete(now, self._keep)

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self._done:
            return
        self._status = self._parser.get_status_code()
        if self._status >= 200 or self._status == 101:
            self._headers_done = True
            # Asked later, the parser has forgotten: it is ready for the next message then.
            self._keep = self._parser.should_keep_alive()
            # The parser cannot know that HEAD was asked; its answers have no body whatever they announce.
            self._done = self._is_head

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        if self._done:
            return
        self._body_size += len(data)
        room = self._endpoint.max_body - self._kept
        if room > 0:
            self._body.append(data[:room])
            self._kept += min(room, len(data))

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._headers_done:
            self._done = True
            return
        # An interim answer (1xx): the next head is what counts.
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise ValueError("too many interim answers")
        self._head = self._head.partition(b"\r\n\r\n")[2]
        self._first_at = None

    def _on_eof(self, now: int) -> None:
        if self._current is not None and self._headers_done and self._ends_with_connection():
            self._complete(now, keep=False)
        else:
            self._lost("closed", now)

    def _ends_with_connection(self) -> bool:
        head = self._head.partition(b"\r\n\r\n")[0].lower()
        return b"\r\ncontent-length:" not in head and b"\r\ntransfer-encoding:" not in head

    # Ending

    def _complete(self, now: int, keep: bool) -> None:
        # Answered before the request was out: what is left of it must not become the next request.
        if not keep or self._unsent is not None:
            self.close()
        self._settle(None, now)
        self._next(now)
        if self.over and self.idle:
            self.close()

    def _lost(self, error: str, now: int) -> None:
        """The peer closed or reset."""
        if self._current is not None and self._first_at is None and not self._fresh and self._interim == 0:
            error = "stale"
        if self._current is None:
            self.close()
        else:
            self._fail(error, now)

    def _fail(self, error: str, now: int) -> None:
        self.close()
        self._settle(error, now)
        if self._waiting:
            # From the loop, not from here: a target that refuses at once must not deepen the stack.
            self._loop.run_callback(self._resume)

    def _resume(self) -> None:
        self._next(monotonic_ns())

    def _settle(self, error: str | None, now: int) -> None:
        """Hand over what became of the current arrival."""
        arrival = self._current
        assert arrival is not None
        self._current = None
        fresh = self._fresh
        self._fresh = False
        body = self._body
        outcome = Outcome(
            arrival,
            self._due_at,
            self._submitted_at,
            self._sent_at,
            self._first_at,
            now,
            self._connect_ns if fresh else None,
            self._tls_ns if fresh else None,
            self._status if self._headers_done else None,
            self._head.partition(b"\r\n\r\n")[0] if self._headers_done else b"",
            body[0] if len(body) == 1 else b"".join(body),
            self._body_size,
            error,
        )
        self._finished(outcome, self)
