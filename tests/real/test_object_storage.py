"""Captures and runs in an object store: S3 by moto on loopback, with a proxy before it that fails on demand."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from replay.store import tables
from replay.store.reader import Dataset
from replay.store.remote import Store, outbox, shown
from replay.verbs.ports import free_port
from tests.rows import T0, exchange
from tests.send.captures import steady, write
from tests.send.servers import RecordingServer
from tests.send.test_run import ROOT, wait_until


@contextmanager
def moto(port: int) -> Iterator[None]:
    """An S3 of its own with one bucket."""
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: _answers(port))
        put = urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")
        urllib.request.urlopen(put, timeout=20).close()
        yield
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class Proxy:
    """Passes requests on to the store; fails the first `failing` of each kind with 500, or all while `down`."""

    def __init__(self, port: int) -> None:
        self.failing = 0
        self.down = False
        self.failed = 0
        self.read: Counter[str] = Counter()
        """Bytes of parts that were read, by the dataset."""
        self._seen: Counter[str] = Counter()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass(self) -> None:
                body = self._body()
                kind = f"{self.command} {self.path.partition('?')[0]}"
                proxy._seen[kind] += 1
                if proxy.down or proxy._seen[kind] <= proxy.failing:
                    proxy.failed += 1
                    self.send_response(500)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                store = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                dropped = ("transfer-encoding", "content-length", "expect", "connection")
                headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
                store.request(self.command, self.path, body, headers)
                answer = store.getresponse()
                content = answer.read()
                if self.command == "GET" and "/part-" in self.path:
                    proxy.read[self.path.split("/")[-2]] += len(content)
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in (
                        "transfer-encoding",
                        "connection",
                        "content-length",
                        "date",
                        "server",
                    ):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                self.wfile.write(content)
                store.close()

            def _body(self) -> bytes:
                if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                while self.rfile.readline().strip():
                    pass
                return body

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    port = free_port()
    with moto(port):
        made = Proxy(port)
        for name, value in {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{made.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "REPLAY_STORE_PATIENCE": "30",
        }.items():
            monkeypatch.setenv(name, value)
        try:
            yield made
        finally:
            made.close()


def replay(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "replay", *map(str, arguments)],
        capture_output=True, text=True, timeout=90, check=False, cwd=ROOT,
        env={**os.environ, "COLUMNS": "120", **environment},
    )  # fmt: skip


def put_dataset(directory: Path, address: str) -> None:
    store = Store(address)
    for path in sorted(directory.iterdir()):
        if path.suffix in (".parquet", ".json"):
            store.put(path.name, path.read_bytes())


def test_capture_run_and_diff_all_in_the_store(proxy: Proxy, tmp_path: Path) -> None:
    proxy.failing = 1
    port = free_port()
    with RecordingServer() as server, ExitStack() as undo:
        capture = subprocess.Popen(
            [sys.executable, "-m", "replay", "capture", "--upstream", server.url, "--listen", f"127.0.0.1:{port}",
             "--out", "s3://bucket/captures/one"],
            stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True,
        )  # fmt: skip
        undo.callback(capture.kill)
        wait_until(lambda: _answers(port))
        for number in range(30):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/orders/{number}", timeout=20).close()
        capture.terminate()
        _, err = capture.communicate(timeout=60)
        assert "Traceback" not in err, err
        for build in ("old", "new"):
            done = replay(
                "run",
                "s3://bucket/captures/one",
                "--target",
                server.url,
                "--out",
                f"s3://bucket/runs/{build}",
            )
            assert done.returncode == 0, done.stdout + done.stderr
    done = replay("diff", "s3://bucket/runs/old", "s3://bucket/runs/new", "--json", tmp_path / "report.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "s3://bucket/runs/old" in (tmp_path / "report.json").read_text()
    assert proxy.failed > 5
    # Nothing is left on this machine.
    assert not list((tmp_path / "cache").rglob("*.parquet"))
    shown_to = replay("inspect", "s3://bucket/runs/new")
    assert "GET /orders/{id}" in shown_to.stdout, shown_to.stdout + shown_to.stderr


def test_a_store_that_is_away_for_a_while(proxy: Proxy, tmp_path: Path) -> None:
    capture = steady(tmp_path / "capture", 300, 10, 5)
    with RecordingServer() as server:
        away = threading.Thread(target=_away_while, args=(proxy, server), daemon=True)
        away.start()
        done = replay("run", capture, "--target", server.url, "--out", "s3://bucket/run")
        away.join(60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert proxy.failed > 0
    copy = replay("inspect", "s3://bucket/run", "--json")
    assert json.loads(copy.stdout)["count"] == 300


def _away_while(proxy: Proxy, server: RecordingServer) -> None:
    wait_until(lambda: len(server.requests) > 50)
    proxy.down = True
    wait_until(lambda: len(server.requests) >= 300, 60)
    wait_until(lambda: proxy.failed > 3, 60)
    proxy.down = False


def test_what_cannot_be_sent_stays_here_and_is_sent_later(proxy: Proxy, tmp_path: Path) -> None:
    capture = steady(tmp_path / "capture", 50, 5, 5)
    with RecordingServer() as server:
        threading.Thread(target=_down_for_good, args=(proxy, server), daemon=True).start()
        done = replay(
            "run", capture, "--target", server.url, "--out", "s3://bucket/run", REPLAY_STORE_PATIENCE="1"
        )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    kept = outbox("s3://bucket/run")
    assert str(kept) in done.stderr
    assert Dataset.open(kept, "run").count == 50
    again = replay(
        "run",
        capture,
        "--target",
        "http://127.0.0.1:9",
        "--out",
        "s3://bucket/run",
        REPLAY_STORE_PATIENCE="1",
    )
    assert (again.returncode, "could not send" in again.stderr) == (2, True), again.stderr
    proxy.down = False
    sent = subprocess.run(
        [sys.executable, "-m", "replay.store.uploader", str(kept), "s3://bucket/run"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    assert json.loads(replay("inspect", "s3://bucket/run", "--json").stdout)["count"] == 50


def _down_for_good(proxy: Proxy, server: RecordingServer) -> None:
    wait_until(lambda: len(server.requests) > 5)
    proxy.down = True


class Strangers:
    """Workers that see nothing of what the master has on its disk, and a master for them."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undo: ExitStack) -> None:
        masters = tmp_path / "masters"
        masters.mkdir()
        # Each is in a mount namespace of its own.
        self._alone = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none "{masters}" && exec "$@"', "sh"]
        if subprocess.run([*self._alone, "true"], capture_output=True, check=False).returncode:
            pytest.skip("mount namespaces cannot be made here")
        for name in ("XDG_CACHE_HOME", "TMPDIR"):
            monkeypatch.setenv(name, str(masters))
        self._port, self._undo = free_port(), undo

    def join(self) -> subprocess.Popen[bytes]:
        worker = subprocess.Popen(
            [*self._alone, sys.executable, "-m", "replay", "worker", "--master", "127.0.0.1",
             "--port", str(self._port)],
            cwd=ROOT, start_new_session=True, env={**os.environ, "TMPDIR": "/tmp"},
        )  # fmt: skip
        self._undo.callback(worker.wait)
        self._undo.callback(worker.kill)
        return worker

    def run(self, server: RecordingServer) -> subprocess.CompletedProcess[str]:
        return replay(
            *("run", "s3://bucket/capture", "--target", server.url, "--out", "s3://bucket/run"),
            *("--expect-workers", 2, "--master-port", self._port, "--master-bind", "127.0.0.1"),
        )


def in_many_groups(path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """A capture in the store whose row groups can be told apart; its size in bytes."""
    monkeypatch.setattr(tables, "SESSION_GROUP_BYTES", 100_000)
    draw = random.Random(1)
    rows = (
        exchange(
            number,
            started_at=T0 + number * 5_000_000,
            duration_ns=100_000,
            connection_id=f"c{number % 40}",
            session_id=f"s{number % 40}",
            target=f"/{number}",
            response_body=draw.randbytes(8000),
        )
        for number in range(count)
    )
    capture = write(path, rows)
    put_dataset(capture, "s3://bucket/capture")
    return sum(part.stat().st_size for part in capture.glob("part-*.parquet"))


def test_workers_that_share_nothing_but_the_store(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = in_many_groups(tmp_path / "capture", 400, monkeypatch)
    with RecordingServer() as server, ExitStack() as undo:
        strangers = Strangers(tmp_path, monkeypatch, undo)
        for _ in range(2):
            strangers.join()
        done = strangers.run(server)
        assert done.returncode == 0, done.stdout + done.stderr
        assert server.counts() == {f"/{number}": 1 for number in range(400)}
    # The master has fetched all of it, each worker its own part.
    assert 1.8 * size < proxy.read["capture"] < 2.4 * size
    told = json.loads(replay("inspect", "s3://bucket/run", "--json").stdout)
    assert told["count"] == 400
    assert sorted(told["meta"]["workers"]) == ["w0", "w1"]
    assert told["meta"]["source"]["capture"] == "s3://bucket/capture"


def test_a_survivor_fetches_what_it_takes_over(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_many_groups(tmp_path / "capture", 1600, monkeypatch)
    with RecordingServer() as server, ExitStack() as undo:
        strangers = Strangers(tmp_path, monkeypatch, undo)
        dying, _ = strangers.join(), strangers.join()

        def die() -> None:
            wait_until(lambda: len(server.requests) > 200, 60)
            os.killpg(dying.pid, signal.SIGKILL)

        threading.Thread(target=die, daemon=True).start()
        done = strangers.run(server)
        counts = server.counts()
    assert done.returncode == 3, done.stdout + done.stderr
    assert max(counts.values()) == 1
    # Three seconds until it was missed, and what it had been granted, are behind: all the rest was sent.
    assert {f"/{number}" for number in range(1500, 1600)} <= counts.keys()
    books = json.loads(replay("inspect", "s3://bucket/run", "--json").stdout)["meta"]["books"]
    assert books["planned"] == books["sent"] + sum(books["skipped"].values()) == 1600
    assert set(books["skipped"]) == {"worker lost"}


def test_stop_by_address(proxy: Proxy, tmp_path: Path) -> None:
    capture = steady(tmp_path / "capture", 3000, 10, 5)
    with RecordingServer() as server:
        run = subprocess.Popen(
            [sys.executable, "-m", "replay", "run", str(capture), "--target", server.url, "--out", "s3://bucket/run"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True,
        )  # fmt: skip
        try:
            wait_until(lambda: len(server.requests) > 50)
            stopped = replay("stop", "s3://bucket/run")
            assert stopped.returncode == 0, stopped.stderr
            _, err = run.communicate(timeout=60)
            assert run.returncode == 3, err
            assert len(server.requests) < 2500
        finally:
            run.kill()
            run.communicate()


def test_what_is_wrong_is_one_line(proxy: Proxy, tmp_path: Path) -> None:
    capture = steady(tmp_path / "capture", 5, 1)
    put_dataset(capture, "s3://bucket/there")
    cases = [
        (("inspect", "s3://bucket/nothing"), "neither a capture nor a run"),
        (("inspect", "s3://no-such-bucket/x"), "s3://no-such-bucket/x"),
        (("inspect", "nfs3://x/y"), "no address of a store"),
        (
            ("run", capture, "--target", "http://127.0.0.1:9", "--out", "s3://bucket/there"),
            "holds a dataset already",
        ),
        (("stop", "s3://bucket/there"), "not a run"),
    ]
    for arguments, expected in cases:
        done = replay(*arguments, REPLAY_STORE_PATIENCE="1")
        assert done.returncode == 2, (arguments, done.stdout, done.stderr)
        assert expected in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_no_secret_of_an_address_is_told() -> None:
    told = shown("s3://AKIA:wJalr@bucket/x?secret_key=hidden&region=eu-west-1")
    assert told == "s3://bucket/x?region=eu-west-1"


def test_files_of_a_store_that_is_a_directory(tmp_path: Path) -> None:
    put_dataset(steady(tmp_path / "capture", 20, 1), f"file://{tmp_path}/store/capture")
    done = replay("inspect", f"file://{tmp_path}/store/capture", "--json")
    assert json.loads(done.stdout)["count"] == 20, done.stderr
