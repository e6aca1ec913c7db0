"""Upstreams for the tests: small, real, on ports the system gives."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "tok-SECRETsecret-0123456789"
PASSWORD = "correct-horse-battery"


class Handler(BaseHTTPRequestHandler):
    """A login, an echo, bodies of every framing, and one that waits for `gate` in the middle."""

    protocol_version = "HTTP/1.1"
    gate = threading.Event()

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        received = self.rfile.read(length)
        if self.headers.get("Transfer-Encoding") == "chunked":
            received = self._unchunked()
        name = self.path.split("?")[0].strip("/").split("/")[0]
        getattr(self, f"give_{name}", self.give_echo)(received)

    do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815

    def give_echo(self, received: bytes) -> None:
        body = {"path": self.path, "received": len(received), "headers": self.headers.items()}
        self.answer(json.dumps(body).encode())

    def give_login(self, received: bytes) -> None:
        body = json.dumps({"user": "bob", "token": TOKEN}).encode()
        self.answer(body, ("Set-Cookie", f"sid={TOKEN}; Path=/; HttpOnly"), ("Set-Cookie", "lang=en"))

    def give_gzip(self, received: bytes) -> None:
        body = gzip.compress(json.dumps({"access_token": TOKEN, "x": list(range(50))}).encode())
        self.answer(body, ("Content-Encoding", "gzip"))

    def give_nothing(self, received: bytes) -> None:
        self.send_response(204)
        self.end_headers()

    def give_unchanged(self, received: bytes) -> None:
        self.send_response(304)
        self.send_header("Content-Length", "77")
        self.end_headers()

    def give_large(self, received: bytes) -> None:
        self.answer(b"x" * int(self.path.rpartition("/")[2]))

    def give_chunks(self, received: bytes) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"5\r\nfirst\r\n")
        self.wfile.flush()
        self.gate.wait(30)
        self.wfile.write(b"6\r\nsecond\r\n0\r\n\r\n")

    def give_broken(self, received: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"short")
        self.close_connection = True

    def give_upgrade(self, received: bytes) -> None:
        self.send_response(101)
        self.send_header("Upgrade", "echo")
        self.send_header("Connection", "Upgrade")
        self.end_headers()
        self.wfile.write(self.rfile.readline())
        self.close_connection = True

    def answer(self, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _unchunked(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)


@contextmanager
def upstream() -> Iterator[tuple[str, type[Handler]]]:
    """A running upstream: its URL, and its handler class, which has the gate."""
    handler = type("OneHandler", (Handler,), {"gate": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        handler.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port where connections are refused: bound, so that nobody else gets it, and not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
