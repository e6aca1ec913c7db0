"""Every place where bytes that others wrote are read: one function each, from bytes to nothing.

A target may raise `ReplayError`, which the command line turns into one line, and nothing else. Where there is
more to promise than that (a row for each arrival, bytes that come out as they went in) the target asserts it.
"""

from __future__ import annotations

import gzip
import json
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import orjson

from replay import acceptances, codings, config
from replay.capture.endpoints import Templater
from replay.capture.importers import Note, NotTaken, reader_for
from replay.capture.redact import Policy, Redactor
from replay.diff import paths
from replay.diff.compare import body_differences
from replay.diff.headers import header_differences
from replay.diff.lift import lift
from replay.errors import ReplayError
from replay.model import Exchange, Header, Result
from replay.plan import correlate, requests
from replay.plan.answers import Answer
from replay.report.words import clean
from replay.send import wire
from replay.store.journal import Journal, read_segment
from replay.store.reader import Dataset
from replay.store.schema import EXCHANGES
from replay.store.tables import to_batch
from replay.store.writer import DatasetWriter
from replay.verbs import gate_settings
from tests.fuzz.peer import Peer
from tests.rows import result

DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Target:
    """A reader under test, inputs it takes as they are, and words that matter to it."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = field(default=())


@cache
def _directory() -> Path:
    """In memory where there is such a place: millions of small files are written here."""
    memory = Path("/dev/shm")
    made = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
    _KEPT.append(made)
    return Path(made.name)


_KEPT: list[Any] = []


def _file(name: str, data: bytes) -> Path:
    path = _directory() / name
    path.write_bytes(data)
    return path


# What others recorded.


def imported(data: bytes) -> None:
    """A file for `replay import`: whatever its format is said to be by its content."""
    path = _file("recorded", data)
    try:
        items = list(reader_for(path, "shop.test")(path))
    except ReplayError:
        return
    for item in items:
        assert isinstance(item, Exchange | NotTaken | Note)
        if isinstance(item, Exchange):
            Templater().endpoint(item.method, item.target)
            to_batch([attrgetter(*EXCHANGES.names)(item)], EXCHANGES)
            _sendable(item)


def _sendable(item: Exchange) -> None:
    """What was taken either goes out as one request or is skipped for a reason; it is never split in two."""
    asked = wire.Request(
        item.method,
        item.target,
        item.host,
        item.http_version,
        item.request_headers,
        item.request_body,
        item.request_size,
    )
    made = wire.serialise(asked, wire.Changes())
    assert made.skipped or made.head.count(b"\r\n\r\n") == 1


# Bodies and headers.


def _message(data: bytes) -> tuple[list[Header], bytes]:
    """Header lines up to a blank one, then a body."""
    head, _, body = data.partition(b"\n\n")
    lines = (line.partition(":") for line in head.decode("latin-1").split("\n"))
    return [(name, value.strip()) for name, colon, value in lines if colon], body


def compared(data: bytes) -> None:
    """Two answers under one head: lifted, compared, shown."""
    headers, both = _message(data)
    old, _, new = both.partition(b"\n====\n")
    left, right = lift(old, headers), lift(new, headers)
    assert body_differences(left, lift(old, headers)) == []
    found = body_differences(left, right)
    for difference in chain(found, header_differences(headers, headers[1:])):
        paths.erase(difference.path)
        clean(f"{difference.left!r}{difference.right!r}")


def decoded(data: bytes) -> None:
    """A body behind the content encodings that its first line names."""
    encodings, _, body = data.partition(b"\n")
    opened, _ = codings.decode(body, encodings.decode("latin-1"))
    assert len(opened) <= max(codings.MAX_DECODED, len(body))


_REDACTOR = Redactor(Policy(), b"k" * 32)


def redacted(data: bytes) -> None:
    """A message on its way into a capture: header names stay, targets keep their length, JSON stays JSON."""
    target, _, rest = data.partition(b"\n")
    headers, body = _message(rest)
    _REDACTOR.begin()
    new_target, new_headers, new_body = _REDACTOR.message(target.decode("latin-1"), list(headers), body)
    assert [name for name, _ in new_headers] == [name for name, _ in headers]
    assert len(new_target) == len(target)
    if _is_json(body) and not any("encoding" in name.lower() for name, _ in headers):
        assert new_body is not None
        assert _is_json(new_body)


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def correlated(data: bytes) -> None:
    """An answer's values, a request's values, and the request written again: as it was, byte for byte."""
    target, _, rest = data.partition(b"\n")
    headers, body = _message(rest)
    text = target.decode("latin-1")
    answer = Answer(headers, body)
    for place, value in islice(answer.produced(), 50):
        answer.find(place, value)
    found = requests.consumed(text, headers, body)
    assert all(isinstance(value, str) for _, value in found)
    asked = wire.Request("POST", text, "shop.test", "HTTP/1.1", tuple(headers), body, len(body))
    made = wire.serialise(asked, wire.Changes())
    script = requests.script(made.head, made.body, False, lambda place, value: value) if made.head else None
    if script is not None:
        assert requests.written(script, _Recorded()) == (made.head, made.body, False)
    learner = correlate.Learner()
    for number in range(2):
        name = f"{number:02d}"
        learner.add(
            correlate.Seen(
                name, "s", number, 0, "POST /", text, tuple(headers), body, 200, tuple(headers), body
            )
        )
    learner.bindings()


class _Recorded:
    """A session that has what was recorded."""

    def value(self, recorded: str, origin: Any) -> str | None:
        return recorded

    def cookie(self, name: str) -> str | None:
        return None

    def follows(self) -> bool:
        return True

    def block(self, number: int) -> tuple[bytes, bool]:
        raise AssertionError("blocks are for sessions")


# What builds answer on the wire.


def answered(data: bytes) -> None:
    """Two requests on a connection to a server that answers each with these bytes, then closes: two outcomes."""
    outcomes = _peer().ask(data, times=2)
    assert len(outcomes) == 2
    for outcome in outcomes:
        assert (outcome.status is None) <= (outcome.error is not None)
        assert len(outcome.body) <= Peer.MAX_BODY


@cache
def _peer() -> Peer:
    return Peer()


# What users write.


def configured(data: bytes) -> None:
    """A replay.toml, read to the last setting."""
    path = _file("replay.toml", data)
    found = config.load(path)
    for use in (
        found.run_settings,
        found.diff_settings,
        lambda: Policy.of(found.redact),
        lambda: gate_settings.gate_settings(found),
        lambda: gate_settings.fidelity_limits(found),
        lambda: Templater(found.routes),
    ):
        with suppress(ReplayError):
            use()


def accepted(data: bytes) -> None:
    """A replay-accepted.toml, and back again."""
    path = _file("replay-accepted.toml", data)
    entries = acceptances.load(path)
    acceptances.save(path, entries)
    assert set(acceptances.load(path)) == set(entries)


def pattern(data: bytes) -> None:
    """A path pattern of a rule, against itself."""
    text, _, path = data.decode("utf-8", "replace").partition("\n")
    paths.compile_pattern(text).fullmatch(path)


# What a disk gives back.


def journal(data: bytes) -> None:
    """A journal segment."""
    path = _file("journal-x-000000.done", data)
    for rows in read_segment(path):
        assert isinstance(rows, list)


def dataset(data: bytes) -> None:
    """A run: its run.json, a blank line, its one part file."""
    meta, _, part = data.partition(b"\n\n")
    # Another directory each time: part files do not change, so their footers are remembered.
    with tempfile.TemporaryDirectory(dir=_directory()) as made:
        directory = Path(made)
        (directory / "run.json").write_bytes(meta)
        (directory / "part-0.parquet").write_bytes(part)
        opened = Dataset.open(directory, "run")
        for row in opened.rows():
            assert isinstance(row, Result)


# Seeds.


def _recorded_files() -> tuple[bytes, ...]:
    files = sorted((DATA / "har").glob("*.har")) + sorted((DATA / "flows").iterdir())
    small = tuple(data for path in files if len(data := path.read_bytes()) < 64 << 10)
    entry = {
        "startedDateTime": "2026-01-02T03:04:05.678Z",
        "time": 12.5,
        "request": {
            "method": "POST",
            "url": "https://shop.test/a?b=c",
            "httpVersion": "HTTP/1.1",
            "headers": [{"name": "Host", "value": "shop.test"}, {"name": "X-A", "value": "1\n2"}],
            "postData": {
                "mimeType": "multipart/form-data; boundary=b",
                "params": [{"name": "f", "value": "v"}],
            },
            "bodySize": 3,
        },
        "response": {
            "status": 200,
            "headers": [{"name": "Content-Type", "value": "application/json"}],
            "content": {"size": 2, "text": "e30=", "encoding": "base64"},
        },
        "timings": {"blocked": 1, "dns": -1, "connect": 2, "ssl": 1, "send": 1, "wait": 5, "receive": 2},
    }
    request = b"POST /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\n\r\n{}"
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    separator = "\n🐵🙈🙉\n".encode()
    return (
        orjson.dumps({"log": {"entries": [entry]}}),
        b"1 a1 1700000000000000000 0\n%b%b2 a1 1700000000000001000 50\n%b%b"
        % (request, separator, chunks, separator),
        b'shop.test 10.0.0.1 - bo [10/Oct/2000:13:55:36 -0700] "GET /a?b=\\x22 HTTP/1.1" 200 23 "-" "Mozilla"\n'
        b'10.0.0.2 - - [10/Oct/2000:13:55:36 -0700] "HEAD / HTTP/1.0" 304 -\n',
        *small,
    )


_JSON_PAIR = (
    b'content-type: application/json\n\n{"items": [{"id": 1, "price": 9.5}], "at": "2026-01-02"}\n====\n'
    b'{"items": [{"id": 1, "price": "9.5"}, null], "at": "2026-01-03"}'
)
_PAIRS = (
    _JSON_PAIR,
    b"content-type: text/html; charset=utf-8\n\n<p class=a>x<b>y</b></p>\n====\n<p class=b>x<i>y</i>",
    b"content-type: application/xml\n\n<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;<b c='d'/></a>\n====\n<a><b/><b/></a>",
    b'content-type: application/x-ndjson\n\n{"a": 1}\n{"a": 2}\n====\n{"a": 1}\n[]',
    b"content-type: application/x-www-form-urlencoded\n\na=b&a=c%20\n====\na=b",
    b'content-type: multipart/form-data; boundary=x\n\n--x\r\nContent-Disposition: x; name="a"\r\n\r\n1\r\n--x--'
    b"\n====\n",
    b"content-type: image/png\n\n\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\n====\nGIF89a\1\0\1\0",
    b"content-type: text/plain\n\na\nb\n====\na\nc",
    b"content-type: application/octet-stream\ncontent-encoding: gzip\n\n\x1f\x8b\n====\n\x1f\x8b\x08",
)
_MESSAGES = (
    b"/login?token=abcdefgh12345678&next=%2Fa\nAuthorization: Bearer eyJhbGciOi.eyJzdWIiOi.c2ln\n"
    b'Content-Type: application/json\n\n{"password": "hunter2!", "tokens": ["a1b2c3d4e5"], "pin": 1234}',
    b"/a/550e8400-e29b-41d4-a716-446655440000?q=%7B%22a%22%3A1%7D#f\nCookie: sid=abc123; b=\n"
    b"Content-Type: application/x-www-form-urlencoded\n\ncsrf_token=q1w2e3r4t5&a=%5B%5D",
    b"https://u:p@shop.test/x\nSet-Cookie: a=b; Path=/\nLocation: /orders/12345/edit?k=v\nContent-Type: text/html\n\n"
    b'<form action="/a/123456"><input type=hidden name=csrf value="x&amp;y"></form><meta name=k content=v>',
    b"/\nAuthorization: Basic dTpw\nContent-Type: multipart/form-data; boundary=x\n\n"
    b'--x\r\nContent-Disposition: form-data; name="password"\r\n\r\ns3cret\r\n--x--\r\n',
)
_ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2;a=b\r\n{}\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.0 302 Found\r\nLocation: /\r\n\r\nuntil the end",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n\0\1",
)
_CONFIG = b"""
routes = ["GET /users/{name}", "/files/{path}"]
[[redact]]
json = "$.card"
action = "mask"
[[bind]]
add = "POST /orders $.id"
to = "GET /orders/{id} path[1]"
[[rewrite.rule]]
endpoint = "* /orders*"
header = "x-tenant"
set = "{user.tenant}"
[rewrite.time]
names = ["from", "*_date"]
within = "720h"
to = 2026-03-01T00:00:00Z
[rewrite.sign]
kind = "hmac"
header = "X-Signature"
secret = "{env.SIGNING_KEY}"
over = ["method", "target"]
hash = "sha256"
[auth]
users = "users.csv"
header = "Authorization"
value = "Bearer {token}"
[auth.token]
url = "https://id.test/token"
grant = "password"
[run]
speed = 2
rate = 100.5
writes = ["POST /orders"]
max_rate = 2000
abort_errors = 0.5
abort_groups = ["* /pay*"]
staging = "10.0.0.1"
[run.set_headers]
X-Env = "staging"
[diff]
fdr = 0.01
ignore_headers = ["X-Request-Id"]
[[diff.rule]]
endpoint = "GET /cart"
path = "$.items[*].price"
tolerance = 0.5
[[diff.rule]]
path = "headers.x-foo"
mask = "[0-9]+"
[[diff.rule]]
path = "$.items"
key = "id"
[gate]
capture = "captures/shop"
title = "nightly"
[baseline]
command = "shop --port {port}"
ready = "/health"
env = { A = "1" }
[candidate]
url = "http://127.0.0.1:8080"
[limits]
regressions = 0
p99_ratio = 1.5
"""
_ACCEPTED = (
    b'[[accepted]]\nfinding = "3f9c02aa"\nendpoint = "GET /"\npath = "$.a"\nkind = "value"\n'
    b'until = 2027-01-31\nbecause = "new"\n'
)


def _segment() -> bytes:
    with tempfile.TemporaryDirectory() as made:
        writer = Journal(Path(made), "x", settle=False)
        for row in (b"\x93\x01\xa1a\xc0", b"\x92\x01\x02"):
            writer.append(row)
            writer.flush()
        writer.close()
        return next(Path(made).glob("*.done")).read_bytes()


def _run() -> bytes:
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made) / "run"
        writer = DatasetWriter(directory, "run", source={}, settings={})
        writer.add(result(1))
        writer.add(result(2, status=None, error="timeout", response_body=None))
        writer.close({})
        part = next(directory.glob("*.parquet")).read_bytes()
        return (directory / "run.json").read_bytes().strip() + b"\n\n" + part


_HTTP = (b"HTTP/1.1", b"\r\n", b"\r\n\r\n", b": ", b"chunked", b"Content-Length", b"Content-Encoding: gzip\n")
_JSON = (
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b":",
    b",",
    b"\\u0000",
    b"\\ud800",
    b"1e999",
    b"NaN",
    b"-0",
    b"null",
    b"[" * 3000,
)
_TOML = (b"[", b"]]", b"=", b'"', b"nan", b"-inf", b"1e400", b"true", b"2027-01-31", b"[]", b"{}", b"9" * 30)

TARGETS: dict[str, Target] = {
    "imported": Target(imported, _recorded_files(), (*_JSON, *_HTTP, b"null", b"\ntype;1:x,", b"-1")),
    "compared": Target(
        compared, _PAIRS, (*_JSON, b"\n====\n", b"<a>", b"</a>", b"&e;", b"<a>" * 3000, b"--x")
    ),
    "decoded": Target(
        decoded,
        (
            b"gzip\n" + gzip.compress(b"a" * 99),
            b"br, zstd\n\x0b\x02\x80hello\x03",
            b"deflate\n" + zlib.compress(b"x"),
        ),
        (b"gzip,", b"identity", b"\x28\xb5\x2f\xfd"),
    ),
    "redacted": Target(
        redacted, _MESSAGES, (*_JSON, *_HTTP, b"password", b"token=", b"%2", b"4111111111111111", b"@a.de")
    ),
    "correlated": Target(
        correlated, _MESSAGES, (*_JSON, *_HTTP, b"eyJhIjoxfQ", b"%2F", b"//", b"?", b";", b"123456789")
    ),
    "answered": Target(
        answered, _ANSWERS, (*_HTTP, b"HTTP/1.1 100 Continue\r\n\r\n", b"Connection: close\r\n", b"-1")
    ),
    "configured": Target(configured, (_CONFIG,), _TOML),
    "accepted": Target(accepted, (_ACCEPTED,), _TOML),
    "pattern": Target(
        pattern,
        (b"$.items[*].price\n$.items[0].price", b"headers.x-*\nheaders.x-a"),
        (b"[", b"..", b"**", b"'"),
    ),
    "journal": Target(journal, (_segment(),), (b"RJ1\n", b"RJ2\n", b"\xdd\xff\xff\xff\xff", b"\xc7")),
    "dataset": Target(dataset, (_run(),), (b"PAR1", b"\xff" * 8)),
}
