"""Capture at the edge of production: TLS, sinks, full disks, crashes, books told while it runs."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack
import pyarrow.parquet as pq
import pytest
import trustme
from typer.testing import CliRunner

from replay.capture import addon
from replay.capture.recorder import Settings, as_json
from replay.cli import app
from replay.config import Config
from replay.errors import ReplayError
from replay.model import Exchange
from replay.store.reader import Dataset
from replay.store.writer import DatasetWriter
from replay.verbs.scanning import scan
from tests.capture.servers import Handler, upstream
from tests.capture.test_capture import Running, wait_until
from tests.capture.test_detectors import SECRETS


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPLAY_KEY", "0123456789abcdef0123456789abcdef")
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def service() -> Iterator[tuple[str, type[Handler]]]:
    with upstream() as running:
        yield running


@pytest.fixture
def start(tmp_path: Path, service: tuple[str, type[Handler]]) -> Iterator[Any]:
    started: list[Running] = []

    def begin(**settings: Any) -> Running:
        settings = {"upstream": service[0], "out": tmp_path / "capture", **settings}
        started.append(Running(**settings))
        return started[-1]

    yield begin
    for running in started:
        running.process.kill()


# --- secrets

PLANTED = {
    **{name: secret for name, secret in SECRETS.items() if name != "private key"},
    "password": "Hunter2-is-my-password",
    "cookie": "c9f0f895fb98ab9159f51fd0297e236d",
    "bearer": "8f14e45fceea167a5a36dedd4bea2543",
}


def test_of_a_planted_corpus_nothing_is_in_any_file(start: Any) -> None:
    running = start()
    connection = running.client()
    bodies = {
        "application/json": json.dumps(
            {"user": PLANTED, "log": json.dumps({"password": PLANTED["password"]})}
        ),
        "application/x-www-form-urlencoded": "&".join(
            f"{name.replace(' ', '_')}={urllib.request.quote(secret, safe='')}"
            for name, secret in PLANTED.items()
        ),
        "text/plain": "\n".join(f"{name}: {secret}" for name, secret in PLANTED.items()),
        "multipart/form-data; boundary=b": "".join(
            f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{secret}\r\n'
            for name, secret in PLANTED.items()
        )
        + "--b--\r\n",
    }
    bodies["application/json"] = re.sub(r'"(cookie|bearer)"', r'"\1_token"', bodies["application/json"])
    for kind, text in bodies.items():
        text = text.replace("cookie=", "cookie_token=").replace("bearer=", "bearer_token=")
        text = text.replace("cookie:", "cookie_token:").replace("bearer:", "bearer_token:")
        text = text.replace('name="cookie"', 'name="session"').replace('name="bearer"', 'name="token"')
        for coded in (False, True):
            headers = {
                "Content-Type": kind,
                "Cookie": f"sid={PLANTED['cookie']}",
                "Authorization": f"Bearer {PLANTED['bearer']}",
                "X-Note": PLANTED["email"],
                **({"Content-Encoding": "gzip"} if coded else {}),
            }
            body = gzip.compress(text.encode()) if coded else text.encode()
            target = f"/x?mail={urllib.request.quote(PLANTED['email'])}&card={PLANTED['card']}"
            connection.request("POST", target, body=body, headers=headers)
            connection.getresponse().read()
    connection.close()
    basic = base64.b64encode(f"bob:{PLANTED['password']}".encode()).decode()
    running.get("/y", Authorization=f"Basic {basic}")
    rows = running.end()
    assert len(rows) == 9
    everything = b"\n".join(_all_bytes(running.out))
    for name, secret in {**PLANTED, "basic": basic}.items():
        assert secret.encode() not in everything, name
        assert urllib.request.quote(secret, safe="").encode() not in everything, name
    assert scan(running.out, Config()) == []
    meta = Dataset.open(running.out).meta
    assert len(meta["settings"]["redaction"]["policy"]) == 16
    assert meta["places"]["POST /x · request header authorization · authorization"] == 8
    listed = CliRunner().invoke(app, ["inspect", str(running.out)]).output
    assert "8 × POST /x · request header cookie · cookies" in listed


def _all_bytes(directory: Path) -> Iterator[bytes]:
    """Every file as it is; every column of every row unpacked, bodies out of their codings."""
    for path in directory.rglob("*"):
        if path.is_file():
            yield path.read_bytes()
    for path in directory.glob("*.parquet"):
        for row in pq.read_table(path).drop_columns(["started_at"]).to_pylist():
            for value in row.values():
                yield value if isinstance(value, bytes) else repr(value).encode()
                if isinstance(value, bytes) and value.startswith(b"\x1f\x8b"):
                    yield gzip.decompress(value)


def test_a_scan_finds_what_was_left_and_names_the_field(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path / "raw", "capture", source={}, settings={})
    body = json.dumps(
        {"users": [{"mail": "ann.lee@example.com"}], "password": "Hunter2-is-my-password"}
    ).encode()
    head = (
        "1-1",
        "s",
        "c",
        1,
        None,
        None,
        None,
        "GET",
        "http",
        "h",
        "/?token=abcdefghij1234",
        "GET /",
        "HTTP/1.1",
    )
    headers = (("Content-Type", "application/json"),)
    writer.add(Exchange(*head, (), headers, b"", body, 0, len(body), False, 200, None))
    writer.close({})
    found = {(leak.place, leak.detector) for leak in scan(tmp_path / "raw", Config())}
    assert found == {
        ("request target token", "urls"),
        ("response body $.users[0].mail", "email"),
        ("response body $.password", "json"),
    }
    told = CliRunner().invoke(app, ["inspect", str(tmp_path / "raw"), "--scan"])
    assert told.exit_code == 1
    assert "Hunter2" not in told.output
    assert "$.users[0].mail" in told.output


# --- sampling, filters, books


def test_filters_and_floor_and_books(start: Any) -> None:
    running = start(only=("path:/api/*",), skip=("status:204",), sample="1%", floor="5/min")
    for number in range(20):
        running.get(f"/api/orders/{number}")
    running.get("/other")
    rows = running.end()
    books = running.books
    assert books["filtered_by_reason"] == {"not in --only path": 1}
    assert len(rows) == books["written"] >= 5
    assert books["sampled_out"] == 20 - len(rows)
    assert all(row.sample_weight < 10 for row in rows[:5])


def test_books_are_told_on_a_signal_and_on_a_port(start: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = start(metrics=f"127.0.0.1:{port}")
    for _ in range(3):
        running.get("/x", Authorization="Bearer abcdefgh")

    def scraped() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    wait_until(lambda: 'replay_capture_exchanges_total{outcome="written"} 3.0' in scraped())
    assert 'replay_capture_redacted_total{detector="authorization"} 3.0' in scraped()
    running.process.tell_books()
    told = ""

    def heard() -> bool:
        nonlocal told
        told += capfd.readouterr().err
        return '"written": 3' in told

    wait_until(heard)
    running.end()


def test_a_metrics_port_in_use_is_an_error_before_anything_runs(start: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ReplayError, match=r"--metrics .* cannot be used"):
            start(metrics=f"127.0.0.1:{taken.getsockname()[1]}")


def test_rotation_makes_parquet_while_it_runs(start: Any) -> None:
    running = start(rotate="20k", sync="always")
    for number in range(60):
        running.get(f"/orders/{number}", **{"X-Pad": "p" * 500})
    wait_until(lambda: list(running.out.glob("part-*.parquet")))
    assert len(running.end()) == 60
    assert len(list(running.out.glob("part-*.parquet"))) > 1


def test_two_captures_into_one_directory(start: Any) -> None:
    one, two = start(), start()
    for number in range(5):
        one.get(f"/orders/{number}")
        two.get(f"/orders/{number}")
    one.process.stop()
    rows = two.end()
    assert len(rows) == 10
    assert len({row.exchange_id for row in rows}) == 10
    assert Dataset.open(two.out).meta["books"]["written"] == 10


# --- TLS


@pytest.fixture
def authority(tmp_path: Path) -> tuple[trustme.CA, dict[str, Path]]:
    ca = trustme.CA()
    issued = ca.issue_cert("127.0.0.1", "localhost")
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}
    ca.cert_pem.write_to_path(str(files["ca"]))
    issued.cert_chain_pems[0].write_to_path(str(files["cert"]))
    issued.private_key_pem.write_to_path(str(files["key"]))
    return ca, files


def test_clients_are_shown_the_certificate_given(
    start: Any, authority: tuple[trustme.CA, dict[str, Path]]
) -> None:
    files = authority[1]
    running = start(cert=files["cert"], cert_key=files["key"])
    context = ssl.create_default_context(cafile=str(files["ca"]))
    connection = http.client.HTTPSConnection(*running.address, timeout=30, context=context)
    connection.request("GET", "/secure")
    assert connection.getresponse().status == 200
    connection.close()
    (row,) = running.end()
    assert row.scheme == "https"


@pytest.mark.parametrize(("option", "status"), [("none", 502), ("ca", 200), ("insecure", 200)])
def test_the_upstream_is_verified_unless_told_otherwise(
    start: Any,
    service: tuple[str, type[Handler]],
    authority: tuple[trustme.CA, dict[str, Path]],
    option: str,
    status: int,
) -> None:
    files = authority[1]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["cert"], files["key"])
    with tls_server(context) as port:
        more = {"ca": {"upstream_ca": files["ca"]}, "insecure": {"insecure": True}}.get(option, {})
        running = start(upstream=f"https://127.0.0.1:{port}", **more)
        connection = running.client()
        connection.request("GET", "/x")
        assert connection.getresponse().status == status
        connection.close()
        (row,) = running.end()
    assert (row.error is None) == (status == 200)


@contextlib.contextmanager
def tls_server(context: ssl.SSLContext) -> Iterator[int]:
    from http.server import ThreadingHTTPServer

    handler = type("TlsHandler", (Handler,), {"gate": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# --- beside production: nginx mirrors to a sink

NGINX = """
daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  upstream capture_sink {{ server {sink}; keepalive 16; }}
  split_clients "$remote_addr$http_user_agent" $mirrored {{ {share} 1; * ""; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ mirror /_capture; proxy_pass {upstream}; proxy_set_header Host $http_host; }}
    location = /_capture {{
      internal;
      if ($mirrored = "") {{ return 204; }}
      proxy_pass http://capture_sink$request_uri;
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_connect_timeout 1s; proxy_read_timeout 1s;
    }}
  }}
}}
"""


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
@pytest.mark.parametrize(("share", "recorded"), [("100%", 4), ("0.01%", 0)])
def test_nginx_mirrors_to_a_sink(
    start: Any, tmp_path: Path, service: tuple[str, type[Handler]], share: str, recorded: int
) -> None:
    running = start(upstream=None, sink=True, session_key="header:X-Real-IP")
    with nginx(tmp_path, "{}:{}".format(*running.address), service[0], share) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for number in range(3):
            connection.request(
                "GET", f"/orders/{number}?a%2fb=%7E", headers={"Authorization": "Bearer abcdefgh12"}
            )
            assert json.loads(connection.getresponse().read())["path"].startswith("/orders/")
        connection.request("POST", "/upload", body=b"u" * 5000)
        assert json.loads(connection.getresponse().read())["received"] == 5000
        connection.close()
        if recorded:
            wait_until(lambda: _written(running) >= recorded)
    rows = running.end()
    assert len(rows) == recorded
    for row in rows:
        assert (row.status, row.response_body, row.response_headers, row.duration_ns) == (
            None,
            None,
            (),
            None,
        )
        assert row.error is None
    if recorded:
        assert rows[0].target == "/orders/0?a%2fb=%7E"
        assert rows[0].host == f"127.0.0.1:{port}"
        assert max(len(row.request_body or b"") for row in rows) == 5000
        assert "abcdefgh12" not in repr(rows)


def _written(running: Running) -> int:
    running.process.tell_books()
    books = json.loads((running.out / "capture.json").read_bytes())["books"]
    return int(books["written"])


@contextlib.contextmanager
def nginx(directory: Path, sink: str, upstream_url: str, share: str) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    home = directory / "nginx"
    home.mkdir()
    text = NGINX.format(dir=home, sink=sink, upstream=upstream_url, share=share, port=port)
    (home / "nginx.conf").write_text(text)
    process = subprocess.Popen(
        ["nginx", "-p", str(home), "-c", str(home / "nginx.conf"), "-e", str(home / "error.log")]
    )
    try:
        wait_until(lambda: _listens(port))
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- streams


def test_server_sent_events_stream_and_are_counted(start: Any, service: tuple[str, type[Handler]]) -> None:
    def give_events(self: Handler, received: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"data: 1\n\n")
        self.gate.wait(30)
        self.wfile.write(b"data: 2\n\n")
        self.close_connection = True

    service[1].give_events = give_events  # type: ignore[attr-defined]
    running = start()
    connection = running.client()
    connection.request("GET", "/events")
    response = connection.getresponse()
    assert response.read(9) == b"data: 1\n\n"
    service[1].gate.set()
    assert response.read() == b"data: 2\n\n"
    connection.close()
    (row,) = running.end()
    assert row.response_body == b"data: 1\n\ndata: 2\n\n"
    assert running.books["streams"] == {"server-sent events": 1}


# --- full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("on_error", ["pass", "stop"])
def test_a_full_disk_stops_the_recording(start: Any, small_disk: Path, on_error: str) -> None:
    running = start(out=small_disk / "capture", on_error=on_error)
    answered = 0
    noise = random.Random(1)
    with contextlib.suppress(OSError, http.client.HTTPException):
        for _ in range(60):
            pad = base64.b64encode(noise.randbytes(30_000)).decode()
            connection = running.client()
            connection.request("POST", "/x", body=pad)
            answered += connection.getresponse().status == 200
            connection.close()
    if on_error == "pass":
        assert answered == 60
    else:
        running.process.wait(30)
        assert not _listens(running.address[1])
    with pytest.raises(ReplayError, match="No space left on device") as told:
        running.process.stop()
    assert ("traffic went on" if on_error == "pass" else "proxy was stopped") in str(told.value)
    meta = json.loads((running.out / "capture.json").read_bytes())
    books = meta["books"]
    assert meta["state"] == "closed"
    assert books["failed_by_reason"].keys() == {"No space left on device"}
    assert books["seen"] == books["written"] + books["failed"] + books["dropped"]
    # What was written is readable where there is room.
    roomy = small_disk.parent / "roomy"
    shutil.copytree(running.out, roomy)
    assert Dataset.open(roomy).count == books["written"] > 0


# --- crashes


@pytest.mark.real
def test_kill_nine_at_random_moments_never_leaves_an_unreadable_dataset(tmp_path: Path) -> None:
    """50 recorders fed by a pipe are killed: what was flushed a second before is there, once, readable."""
    draw = random.Random(3)
    with ThreadPoolExecutor(2) as pool:
        lost = list(pool.map(lambda n: _killed(tmp_path / f"c{n}", draw.uniform(0.0, 0.4)), range(50)))
    assert len(lost) == 50


def _killed(out: Path, after: float) -> int:
    settings = as_json(Settings(out=str(out), rotate_bytes=60_000))
    process = subprocess.Popen(
        [sys.executable, "-m", "replay.capture.recorder", settings],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline()) == {"ready": True}
        stop = threading.Event()
        first = _feed(process.stdin.fileno(), range(100))
        # These are on disk within the flush interval; then a crash in the midst of more.
        wait_until(lambda: _journalled(out) >= first)
        feeder = threading.Thread(target=_feed_until, args=(process.stdin.fileno(), stop))
        feeder.start()
        stop.wait(after)
        process.send_signal(signal.SIGKILL)
        process.wait()
        stop.set()
        feeder.join()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        with contextlib.suppress(OSError):
            process.stdin.close()
    numbers = [int(row.target.removeprefix("/")) for row in Dataset.open(out).rows()]
    assert len(set(numbers)) == len(numbers)
    # No hole: a beginning of what was sent, the first hundred at least.
    assert sorted(numbers) == list(range(len(numbers)))
    assert len(numbers) >= 100
    return len(numbers)


def _journalled(out: Path) -> int:
    sizes = 0
    for path in [*out.glob("journal-*"), *out.glob("part-*.parquet")]:
        with contextlib.suppress(FileNotFoundError):
            sizes += path.stat().st_size
    return sizes


def _feed(descriptor: int, numbers: range) -> int:
    frames = b"".join(_frame(number) for number in numbers)
    os.write(descriptor, frames)
    return len(frames) // 2


def _feed_until(descriptor: int, stop: threading.Event) -> None:
    number = 100
    with contextlib.suppress(OSError):
        while not stop.is_set():
            os.write(descriptor, b"".join(_frame(n) for n in range(number, number + 20)))
            number += 20


def _frame(number: int) -> bytes:
    head = ["", "127.0.0.1", "c", number + 1, 1, 1, 1, b"GET", "http", b"h", b"/%d" % number, "", b"HTTP/1.1"]
    return bytes(msgpack.packb([*head, [], [], b"", b"x" * 300, 0, 300, False, 200, None, 1.0]))


def test_the_sink_hook_is_only_there_for_sinks() -> None:
    assert not hasattr(addon.CaptureAddon, "request")
