"""A raw TCP server for tests: it writes down every byte it gets, and answers, or misbehaves, as told."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType

Behaviour = Callable[[socket.socket, bytes], bool]
"""Given the connection and the whole request, answer somehow; `True` keeps the connection open."""

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


def answer_ok(connection: socket.socket, request: bytes) -> bool:
    head_only = request.startswith(b"HEAD ")
    connection.sendall(OK[:-2] if head_only else OK)
    return True


class RecordingServer:
    """Listens on a free loopback port; `requests` are the raw requests in the order they were complete."""

    def __init__(
        self, behave: Behaviour = answer_ok, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.requests: list[bytes] = []
        self.connections: list[list[bytes]] = []
        self.partial: list[bytes] = []
        self._behave = behave
        self._tls = tls
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closing = False
        self.host = host
        self._listener = socket.create_server((host, 0), backlog=1024)
        self.port = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    def counts(self) -> Counter[str]:
        """Requests by target."""
        return Counter(request.split(b" ")[1].decode("latin-1") for request in self.requests)

    def stop_listening(self) -> None:
        """From now on connections are refused."""
        # Shutting down first wakes the thread that is waiting in accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def __enter__(self) -> RecordingServer:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self.stop_listening()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        mine: list[bytes] = []
        try:
            with connection:
                speaking = self._tls.wrap_socket(connection, server_side=True) if self._tls else connection
                with speaking:
                    self._converse(speaking, mine)
        except (OSError, ValueError):
            # The peer went away, or the test is over.
            pass
        finally:
            with self._lock:
                self._open.discard(connection)
                if mine:
                    self.connections.append(mine)

    def _converse(self, connection: socket.socket, mine: list[bytes]) -> None:
        rest = b""
        while True:
            request, rest = read_request(connection, rest)
            if request is None:
                if rest:
                    with self._lock:
                        self.partial.append(rest)
                return
            with self._lock:
                self.requests.append(request)
                mine.append(request)
            if not self._behave(connection, request):
                return


def read_request(connection: socket.socket, rest: bytes) -> tuple[bytes | None, bytes]:
    """One whole request and what came after it; `None` and the piece that came where the peer stopped."""
    data = rest
    while True:
        length = request_length(data)
        if length is not None and len(data) >= length:
            return data[:length], data[length:]
        more = connection.recv(65536)
        if not more:
            return None, data
        data += more


def request_length(data: bytes) -> int | None:
    """How long the request that `data` begins with is, as far as can be told yet."""
    head, blank, body = data.partition(b"\r\n\r\n")
    if not blank:
        return None
    start = len(head) + 4
    if re.search(rb"(?mi)^transfer-encoding:.*chunked", head):
        end = 0 if body.startswith(b"0\r\n\r\n") else body.find(b"\r\n0\r\n\r\n") + 2
        return start + end + 5 if end != 1 else None
    found = re.search(rb"(?mi)^content-length: *(\d+)", head)
    return start + (int(found[1]) if found else 0)


def reset(connection: socket.socket) -> None:
    """Close with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
