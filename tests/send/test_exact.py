# ruff: noqa: E501 - the table is easier to read with a case on a line
"""What a raw TCP server receives is what was captured, byte for byte, on one connection for each recorded one."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from replay.config import RunSettings
from replay.errors import TargetError, UsageError
from replay.model import Exchange
from replay.store.reader import Dataset
from replay.verbs.run import replay_run
from tests.rows import exchange
from tests.send.captures import steady, write
from tests.send.servers import RecordingServer

BIG = bytes(range(256)) * 8192

# What was captured → the bytes that must arrive.
REQUESTS: dict[str, tuple[dict, bytes]] = {
    "header order, case, duplicates": (
        {"target": "/", "request_headers": (("hOST", "a"), ("X-B", "1"), ("x-b", "2"), ("ACCEPT", "*/*"), ("X-B", "3"))},
        b"GET / HTTP/1.1\r\nhOST: a\r\nX-B: 1\r\nx-b: 2\r\nACCEPT: */*\r\nX-B: 3\r\n\r\n",
    ),
    "odd but legal headers": (
        {"target": "/", "request_headers": (("Host", "a"), ("!#$%&'*+-.^_`|~", "x;y=\"\t\""), ("X-Latin", "caf\xe9"), ("E", ""))},
        b"GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~: x;y=\"\t\"\r\nX-Latin: caf\xe9\r\nE: \r\n\r\n",
    ),
    "no headers at all": ({"target": "/", "request_headers": ()}, b"GET / HTTP/1.1\r\n\r\n"),
    "raw target": (
        {"target": "//a%2fb/../%7Eu/\xc3\xbc?q=a+b&x=%41;y|z#frag", "request_headers": ()},
        b"GET //a%2fb/../%7Eu/\xc3\xbc?q=a+b&x=%41;y|z#frag HTTP/1.1\r\n\r\n",
    ),
    "absolute form": ({"target": "http://other:81/x?y", "request_headers": ()}, b"GET http://other:81/x?y HTTP/1.1\r\n\r\n"),
    "asterisk": ({"method": "OPTIONS", "target": "*", "request_headers": ()}, b"OPTIONS * HTTP/1.1\r\n\r\n"),
    "any method token": ({"method": "m-SEARCH", "target": "/", "request_headers": ()}, b"m-SEARCH / HTTP/1.1\r\n\r\n"),
    "HEAD": ({"method": "HEAD", "target": "/h", "request_headers": ()}, b"HEAD /h HTTP/1.1\r\n\r\n"),
    "HTTP/1.0": ({"http_version": "HTTP/1.0", "target": "/", "request_headers": ()}, b"GET / HTTP/1.0\r\n\r\n"),
    "empty body with a length": (
        {"method": "POST", "target": "/", "request_headers": (("Content-Length", "0"),)},
        b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    ),
    "binary body": (
        {"method": "PUT", "target": "/", "request_headers": (("Content-Length", "5"),), "request_body": b"\0\r\n\xff\n", "request_size": 5},
        b"PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\n\0\r\n\xff\n",
    ),
    "large body": (
        {"method": "PUT", "target": "/", "request_headers": (("Content-Length", str(len(BIG))),), "request_body": BIG, "request_size": len(BIG)},
        b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(BIG) + BIG,
    ),
    "chunked upload": (
        {"method": "POST", "target": "/", "request_headers": (("Transfer-Encoding", "chunked"),), "request_body": b"hello", "request_size": 5},
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
}  # fmt: skip


def one(number: int, values: dict) -> Exchange:
    return exchange(
        number, session_id=f"s{number}", connection_id=f"c{number}", endpoint=f"X /{number}", **values
    )


@pytest.fixture(scope="module")
def arrived(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[bytes], list]:
    path = tmp_path_factory.mktemp("exact")
    write(path / "capture", (one(number, values) for number, (values, _) in enumerate(REQUESTS.values())))
    with RecordingServer() as server:
        replay_run(path / "capture", server.url, path / "run", RunSettings(timeout=5, writes=("all",)))
    return server.requests, list(Dataset.open(path / "run").rows())


@pytest.mark.parametrize("name", REQUESTS)
def test_bytes_arrive_as_captured(arrived: tuple, name: str) -> None:
    assert REQUESTS[name][1] in arrived[0]


def test_nothing_else_arrives_and_all_are_called_exact(arrived: tuple) -> None:
    requests, rows = arrived
    assert sorted(requests) == sorted(expected for _, expected in REQUESTS.values())
    assert all(row.exact and row.sent_head is None for row in rows)
    assert {row.status for row in rows} == {200}


def test_what_differs_is_kept_beside_the_answer(tmp_path: Path) -> None:
    steady(tmp_path / "capture", 2, 1)
    settings = RunSettings(
        writes=("all",), host_header="target", set_headers=(("X-Tag", "t"),), remove_headers=("x-twice",)
    )
    with RecordingServer() as server:
        replay_run(tmp_path / "capture", server.url, tmp_path / "run", settings)
        head = f"GET /0 HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nX-Tag: t\r\n\r\n".encode()
    assert head in server.requests
    row = next(iter(Dataset.open(tmp_path / "run").rows()))
    assert (row.exact, row.sent_head, row.sent_body) == (False, head, b"")


def test_a_tag_names_the_exchange_to_the_target(tmp_path: Path) -> None:
    capture = steady(tmp_path / "capture", 3, 1)
    with RecordingServer() as server:
        replay_run(capture, server.url, tmp_path / "run", RunSettings(tag="X-Replay-Id"))
    tags = {
        line
        for request in server.requests
        for line in request.split(b"\r\n")
        if line.startswith(b"X-Replay-Id")
    }
    ids = {row.exchange_id for row in Dataset.open(capture, "capture").rows()}
    assert tags == {f"X-Replay-Id: {name}".encode() for name in ids}


@pytest.mark.parametrize(("option", "says"), [({"tag": "no header"}, "--tag"), ({"spin": -1.0}, "--spin")])
def test_odd_settings_are_refused(option: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        RunSettings(**option)


def test_without_spinning_nothing_is_lost(tmp_path: Path) -> None:
    steady(tmp_path / "capture", 50, 1)
    with RecordingServer() as server:
        replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings(spin=0.0))
    assert len(server.requests) == 50


def test_one_recorded_connection_is_one_here(tmp_path: Path) -> None:
    steady(tmp_path / "capture", 40, 2, connections=5)
    with RecordingServer() as server:
        replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings())
    recorded = {tuple(range(first, 40, 5)) for first in range(5)}
    assert {tuple(int(r.split()[1][1:]) for r in requests) for requests in server.connections} == recorded
    rows = list(Dataset.open(tmp_path / "run").rows())
    assert sum(not row.reused for row in rows) == 5
    assert all((row.connect_ns is None) == row.reused for row in rows)


def test_overlapping_streams_do_not_wait_for_each_other(tmp_path: Path) -> None:
    exchanges = [
        one(n, {"target": f"/{n}", "http_version": "HTTP/2.0", "duration_ns": 10**9, "request_headers": ()})
        for n in range(3)
    ]
    write(tmp_path / "capture", (exchange_on("c", item) for item in exchanges))
    with RecordingServer() as server:
        replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings())
    assert len(server.connections) == 3
    assert all(b"HTTP/1.1\r\nHost: shop.test\r\n" in request for request in server.requests)


def exchange_on(connection: str, item: Exchange) -> Exchange:
    from dataclasses import replace

    return replace(item, connection_id=connection)


def test_pooled_connections_are_shared(tmp_path: Path) -> None:
    steady(tmp_path / "capture", 20, 5, connections=20)
    with RecordingServer() as server:
        replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings(connections="pooled"))
    assert len(server.requests) == 20
    assert len(server.connections) < 10


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def tls_server(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_tls(tmp_path: Path, authority: trustme.CA) -> None:
    steady(tmp_path / "capture", 20, 2, connections=2)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with RecordingServer(tls=tls_server(authority, "127.0.0.1")) as server:
        replay_run(
            tmp_path / "capture", server.url, tmp_path / "run", RunSettings(ca=str(tmp_path / "ca.pem"))
        )
    rows = list(Dataset.open(tmp_path / "run").rows())
    assert [row.status for row in rows] == [200] * 20
    assert sum(row.tls_ns is not None for row in rows) == 2
    assert len(server.requests) == 20


def test_an_untrusted_certificate_is_refused_unless_allowed(tmp_path: Path, authority: trustme.CA) -> None:
    steady(tmp_path / "capture", 2, 2)
    with RecordingServer(tls=tls_server(authority, "127.0.0.1")) as server:
        with pytest.raises(TargetError, match=r"not trusted.*--ca"):
            replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings())
        assert not (tmp_path / "run").exists()
        replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings(insecure=True))
    assert len(server.requests) == 2


def test_a_handshake_that_fails_midway_is_a_row(tmp_path: Path, authority: trustme.CA) -> None:
    steady(tmp_path / "capture", 3, 50, connections=3)
    context = tls_server(authority, "127.0.0.1")

    class Moody(RecordingServer):
        """Good for the check before the run, then hangs up in the handshake of every second connection."""

        seen = 0

        def _serve(self, connection):
            self.seen += 1
            if self.seen == 3:
                connection.recv(50)
                connection.close()
                return
            super()._serve(connection)

    with Moody(tls=context) as server:
        summary = replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings(insecure=True))
    assert [row.error for row in Dataset.open(tmp_path / "run").rows()] == [None, "tls", None]
    assert summary.books["failed"] == {"tls": 1}
    assert len(server.requests) == 2
