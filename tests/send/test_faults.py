"""Servers that misbehave, for real: for each fault one row of the right kind, nothing sent twice, and the
arrivals after it on the same connection are sent all the same."""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path

import pytest

from replay.config import RunSettings
from replay.store.reader import Dataset
from replay.store.writer import DatasetWriter
from replay.verbs.run import RunSummary, replay_run
from tests.rows import T0, exchange
from tests.send.servers import OK, RecordingServer, answer_ok, reset

TIMEOUT_S = 1.0
STEP_NS = 50_000_000


def _say(*pieces: bytes, then: object = None):
    """Send the pieces, then: close (`None`), keep the connection (`True`), or do `then(connection)`."""

    def behave(connection: socket.socket) -> bool:
        for piece in pieces:
            connection.sendall(piece)
        if callable(then):
            then(connection)
        return then is True

    return behave


def _stall(connection: socket.socket) -> None:
    # Until the other side gives up: nothing arrives on this connection but its end.
    connection.recv(1)


def _trickle(connection: socket.socket) -> None:
    connection.settimeout(0.05)
    while True:
        connection.sendall(b"x")
        try:
            if not connection.recv(1):
                return
        except TimeoutError:
            continue


def _endless_head(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")


def _half_close(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)
    connection.recv(1)


HEAD = b"HTTP/1.1 200 OK\r\n"
LONG = HEAD + b"Content-Length: 1000\r\n\r\n"

# Fault → what the server does, then the row's status and error.
FAULTS = {
    "reset-at-once": (_say(then=reset), None, "stale"),
    "close-at-once": (_say(), None, "stale"),
    "reset-in-head": (_say(HEAD, then=reset), None, "reset"),
    "close-in-head": (_say(HEAD), None, "closed"),
    "reset-in-body": (_say(LONG + b"abc", then=reset), 200, "reset"),
    "close-in-body": (_say(LONG + b"abc"), 200, "closed"),
    "close-in-chunk": (_say(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"), 200, "closed"),
    "half-close": (_say(then=_half_close), None, "stale"),
    "stall-before-head": (_say(then=_stall), None, "timeout"),
    "stall-in-head": (_say(HEAD, then=_stall), None, "timeout"),
    "stall-in-body": (_say(LONG + b"abc", then=_stall), 200, "timeout"),
    "trickle": (_say(LONG, then=_trickle), 200, "timeout"),
    "garbage": (_say(b"\x16\x03\x01 what is this\r\n\r\n"), None, "protocol"),
    "garbage-chunk": (_say(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"), 200, "protocol"),
    "endless-head": (_say(HEAD, then=_endless_head), None, "protocol"),
    "interim-flood": (_say(*[b"HTTP/1.1 102 Processing\r\n\r\n"] * 100), None, "protocol"),
    "interim-then-answer": (
        _say(*[b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"] * 3, OK, then=True),
        200,
        None,
    ),
    "until-close": (_say(HEAD + b"\r\n" + b"to the end"), 200, None),
    "answer-then-close": (_say(OK), 200, None),
    "answer-then-reset": (_say(OK, then=reset), 200, None),
    "connection-close": (_say(HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nok"), 200, None),
    "answer-and-garbage": (_say(OK + b"and more", then=True), 200, None),
    "no-content": (_say(b"HTTP/1.1 204 No Content\r\n\r\n", then=True), 204, None),
    "not-modified": (_say(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\n\r\n", then=True), 304, None),
    "chunked-trailers": (
        _say(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n", then=True),
        200,
        None,
    ),
    "oversize": (_say(HEAD + b"Content-Length: 3000000\r\n\r\n", b"x" * 3_000_000, then=True), 200, None),
    "redirect": (
        _say(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", then=True),
        302,
        None,
    ),
}


def behave(connection: socket.socket, request: bytes) -> bool:
    fault = request.split(b" ")[1].decode().removeprefix("/")
    if fault in FAULTS:
        return FAULTS[fault][0](connection)
    return answer_ok(connection, request)


def record(path: Path, targets: list[tuple[str, str]], **values: object) -> Path:
    """A capture of these (connection, target) pairs, one connection's exchanges one after the other."""
    writer = DatasetWriter(path, "capture", source={}, settings={})
    places: Counter[str] = Counter()
    for number, (connection, target) in enumerate(targets):
        started_at = T0 + places[connection] * STEP_NS + number * 1000
        places[connection] += 1
        writer.add(
            exchange(
                number,
                started_at=started_at,
                target=target,
                connection_id=connection,
                session_id=connection,
                endpoint=f"GET {target}",
                **values,
            )
        )
    writer.close({})
    return path


def run(tmp_path: Path, capture: Path, url: str, **settings: object) -> tuple[RunSummary, dict]:
    summary = replay_run(
        capture, url, tmp_path / "run", RunSettings(timeout=TIMEOUT_S, writes=("all",), **settings)
    )
    rows = {row.endpoint.removeprefix("GET "): row for row in Dataset.open(tmp_path / "run").rows()}
    return summary, rows


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory):
    """One run in which every fault happens on a connection of its own, between two good exchanges."""
    tmp_path = tmp_path_factory.mktemp("faults")
    targets = [(fault, f"/{stage}{fault}") for fault in FAULTS for stage in ("before-", "", "after-")]
    capture = record(tmp_path / "capture", targets)
    with RecordingServer(behave) as server:
        summary, rows = run(tmp_path, capture, server.url)
    return summary, rows, server


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_row_of_the_right_kind(faulty: tuple, fault: str) -> None:
    _, rows, server = faulty
    _, status, error = FAULTS[fault]
    row = rows[f"/{fault}"]
    assert (row.status, row.error) == (status, error)
    assert row.sent_ns is not None
    assert server.counts()[f"/{fault}"] == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_the_connections_next_arrivals_are_sent(faulty: tuple, fault: str) -> None:
    _, rows, server = faulty
    for stage in ("before", "after"):
        target = f"/{stage}-{fault}"
        assert (rows[target].status, rows[target].error, server.counts()[target]) == (200, None, 1)


def test_the_books_are_the_servers(faulty: tuple) -> None:
    summary, rows, server = faulty
    assert summary.balanced
    assert summary.books["planned"] == len(FAULTS) * 3 == len(rows)
    assert summary.books["sent"] == len(server.requests)
    errors = Counter(error for _, _, error in FAULTS.values() if error)
    assert summary.books["failed"] == dict(errors)


@pytest.mark.parametrize(
    ("fault", "body", "size"),
    [
        ("until-close", b"to the end", 10),
        ("chunked-trailers", b"ok", 2),
        ("no-content", b"", 0),
        ("close-in-body", b"abc", 3),
        ("interim-then-answer", b"ok", 2),
    ],
)
def test_bodies_are_what_was_answered(faulty: tuple, fault: str, body: bytes, size: int) -> None:
    row = faulty[1][f"/{fault}"]
    assert (row.response_body, row.response_size, row.truncated) == (body, size, False)


def test_an_oversize_body_is_cut_and_flagged(faulty: tuple) -> None:
    row = faulty[1]["/oversize"]
    assert (len(row.response_body), row.response_size, row.truncated) == (1 << 20, 3_000_000, True)


def test_headers_are_those_of_the_final_answer(faulty: tuple) -> None:
    row = faulty[1]["/interim-then-answer"]
    assert row.response_headers == (("Content-Type", "text/plain"), ("Content-Length", "2"))


def test_a_target_that_stops_listening(tmp_path: Path) -> None:
    targets = [("a", "/0"), ("a", "/1"), ("a", "/2"), ("b", "/3")]

    def behave(connection: socket.socket, request: bytes) -> bool:
        if request.startswith(b"GET /1 "):
            server.stop_listening()
            connection.sendall(OK)
            return False
        return answer_ok(connection, request)

    with RecordingServer(behave) as server:
        capture = record(tmp_path / "capture", targets[:3])
        summary, rows = run(tmp_path, capture, server.url)
    assert [rows[t].error for t in ("/0", "/1", "/2")] == [None, None, "refused"]
    assert rows["/2"].sent_ns is None
    assert summary.books["failed"] == {"refused": 1}
    assert summary.balanced
    assert server.counts() == {"/0": 1, "/1": 1}


def test_an_early_answer_to_an_upload(tmp_path: Path) -> None:
    """The server answers and closes before it has read the body: that is an answer, and sent once."""
    body = b"x" * 20_000_000

    def behave(connection: socket.socket, request: bytes) -> bool:
        raise AssertionError("the whole upload arrived")

    class Impatient(RecordingServer):
        def _converse(self, connection: socket.socket, mine: list[bytes]) -> None:
            data = connection.recv(1000)
            if data:
                self.requests.append(data)
                connection.sendall(
                    b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"
                )
                connection.recv(1000)

    with Impatient(behave) as server:
        headers = (("Host", "a"), ("Content-Length", str(len(body))))
        capture = record(
            tmp_path / "capture",
            [("a", "/up")],
            request_body=body,
            request_size=len(body),
            method="POST",
            request_headers=headers,
        )
        _, rows = run(tmp_path, capture, server.url)
    assert (rows["/up"].status, rows["/up"].error, rows["/up"].response_body) == (413, None, b"big")
    assert len([data for data in server.requests if data.startswith(b"POST /up ")]) == 1
