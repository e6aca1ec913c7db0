"""GoReplay's files and access logs: what is taken, what is not, and what is said of it."""

from __future__ import annotations

import gzip
import http.client
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replay.capture.importers import Item, NotTaken, reader_for
from replay.errors import InputError
from replay.model import Exchange
from replay.store.reader import Dataset
from replay.verbs.importing import import_files

SECOND = 1_000_000_000
NOON = 1_700_000_000 * SECOND
SEPARATOR = "\n🐵🙈🙉\n".encode()


def record(kind: int, name: str, time_ns: int, message: bytes, *, lasted: int = 0, more: str = "") -> bytes:
    return f"{kind} {name} {time_ns} {lasted}{more}\n".encode() + message


def get(target: str = "/a", *headers: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: shop.test", *headers, "", ""]).encode()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def gor(path: Path, *records: bytes, last: bytes = SEPARATOR) -> Path:
    path.write_bytes(SEPARATOR.join(records) + last)
    return path


def read(path: Path, host: str | None = None) -> list[Item]:
    return list(reader_for(path, host)(path))


def taken(items: list[Item]) -> list[Exchange]:
    return [item for item in items if isinstance(item, Exchange)]


def said(items: list[Item]) -> list[str]:
    return [
        item.reason if isinstance(item, NotTaken) else item.what
        for item in items
        if not isinstance(item, Exchange)
    ]


def test_a_request_and_its_answer_are_one_exchange(tmp_path: Path) -> None:
    post = (
        b"POST /a//b%2f?q HTTP/1.1\r\nHOST: shop.test\r\nX-A: 1\r\nx-a:  2\r\nContent-Length: 3\r\n\r\n\r\nx"
    )
    path = gor(
        tmp_path / "a.gor",
        record(1, "one", NOON, post, lasted=5),
        record(2, "one", NOON + 70, OK, lasted=30, more=" 7 more"),
    )
    (one,) = taken(read(path))
    assert (one.method, one.target, one.host) == ("POST", "/a//b%2f?q", "shop.test")
    assert one.request_headers == (("HOST", "shop.test"), ("X-A", "1"), ("x-a", "2"), ("Content-Length", "3"))
    assert (one.request_body, one.response_body, one.status) == (b"\r\nx", b"hi", 200)
    assert (one.started_at, one.request_ns, one.ttfb_ns, one.duration_ns) == (NOON, 5, 70, 100)
    assert not one.truncated


CASES = {
    "no separator at the end": ([record(1, "a", NOON, get())], b"", 1, ["answer not in the file"]),
    "gzip": ([record(1, "a", NOON, get()), record(2, "a", NOON, OK)], SEPARATOR, 1, []),
    "answer of a replay": (
        [record(1, "a", NOON, get()), record(2, "a", NOON, OK), record(3, "a", NOON, OK)],
        SEPARATOR,
        1,
        ["answer of a replay"],
    ),
    "answer alone": ([record(2, "a", NOON, OK)], SEPARATOR, 0, ["answer without its request"]),
    "damaged": (
        [record(1, "a", NOON, get()), b"nonsense"],
        SEPARATOR,
        1,
        ["damaged record", "answer not in the file"],
    ),
    "head cut off": ([record(1, "a", NOON, b"GET / HTTP/1.1\r\nHo")], SEPARATOR, 0, ["damaged record"]),
    "id used twice": (
        [record(1, "a", NOON, get()), record(1, "a", NOON, get())],
        SEPARATOR,
        1,
        ["request with the id of another", "answer not in the file"],
    ),
    "not HTTP": ([record(1, "a", NOON, b"PRI * HTTP/2.0\r\n\r\n")], SEPARATOR, 0, ["not an HTTP/1 request"]),
    "a separator was lost": (
        [record(1, "a", NOON, get("/a", "Content-Length: 0") + record(1, "b", NOON, get()))],
        SEPARATOR,
        1,
        ["bytes after the request body left out", "answer not in the file"],
    ),
}


@pytest.mark.parametrize(("records", "last", "count", "words"), CASES.values(), ids=CASES)
def test_records(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    records: list[bytes],
    last: bytes,
    count: int,
    words: list[str],
) -> None:
    path = gor(tmp_path / "a.gor", *records, last=last)
    if "gzip" in request.node.name:
        path.write_bytes(gzip.compress(path.read_bytes()))
    items = read(path)
    assert len(taken(items)) == count
    assert said(items) == words


def test_bodies_in_chunks_and_bodies_cut_short(tmp_path: Path) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n"
    path = gor(
        tmp_path / "a.gor",
        record(1, "a", NOON, get()),
        record(2, "a", NOON, chunked + b"0\r\n\r\n"),
        record(1, "b", NOON, get("/b", "Content-Length: 9") + b"four"),
        record(2, "b", NOON, chunked),
    )
    items = read(path)
    whole, cut = taken(items)
    assert (whole.response_body, whole.truncated) == (b"abcde", False)
    assert (cut.request_body, cut.request_size, cut.response_body, cut.truncated) == (
        b"four",
        9,
        b"abcde",
        True,
    )
    assert said(items) == ["request body cut short in the file", "response body cut short in the file"]


def test_sessions_and_connections(tmp_path: Path) -> None:
    """Who overlaps with himself has two connections; another user agent is another session."""
    asked = [("curl", 0, 100), ("curl", 50, 100), ("curl", 300, 10), ("firefox", 300, 10)]
    records = []
    for number, (agent, begun, lasted) in enumerate(asked):
        records.append(record(1, str(number), NOON + begun, get("/", f"User-Agent: {agent}")))
        records.append(record(2, str(number), NOON + begun + lasted, OK))
    found = taken(read(gor(tmp_path / "a.gor", *records)))
    assert [one.session_id == found[0].session_id for one in found] == [True, True, True, False]
    first, second, third, other = (one.connection_id for one in found)
    assert first != second
    assert third in (first, second)
    assert other not in (first, second)


def test_answers_that_come_late_or_never_hold_nothing_up(tmp_path: Path) -> None:
    records = [record(1, str(n), NOON + n * SECOND, get(f"/{n}")) for n in range(400)]
    records[250:250] = [record(2, "200", NOON + 250 * SECOND, OK)]
    found = taken(read(gor(tmp_path / "a.gor", *records)))
    assert [one.target for one in found] == [f"/{n}" for n in range(400)]
    assert [one.target for one in found if one.status] == ["/200"]


# --- access logs

COMBINED = '198.51.100.7 - ann [10/Oct/2023:13:55:36 -0730] "GET /a%20b?x=\\x22 HTTP/1.1" 200 12 "http://r/" "Mo\\"z"\n'


def log(path: Path, *lines: str) -> Path:
    path.write_bytes("".join(lines).encode("latin-1"))
    return path


def test_a_line_of_the_combined_format(tmp_path: Path) -> None:
    (one,) = taken(read(log(tmp_path / "access.log", COMBINED), "shop.test"))
    assert (one.method, one.target, one.status, one.response_size) == ("GET", '/a%20b?x="', 200, 12)
    assert one.request_headers == (("Host", "shop.test"), ("User-Agent", 'Mo"z'), ("Referer", "http://r/"))
    assert one.started_at == 1_696_973_136 * SECOND
    assert (one.request_body, one.response_body, one.duration_ns) == (b"", None, None)


LINES = {
    "common": ('h - - [10/Oct/2023:13:55:36 +0000] "GET / HTTP/1.0" 304 -\n', None),
    "its own host": (
        'h.test:80 1.2.3.4 - - [10/Oct/2023:13:55:36 +0000] "GET / HTTP/2.0" 200 1 "-" "-" 0.3\n',
        None,
    ),
    "a body": (
        'h - - [10/Oct/2023:13:55:36 +0000] "POST /x HTTP/1.1" 200 1\n',
        "POST whose body is not in the log",
    ),
    "TLS to a plain port": ('h - - [10/Oct/2023:13:55:36 +0000] "\\x16\\x03" 400 1\n', "not an HTTP request"),
    "no such month": (
        'h - - [10/Okt/2023:13:55:36 +0000] "GET / HTTP/1.1" 200 1\n',
        "not a line of an access log",
    ),
    "something else": ("2023-10-10 INFO started\n", "not a line of an access log"),
}


@pytest.mark.parametrize(("line", "reason"), LINES.values(), ids=LINES)
def test_lines(tmp_path: Path, line: str, reason: str | None) -> None:
    items = read(log(tmp_path / "access.log", COMBINED, line), "shop.test")
    assert len(taken(items)) == (1 if reason else 2)
    assert [item.reason for item in items if isinstance(item, NotTaken)] == ([reason] if reason else [])


def test_the_lines_of_a_second_are_spread_over_it(tmp_path: Path) -> None:
    found = taken(read(log(tmp_path / "access.log", *[COMBINED] * 4), "shop.test"))
    assert [one.started_at - found[0].started_at for one in found] == [n * SECOND // 4 for n in range(4)]
    assert len({one.exchange_id for one in found}) == 4


def test_a_log_without_a_host_needs_one(tmp_path: Path) -> None:
    path = log(tmp_path / "access.log", COMBINED)
    with pytest.raises(InputError, match="name it with --host"):
        read(path)


CONF = """
daemon off; master_process off; pid {home}/pid; error_log {home}/error.log;
events {{}}
http {{
  access_log {home}/access.log combined;
  client_body_temp_path {home}/a; proxy_temp_path {home}/b; fastcgi_temp_path {home}/c;
  uwsgi_temp_path {home}/d; scgi_temp_path {home}/e;
  server {{ listen unix:{home}/socket; return 200 "hello"; }}
}}
"""


@contextmanager
def nginx(home: Path) -> Iterator[Path]:
    """A server that logs as it does by default, on a socket in its directory, whose name has to be short."""
    (home / "nginx.conf").write_text(CONF.format(home=home))
    process = subprocess.Popen(
        ["nginx", "-p", str(home), "-c", str(home / "nginx.conf"), "-e", str(home / "error.log")]
    )
    try:
        deadline = time.monotonic() + 20
        while not (home / "socket").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield home
    finally:
        process.terminate()
        process.wait(10)


class OverSocket(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host)


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_what_nginx_logs_becomes_a_capture(tmp_path: Path) -> None:
    targets = ["/", "/a?b=c%20d", "/%22quoted%22\\", "/orders/17"]
    with tempfile.TemporaryDirectory() as short:
        with nginx(Path(short)) as home:
            client = OverSocket(str(home / "socket"))
            for target in targets:
                client.request("GET", target, headers={"Host": "h", "User-Agent": 'say "hi"'})
                client.getresponse().read()
            client.request("POST", "/pay", body=b"x", headers={"Host": "h"})
            client.getresponse().read()
            client.close()
        shutil.copy(home / "access.log", tmp_path)
    summary = import_files(
        [tmp_path / "access.log"], tmp_path / "out", host="shop.test", key_file=tmp_path / "key"
    )
    assert summary.taken == 4
    assert summary.not_taken == {"POST whose body is not in the log": 1}
    rows = [row for row in Dataset.open(tmp_path / "out").rows() if isinstance(row, Exchange)]
    assert Counter(row.target for row in rows) == Counter(targets)
    assert {(row.status, row.response_size) for row in rows} == {(200, len("hello"))}
