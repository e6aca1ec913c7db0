"""Capture as a whole: a real mitmproxy with the addon and the recorder, real clients, a real upstream."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hpack import Encoder
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from replay.capture import addon
from replay.capture.redact import pseudonym
from replay.errors import ReplayError
from replay.keys import load_key
from replay.model import Exchange
from replay.store.reader import Dataset
from replay.verbs.capture import CaptureProcess, CaptureSettings, CaptureSummary, capture
from tests.capture.servers import PASSWORD, TOKEN, Handler, refusing_port, upstream

SECRET_KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPLAY_KEY", SECRET_KEY)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def service() -> Iterator[tuple[str, type[Handler]]]:
    with upstream() as running:
        yield running


class Running:
    """A capture in progress."""

    def __init__(self, out: Path, **settings: Any) -> None:
        self.out = out
        self.process = CaptureProcess(CaptureSettings(out=out, listen="127.0.0.1:0", **settings))
        self.address = self.process.start()
        self.books: dict[str, Any] = {}

    def client(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self.address, timeout=30)

    def get(self, target: str, **headers: str) -> bytes:
        connection = self.client()
        try:
            connection.request("GET", target, headers=headers)
            return connection.getresponse().read()
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        with socket.create_connection(self.address, timeout=30) as connection:
            connection.sendall(data)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def end(self) -> list[Exchange]:
        summary = self.process.stop()
        self.books = summary.books
        assert balanced(summary)
        return list(Dataset.open(self.out, kind="capture").rows())


def balanced(summary: CaptureSummary) -> bool:
    books = summary.books
    parts = ("written", "sampled_out", "filtered", "dropped", "failed")
    return bool(books["seen"] == sum(books[part] for part in parts))


@pytest.fixture
def running(tmp_path: Path, service: tuple[str, type[Handler]]) -> Iterator[Running]:
    run = Running(tmp_path / "capture", upstream=service[0], max_body="100k")
    yield run
    run.process.kill()


def test_exchanges_are_recorded_to_the_byte(running: Running) -> None:
    head = (
        b"POST /a%2fb/%7Eu?q=a%20b&x=%41;y HTTP/1.1\r\nHost: Shop.Example:81\r\nX-Twice: 1\r\nx-twice: 2\r\n"
        b"X-Latin: caf\xe9\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    before = time.time_ns()
    answer = running.raw(head + b"hello")
    after = time.time_ns()
    (exchange,) = running.end()
    assert b"100 Continue" in answer
    assert (exchange.method, exchange.scheme, exchange.http_version) == ("POST", "http", "HTTP/1.1")
    assert exchange.target == "/a%2fb/%7Eu?q=a%20b&x=%41;y"
    assert exchange.host == "Shop.Example:81"
    assert exchange.endpoint == "POST /a%2fb/%7Eu"
    assert exchange.request_headers == (
        ("Host", "Shop.Example:81"),
        ("X-Twice", "1"),
        ("x-twice", "2"),
        ("X-Latin", "caf\xe9"),
        ("Content-Length", "5"),
        ("Expect", "100-continue"),
        ("Connection", "close"),
    )
    assert (exchange.request_body, exchange.request_size) == (b"hello", 5)
    assert exchange.response_body == answer.split(b"\r\n\r\n", 2)[2]
    assert [name for name, _ in exchange.response_headers] == [
        "Server",
        "Date",
        "Content-Type",
        "Content-Length",
    ]
    # The upstream got the client's own Host.
    assert ["Host", "Shop.Example:81"] in json.loads(exchange.response_body or b"")["headers"]
    assert before <= exchange.started_at <= after
    assert exchange.request_ns is not None
    assert exchange.ttfb_ns is not None
    assert exchange.duration_ns is not None
    assert 0 <= exchange.request_ns <= exchange.ttfb_ns <= exchange.duration_ns <= after - before
    assert (exchange.status, exchange.error, exchange.truncated, exchange.sample_weight) == (
        200,
        None,
        False,
        1.0,
    )


def test_bodies_of_every_framing(running: Running, service: tuple[str, type[Handler]]) -> None:
    service[1].gate.set()
    connection = running.client()
    for method, target in [("HEAD", "/head"), ("GET", "/nothing"), ("GET", "/unchanged"), ("GET", "/chunks")]:
        connection.request(method, target)
        assert connection.getresponse().read() == (b"firstsecond" if target == "/chunks" else b"")
    connection.request("POST", "/upload", body=iter([b"one", b"two"]), encode_chunked=True)
    assert json.loads(connection.getresponse().read())["received"] == 6
    connection.close()
    rows = running.end()
    assert [row.response_body for row in rows[:4]] == [b"", b"", b"", b"firstsecond"]
    assert [row.status for row in rows] == [200, 204, 304, 200, 200]
    assert (rows[4].request_body, rows[4].request_size) == (b"onetwo", 6)
    assert len({row.connection_id for row in rows}) == 1


def test_an_answer_streams_while_it_is_recorded(running: Running, service: tuple[str, type[Handler]]) -> None:
    connection = running.client()
    connection.request("GET", "/chunks")
    response = connection.getresponse()
    # The second part is not sent before the gate opens, and the first is here already.
    assert response.read(5) == b"first"
    service[1].gate.set()
    assert response.read() == b"second"
    connection.close()
    (exchange,) = running.end()
    assert exchange.response_body == b"firstsecond"
    assert (exchange.ttfb_ns or 0) < (exchange.duration_ns or 0)


def test_large_bodies_pass_whole_and_are_kept_cut(running: Running) -> None:
    size = 3 << 20
    assert len(running.get(f"/large/{size}")) == size
    connection = running.client()
    connection.request("PUT", "/upload", body=b"u" * size)
    assert json.loads(connection.getresponse().read())["received"] == size
    connection.close()
    download, upload = running.end()
    assert (len(download.response_body or b""), download.response_size, download.truncated) == (
        100 << 10,
        size,
        True,
    )
    assert (len(upload.request_body or b""), upload.request_size, upload.truncated) == (100 << 10, size, True)
    assert running.books["truncated"] == 2


def test_connections_and_sessions(running: Running) -> None:
    for agent in ("one", "two"):
        for _ in range(2):
            connection = running.client()
            for number in range(3):
                connection.request("GET", f"/orders/{number}", headers={"User-Agent": agent})
                connection.getresponse().read()
            connection.close()
    rows = running.end()
    assert len(rows) == 12
    assert len({row.connection_id for row in rows}) == 4
    assert len({row.session_id for row in rows}) == 2
    assert {row.endpoint for row in rows} == {"GET /orders/{id}"}
    assert [row.exchange_id for row in rows] == sorted({row.exchange_id for row in rows})


def test_no_secret_reaches_the_disk(running: Running) -> None:
    connection = running.client()
    connection.request(
        "POST",
        f"/login?api_key={TOKEN}",
        body=json.dumps({"user": "bob", "password": PASSWORD}),
        headers={"Content-Type": "application/json", "User-Agent": "planted"},
    )
    connection.getresponse().read()
    connection.request("GET", "/gzip", headers={"Authorization": f"Bearer {TOKEN}", "Cookie": f"sid={TOKEN}"})
    connection.getresponse().read()
    connection.close()
    login, after = running.end()
    drawn = pseudonym(TOKEN, load_key())
    assert login.target == f"/login?api_key={drawn}"
    assert json.loads(login.response_body or b"") == {"user": "bob", "token": drawn}
    assert ("Set-Cookie", f"sid={drawn}; Path=/; HttpOnly") in login.response_headers
    assert ("Authorization", f"Bearer {drawn}") in after.request_headers
    assert ("Cookie", f"sid={drawn}") in after.request_headers
    assert ("Content-Length", str(len(after.response_body or b""))) in after.response_headers
    for secret in (TOKEN, PASSWORD, "127.0.0.1\0"):
        assert not places_of(secret.encode(), running.out)
    redacted = Dataset.open(running.out).meta["redacted"]
    assert redacted["json"] == 3
    assert redacted["authorization"] == 1


def places_of(secret: bytes, directory: Path) -> list[str]:
    """Where the bytes stand: in a file as it is, or in a column once it is unpacked."""
    found = [path.name for path in directory.rglob("*") if path.is_file() and secret in path.read_bytes()]
    for path in directory.glob("*.parquet"):
        table = pq.read_table(path).drop_columns(["started_at"])
        for row in table.to_pylist():
            found += [f"{path.name}: {name}" for name, value in row.items() if secret in _bytes(value)]
    return found


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        return repr(value).encode()
    return value + gzip.decompress(value) if value.startswith(b"\x1f\x8b") else value


def test_a_refused_upstream_is_a_row(tmp_path: Path) -> None:
    with refusing_port() as port:
        running = Running(tmp_path / "c", upstream=f"http://127.0.0.1:{port}")
        assert b"502" in running.raw(b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        (exchange,) = running.end()
    assert (exchange.status, exchange.error, exchange.response_body) == (None, "refused", None)


def test_an_answer_cut_short_is_a_row_with_what_came(running: Running) -> None:
    assert b"short" in running.raw(b"GET /broken HTTP/1.1\r\nHost: h\r\n\r\n")
    (exchange,) = running.end()
    assert exchange.status == 200
    assert exchange.error is not None
    assert exchange.response_body == b"short"


def test_an_exchange_under_way_at_the_end_is_a_row(
    running: Running, service: tuple[str, type[Handler]]
) -> None:
    connection = running.client()
    connection.request("GET", "/chunks")
    response = connection.getresponse()
    assert response.read(5) == b"first"
    (exchange,) = running.end()
    assert (exchange.status, exchange.error, exchange.response_body) == (200, "interrupted", b"first")
    service[1].gate.set()
    response.close()
    connection.close()


def test_an_upgrade_passes_and_is_counted(running: Running) -> None:
    answer = running.raw(
        b"GET /upgrade HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n" + b"ping\n"
    )
    assert b" 101 " in answer
    assert answer.endswith(b"ping\n")
    (exchange,) = running.end()
    assert exchange.status == 101
    assert running.books["passed"] == {"tcp": 1}


def test_sampling_is_by_session_and_weighted(tmp_path: Path, service: tuple[str, type[Handler]]) -> None:
    running = Running(tmp_path / "c", upstream=service[0], sample="50%")
    for agent in range(40):
        for _ in range(2):
            running.get("/x", **{"User-Agent": f"agent-{agent}"})
    rows = running.end()
    assert running.books["seen"] == 80
    assert running.books["sampled_out"] == 80 - len(rows)
    # Binomial with 40 sessions: outside of 8 to 32 once in 20,000 keys, and the key is fixed.
    assert 16 <= len(rows) <= 64
    sessions = [row.session_id for row in rows]
    assert all(sessions.count(session) == 2 for session in sessions)
    assert {row.sample_weight for row in rows} == {2.0}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_plain_mitmdump_flushes(
    tmp_path: Path, service: tuple[str, type[Handler]], number: signal.Signals
) -> None:
    out = tmp_path / "capture"
    mitmdump = Path(sys.executable).with_name("mitmdump")
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [
            *(mitmdump, "-q", "-s", addon.__file__, "--mode", f"reverse:{service[0]}"),
            *("--listen-host", "127.0.0.1", "--listen-port", "0", "--set", f"confdir={tmp_path}"),
            *("--set", f"replay_out={out}", "--set", f"replay_status_fd={write_end}"),
            *("--set", "keep_host_header=true"),
        ],
        pass_fds=(write_end,),
        stdout=subprocess.DEVNULL,
    )
    os.close(write_end)
    try:
        with os.fdopen(read_end) as status:
            assert select.select([status], [], [], 60)[0]
            host, port = json.loads(status.readline())["addresses"][0]
            connection = http.client.HTTPConnection(host, port, timeout=30)
            connection.request("GET", "/orders/7")
            connection.getresponse().read()
            connection.close()
            process.send_signal(number)
            assert process.wait(60) == 0
            closed = json.loads(status.readline())
    finally:
        process.kill()
        process.wait()
    assert closed["event"] == "closed"
    assert closed["books"]["written"] == 1
    dataset = Dataset.open(out)
    assert dataset.meta["state"] == "closed"
    assert [row.endpoint for row in dataset.rows()] == ["GET /orders/{id}"]
    assert not list(out.glob("journal-*"))


def test_traffic_goes_on_when_the_recorder_dies(running: Running) -> None:
    running.get("/before")
    (recorder,) = children_of(running.process)
    os.kill(recorder, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{recorder}/fd/0").exists())
    for _ in range(3):
        assert running.get("/after")
    with pytest.raises(ReplayError, match="recorder died"):
        running.process.stop()
    dataset = Dataset.open(running.out)
    totals = dataset.meta["books"]
    assert dataset.meta["state"] == "closed"
    assert totals["written"] == dataset.count <= 1
    assert totals["seen"] == totals["written"] + totals["dropped"] == 4


def children_of(process: CaptureProcess) -> list[int]:
    assert process._process is not None
    pid = process._process.pid
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def wait_until(holds: Any) -> None:
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until
        threading.Event().wait(0.01)


def test_a_crash_of_the_whole_house_loses_no_more_than_the_last_second(running: Running) -> None:
    for number in range(20):
        running.get(f"/orders/{number}")
    journal = lambda: sum(path.stat().st_size for path in running.out.glob("journal-*"))  # noqa: E731
    wait_until(lambda: journal() > 20 * 300)
    (recorder,) = children_of(running.process)
    os.kill(recorder, signal.SIGKILL)
    running.process.kill()
    wait_until(lambda: not Path(f"/proc/{recorder}").exists() or "Z" in stat_of(recorder))
    dataset = Dataset.open(running.out)
    assert len([row for row in dataset.rows() if row.endpoint == "GET /orders/{id}"]) == 20


def stat_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_two_captures_into_one_dataset(tmp_path: Path, service: tuple[str, type[Handler]]) -> None:
    out = tmp_path / "shared"
    one, two = (Running(out, upstream=service[0]) for _ in range(2))
    for number in range(5):
        one.get(f"/one/{number}")
        two.get(f"/two/{number}")
    one.process.stop()
    assert Dataset.open(out).meta["state"] == "open"
    summary = two.process.stop()
    assert balanced(summary)
    assert summary.books["written"] == 10
    dataset = Dataset.open(out)
    assert dataset.meta["state"] == "closed"
    assert sorted({row.endpoint for row in dataset.rows()}) == ["GET /one/{id}", "GET /two/{id}"]


# --- the verb


def test_the_verb_runs_for_its_duration(tmp_path: Path, service: tuple[str, type[Handler]]) -> None:
    told: list[tuple[str, int]] = []

    def ready(host: str, port: int) -> None:
        told.append((host, port))
        connection = http.client.HTTPConnection(host, port, timeout=30)
        connection.request("GET", "/x")
        connection.getresponse().read()
        connection.close()

    settings = CaptureSettings(out=tmp_path / "c", upstream=service[0], listen="127.0.0.1:0", duration=0.2)
    summary = capture(settings, ready)
    assert told
    assert summary.books["written"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_verb_ends_well_at_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with refusing_port() as port:
        settings = CaptureSettings(
            out=tmp_path / "c", upstream=f"http://127.0.0.1:{port}", listen="127.0.0.1:0"
        )
        summary = capture(settings, lambda *_: os.kill(os.getpid(), number))
    assert summary.books["seen"] == 0
    assert Dataset.open(tmp_path / "c").meta["state"] == "closed"


MISTAKES = [
    ({}, "--upstream URL"),
    ({"upstream": "http://h", "mode": "regular"}, "--upstream URL"),
    ({"upstream": "ftp://h"}, "is not a URL"),
    ({"upstream": "http://no-such-host.invalid"}, "cannot be resolved"),
    ({"upstream": "http://127.0.0.1:1", "listen": "8080"}, "HOST:PORT"),
    ({"upstream": "http://127.0.0.1:1", "sample": "150%"}, "--sample"),
    ({"upstream": "http://127.0.0.1:1", "config": Path("/no/such.toml")}, "does not exist"),
    ({"upstream": "http://127.0.0.1:1", "duration": 0}, "--duration"),
    ({"mode": "sideways"}, "Invalid proxy mode"),
    ({"upstream": "http://127.0.0.1:1", "max_body": "much"}, "max_body|size"),
]


@pytest.mark.parametrize(("settings", "message"), MISTAKES)
def test_mistakes_are_named_and_leave_nothing(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    settings = {"listen": "127.0.0.1:0", **settings}
    with pytest.raises(ReplayError, match=message) as raised:
        capture(CaptureSettings(out=tmp_path / "c", **settings))
    assert raised.value.exit_code == 2
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "c").exists()


def test_a_port_in_use_is_named_and_leaves_nothing(
    tmp_path: Path, service: tuple[str, type[Handler]]
) -> None:
    taken = service[0].rpartition("/")[2]
    with pytest.raises(ReplayError, match=re.escape(f"--listen {taken}")):
        capture(CaptureSettings(out=tmp_path / "c", upstream=service[0], listen=taken))
    assert not (tmp_path / "c").exists()


def test_a_directory_with_something_else_is_left_alone(
    tmp_path: Path, service: tuple[str, type[Handler]]
) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.txt").write_text("mine")
    with pytest.raises(ReplayError, match="not empty"):
        capture(CaptureSettings(out=tmp_path / "c", upstream=service[0], listen="127.0.0.1:0"))
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["thesis.txt"]


def test_a_capture_made_otherwise_is_not_joined(tmp_path: Path, service: tuple[str, type[Handler]]) -> None:
    settings = CaptureSettings(out=tmp_path / "c", upstream=service[0], listen="127.0.0.1:0", duration=0.1)
    capture(settings)
    with pytest.raises(ReplayError, match="another sample"):
        capture(CaptureSettings(**{**_values(settings), "sample": "5%"}))


def _values(settings: CaptureSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__slots__}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_http2_over_tls(tmp_path: Path, service: tuple[str, type[Handler]]) -> None:
    running = Running(tmp_path / "c", upstream=service[0], options=(f"confdir={tmp_path}",))
    host, port = running.address
    url = f"https://{host}:{port}"
    subprocess.run(
        [
            *("curl", "-sk", "--http2", "-H", f"Cookie: a=b; sid={TOKEN}", "-d", "x=1"),
            *(f"{url}/orders/1", f"{url}/orders/2"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    rows = running.end()
    assert [row.http_version for row in rows] == ["HTTP/2.0", "HTTP/2.0"]
    assert {row.scheme for row in rows} == {"https"}
    assert {row.host for row in rows} == {f"{host}:{port}"}
    assert len({row.connection_id for row in rows}) == 1
    assert all(row.status == 200 and row.response_body and row.request_body == b"x=1" for row in rows)
    assert not places_of(TOKEN.encode(), running.out)


FORGED = {
    "path": (b":path", b"/a HTTP/1.1\r\nX-Forged: 1\r\n\r\nGET /forged"),
    "header": (b"x-a", b"b\r\nX-Forged: 1"),
    "line feed": (b"x-a", b"b\nX-Forged: 1"),
    "name": (b"x-a: b\r\nx-forged", b"1"),
    "nul": (b"x-a", b"b\0c"),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_http2_cannot_forge_lines_of_http1(tmp_path: Path, forged: tuple[bytes, bytes]) -> None:
    """What HTTP/2 allows in its frames must not become another request to the server behind."""
    arrived: list[bytes] = []
    with raw_upstream(arrived) as url:
        running = Running(tmp_path / "c", upstream=url, options=(f"confdir={tmp_path}",))
        try:
            ask_http2(running.address, *[forged])
            ask_http2(running.address, (b"x-a", b"fine"))
        finally:
            rows = running.end()
    assert [head.count(b"\r\n\r\n") for head in arrived] == [1]
    assert b"x-a: fine" in arrived[0]
    assert b"orged" not in arrived[0]
    assert rows[-1].status == 200
    assert all(row.error == "killed" for row in rows[:-1])


def ask_http2(address: tuple[str, int], *fields: tuple[bytes, bytes]) -> None:
    """One request whose header block is as given: no client library would send it. Returns once answered or reset."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    pseudo = {b":method": b"GET", b":scheme": b"https", b":authority": b"shop.test", b":path": b"/"}
    pseudo |= {name: value for name, value in fields if name in pseudo}
    block = HeadersFrame(1, flags=("END_HEADERS", "END_STREAM"))
    others = [field for field in fields if field[0] not in pseudo]
    block.data = Encoder().encode([*pseudo.items(), *others])
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
    with (
        socket.create_connection(address, timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="shop.test") as connection,
    ):
        connection.sendall(preface + block.serialize())
        received = b""
        while data := connection.recv(65536):
            received += data
            if _ended(received):
                return


def _ended(received: bytes) -> bool:
    """Whether the stream's headers, or its reset, or the connection's end are there."""
    while len(received) >= 9:
        frame, length = Frame.parse_frame_header(memoryview(received[:9]))
        if isinstance(frame, HeadersFrame | RstStreamFrame | GoAwayFrame):
            return True
        received = received[9 + length :]
    return False


@contextmanager
def raw_upstream(arrived: list[bytes]) -> Iterator[str]:
    """A server that keeps each piece it receives, and answers it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=one, args=(client,), daemon=True).start()

        def one(client: socket.socket) -> None:
            with client, suppress(OSError):
                while data := client.recv(65536):
                    arrived.append(data)
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)
