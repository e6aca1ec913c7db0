"""A server on a loopback address that answers whatever is asked with given bytes, and the connection that asks."""

from __future__ import annotations

import gevent
import gevent.socket
from gevent.event import Event

from replay.config import RunSettings, parse_target
from replay.send.connection import Connection, Outcome
from replay.send.plan_stream import Planned
from replay.send.target import resolve

_REQUEST = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"
_PATIENCE = 20


class Peer:
    """`ask` sends requests on one connection; each is answered with the same bytes, then the server hangs up."""

    MAX_BODY = 64

    def __init__(self) -> None:
        self._listener = gevent.socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self._answer = b""
        self._port = self._listener.getsockname()[1]
        gevent.spawn(self._serve)

    def ask(self, answer: bytes, times: int) -> list[Outcome]:
        """What became of that many requests; raises `TimeoutError` where one never ended."""
        self._answer = answer
        endpoint = resolve(
            parse_target(f"http://127.0.0.1:{self._port}"), RunSettings(max_body=self.MAX_BODY)
        )
        outcomes: list[Outcome] = []
        over = Event()

        def finished(outcome: Outcome, _: Connection) -> None:
            outcomes.append(outcome)
            if len(outcomes) == times:
                over.set()

        connection = Connection(endpoint, gevent.get_hub().loop, finished)
        for _ in range(times):
            arrival = Planned(0, 0, 0, (), b"", None, 0, "GET /", "GET", True, _REQUEST)
            connection.submit(arrival, 0, 0, 0)
        if not over.wait(_PATIENCE):
            raise TimeoutError(f"{len(outcomes)} of {times} requests ended")
        connection.close()
        return outcomes

    def _serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
            gevent.spawn(self._one, client)

    def _one(self, client: gevent.socket.socket) -> None:
        try:
            if client.recv(4096):
                client.sendall(self._answer)
                client.shutdown(1)
                # Until the client has read it all: closing earlier would reset what it has not read yet.
                while client.recv(4096):
                    pass
        except OSError:
            pass
        finally:
            client.close()
