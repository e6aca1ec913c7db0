"""A corpus of planted secrets through capture, replay, diff and every report: none in any byte that is left.

Production and two staging builds hand out secrets of their own, in every place a service may; clients send
some of theirs. What is searched: every file as it lies on disk, every cell of every dataset with its content
encodings undone, everything that was printed, every command line while the replay was under way.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from replay.codings import decode
from replay.store import sealing
from replay.store.reader import Dataset, to_rows
from replay.verbs.capture import CaptureProcess, CaptureSettings

GATE = "gate-PLANTED-0gAtEgAtE"


def secret(side: str, number: int) -> str:
    """Long enough to be told from anything else; letters, digits and punctuation as tokens have them."""
    return f"pLaNtEd{side}{number:02d}xQ7-zW9_kR4tY"


CLIENTS = [secret("client", number) for number in range(8)]
SIDES = ("production", "oldbuild", "newbuild")
HANDED_OUT = {side: [secret(side, number) for number in range(9)] for side in SIDES}
CORPUS = [GATE, *CLIENTS, *(text for texts in HANDED_OUT.values() for text in texts)]


class Server(ThreadingHTTPServer):
    """Hands out the secrets of its side; `seen` gathers what lies open while it is asked."""

    daemon_threads = True

    def __init__(self, side: str, watched: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.secrets = HANDED_OUT[side]
        self.watched = watched
        self.requests: list[str] = []
        self.seen: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def look_around(self) -> None:
        """Every command line on the machine, and every file of the run as it is now."""
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                self.seen.append(_read(process / "cmdline"))
        if self.watched is not None:
            self.seen.extend(_read(path) for path in self.watched.rglob("*") if path.is_file())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(f"{self.path} {self.headers} {body!r}")
        self.server.look_around()
        name = self.path.partition("?")[0].strip("/")
        status, headers, answer = getattr(self, f"give_{name}")(self.server.secrets)
        self.send_response(status)
        for key, value in (*headers, ("Content-Length", str(len(answer)))):
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET  # noqa: N815

    def give_login(self, s: list[str]) -> tuple[int, list[tuple[str, str]], bytes]:
        headers = [("Content-Type", "application/json"), ("Set-Cookie", f"sid={s[0]}; Path=/; HttpOnly")]
        return (
            200,
            headers,
            json.dumps({"user": "ada", "access_token": s[1], "nested": {"api_key": s[2]}}).encode(),
        )

    def give_page(self, s: list[str]) -> tuple[int, list[tuple[str, str]], bytes]:
        page = f'<form><input type="hidden" name="csrf_token" value="{s[3]}"></form>'
        page += f'<meta name="csrf-token" content="{s[4]}"><p>hello</p>'
        return 200, [("Content-Type", "text/html; charset=utf-8")], page.encode()

    def give_away(self, s: list[str]) -> tuple[int, list[tuple[str, str]], bytes]:
        return 302, [("Location", f"/done?token={s[5]}"), ("X-Api-Key", s[6])], b""

    def give_zipped(self, s: list[str]) -> tuple[int, list[tuple[str, str]], bytes]:
        body = gzip.compress(json.dumps({"refresh_token": s[7], "pad": list(range(100))}).encode(), mtime=0)
        return 200, [("Content-Type", "application/json"), ("Content-Encoding", "gzip")], body

    def give_oops(self, s: list[str]) -> tuple[int, list[tuple[str, str]], bytes]:
        """An error page that echoes the request, and more."""
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        body = {"error": "oops", "headers": headers, "password": s[8]}
        return 500, [("Content-Type", "application/json")], json.dumps(body).encode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@contextmanager
def serving(side: str, watched: Path | None = None) -> Iterator[Server]:
    with Server(side, watched) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask_everything(host: str, port: int) -> int:
    """Every request of the scenario, with the clients' secrets in it; returns how many."""
    c = CLIENTS
    basic = base64.b64encode(f"ada:{c[0]}".encode()).decode()
    form = f"user=ada&password={quote(c[1])}"
    multipart = f'--b\r\nContent-Disposition: form-data; name="password"\r\n\r\n{c[2]}\r\n--b--\r\n'
    requests: list[tuple[str, str, dict[str, str], str]] = [
        (
            "POST",
            "/login",
            {"Content-Type": "application/json"},
            json.dumps({"user": "ada", "password": c[3]}),
        ),
        ("POST", "/login", {"Content-Type": "application/x-www-form-urlencoded"}, form),
        ("POST", "/login", {"Content-Type": "multipart/form-data; boundary=b"}, multipart),
        ("GET", "/page", {"Authorization": f"Basic {basic}"}, ""),
        ("GET", "/page", {"Authorization": f"Bearer {c[4]}", "Cookie": f"sid={c[5]}"}, ""),
        ("GET", f"/away?access_token={quote(c[6])}&page=2", {}, ""),
        ("GET", "/zipped", {"X-Api-Key": c[7]}, ""),
        ("GET", "/oops", {"Authorization": f"Bearer {c[4]}", "X-Api-Key": c[7]}, ""),
    ]
    connection = HTTPConnection(host, port, timeout=10)
    for method, target, headers, body in requests:
        connection.request(method, target, body or None, headers)
        connection.getresponse().read()
    connection.close()
    return len(requests)


@contextmanager
def process_ended(process: CaptureProcess) -> Iterator[None]:
    try:
        yield
    finally:
        process.__exit__()


def replay(*arguments: object, codes: tuple[int, ...] = (0,), **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "replay", *map(str, arguments)],
        env={**os.environ, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode in codes, done.stderr
    return done.stdout + done.stderr


def cells(directory: Path) -> Iterator[bytes]:
    """Every value of a dataset, bodies with their content encodings undone."""
    dataset = Dataset.open(directory)
    for batch in dataset.batches():
        names = batch.schema.names
        for row in to_rows(batch):
            values = dict(zip(names, row, strict=True))
            for side in ("request", "response"):
                headers = values.get(f"{side}_headers") or ()
                coding = next((value for name, value in headers if name.lower() == "content-encoding"), "")
                if coding and values.get(f"{side}_body"):
                    yield decode(values[f"{side}_body"], coding)[0]
            yield repr(row).encode()


def spelled(text: str) -> list[bytes]:
    """A secret as it may be written."""
    plain = text.encode()
    pieces = [base64.b64encode(b"x" * shift + plain)[4:-4] for shift in range(3)]
    return [plain, plain.hex().encode(), *pieces]


def found_in(data: bytes) -> list[str]:
    return [text for text in CORPUS if any(spelling in data for spelling in spelled(text))]


@pytest.mark.parametrize("key", [None, "a key for all that lies on the disk"])
def test_no_planted_secret_is_left_anywhere(
    tmp_path: Path, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key is not None:
        monkeypatch.setenv(sealing.KEY, key)
    work, keys = tmp_path / "work", tmp_path / "keys"
    work.mkdir()
    keys.mkdir(mode=0o700)
    output: list[str] = []
    with serving("production") as server:
        settings = CaptureSettings(work / "capture", server.url, listen="127.0.0.1:0", key_file=keys / "key")
        process = CaptureProcess(settings)
        with process_ended(process):
            asked = ask_everything(*process.start())
    assert len(server.requests) == asked
    seen: list[bytes] = []
    for name, side in (("old", "oldbuild"), ("old-again", "oldbuild"), ("new", "newbuild")):
        with serving(side, work / name) as server:
            output.append(
                replay(
                    *(
                        "run",
                        work / "capture",
                        "--target",
                        server.url,
                        "--out",
                        work / name,
                        "--writes",
                        "all",
                    ),
                    *("--key-file", keys / "key", "--set-header", "X-Gate: ${GATE}", "--speed", "0.2"),
                    codes=(0, 3),
                    GATE=GATE,
                )
            )
            assert len(server.requests) == asked
            assert all(GATE in request for request in server.requests)
            seen += server.seen
    forms = ("html", "json", "junit", "markdown", "openmetrics")
    reports = [f"--{form}={work / f'report.{form}'}" for form in forms]
    runs = (work / "old", work / "new", "--control", work / "old-again")
    output.append(replay("diff", *runs, *reports, codes=(0, 1, 3)))
    output += [replay("inspect", work / name) for name in ("capture", "old", "new")]
    ids = [row.exchange_id for row in Dataset.open(work / "capture").rows()]
    assert len(ids) == asked
    output += [replay("show", exchange_id, work / "old", work / "new") for exchange_id in ids]

    searched = {str(path): _read(path) for path in work.rglob("*") if path.is_file()}
    searched |= {
        f"{name}: cells": b"\n".join(cells(work / name)) for name in ("capture", "old", "old-again", "new")
    }
    searched |= {f"output {number}": text.encode() for number, text in enumerate(output)}
    searched |= {"while it ran": b"\n".join(seen)}
    assert {where: found for where, data in searched.items() if (found := found_in(data))} == {}
    # The search can find: what the clients sent is there under another name, of the same shape.
    assert b"x-gate" in searched["old: cells"].lower()
    assert b"HttpOnly" in searched["old: cells"]
    _equal_secrets_stay_equal(work)


def _equal_secrets_stay_equal(work: Path) -> None:
    """The same secret of the old build is the same pseudonym in both its runs; the new build's is another."""

    def cookies(name: str) -> set[str]:
        rows: list[Any] = list(Dataset.open(work / name).rows())
        return {v for row in rows for n, v in row.response_headers if n == "Set-Cookie"}

    assert len(cookies("old")) == 1
    assert cookies("old") == cookies("old-again")
    assert cookies("old").isdisjoint(cookies("new"))
