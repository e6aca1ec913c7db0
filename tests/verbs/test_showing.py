"""`replay show`: an exchange found by its id, and asked again by the curl line, byte for byte."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from replay.errors import UsageError
from replay.model import Exchange, Header, Result
from replay.report.exchange import render
from replay.send.wire import Changes, Request, serialise
from replay.store.writer import DatasetWriter
from replay.verbs.showing import show
from tests.rows import exchange, result
from tests.send.servers import RecordingServer

HOST = ("Host", "shop.test")


def dataset(path: Path, kind: str, *rows: Exchange | Result, **source: str) -> Path:
    writer = DatasetWriter(path, kind, source=source, settings={})
    for row in rows:
        writer.add(row)
    writer.close({})
    return path


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    captured = [exchange(0), exchange(1, target="/cart", method="POST", request_body=b'{"id": 7}')]
    capture = dataset(tmp_path / "capture", "capture", *captured)
    old = [result(0), result(1, response_body=b'{"total": 331.16, "at": 1}')]
    new = [result(0), result(1, response_body=b'{"total": 315.92, "at": 1}', status=201)]
    kept = {"capture": str(capture), "target": "http://127.0.0.1:1"}
    return [
        dataset(tmp_path / "old", "run", *old, **kept),
        dataset(tmp_path / "new", "run", *new, **{**kept, "target": "http://127.0.0.1:2"}),
    ]


@pytest.mark.parametrize("width", [60, 120])
def test_request_answers_and_difference(runs: list[Path], width: int) -> None:
    shown = show(exchange(1).exchange_id, runs)
    text = render(shown, width)
    assert "POST /cart HTTP/1.1" in text
    assert '"id": 7' in text
    marked = [line for line in text.splitlines() if line.startswith(("- ", "+ ")) or "≠" in line]
    assert sum("331.16" in line for line in marked) == 1
    assert not any('"at"' in line for line in marked)
    assert {difference.path for difference in shown.answers[1].differences} == {"status", "$.total"}
    assert [name for name, _ in shown.curls] == list(map(str, runs))


IDS = [
    ("", "is no exchange id"),
    ("x/y", "is no exchange id"),
    ("99999999", "no exchange 99999999 \\(lap 0\\) in "),
    (exchange(0).exchange_id[:8], "is the beginning of several exchanges"),
]


@pytest.mark.parametrize(("given", "message"), IDS)
def test_what_cannot_be_found_is_said(runs: list[Path], given: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        show(given, runs)


def test_a_beginning_is_enough_and_the_curl_line_may_go_elsewhere(runs: list[Path]) -> None:
    shown = show(exchange(1).exchange_id[:-3], runs, target="localhost:9")
    assert shown.exchange_id == exchange(1).exchange_id
    ((name, line),) = shown.curls
    assert (name, line.split()[-1]) == ("localhost:9", "http://localhost:9/cart")
    with pytest.raises(UsageError, match="give scheme, host and port only"):
        show(exchange(1).exchange_id, runs, target="http://localhost/cart")


def test_a_capture_that_moved_can_be_named(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "capture").rename(tmp_path / "elsewhere")
    assert show(exchange(0).exchange_id, runs).asked is None
    assert show(exchange(0).exchange_id, runs, capture=tmp_path / "elsewhere").asked is not None


REQUESTS: dict[str, dict] = {
    "a plain GET": {},
    "a raw target": {"target": "/a%2fb/%7Eu//../x?q=a&b=[1]{2}&c=%zz#frag"},
    "quotes and a dollar": {"target": "/a?b='c\"$HOME`x`", "request_headers": (HOST, ("X-A", "it's \"$so\" \\ !"))},
    "headers twice, in odd cases, empty of what curl adds": {"request_headers": (HOST, ("x-A", "1"), ("X-a", "2"))},
    "headers that curl adds": {"request_headers": (HOST, ("accept", "a/b"), ("USER-AGENT", "me"))},
    "a header of other bytes": {"request_headers": (HOST, ("X-Latin", "caf\xe9 \x80"), ("X-Tab", "a\tb"))},
    "encodings": {"request_headers": (HOST, ("Accept-Encoding", "gzip"), ("Accept", "*/*"))},
    "a body": {"method": "POST", "request_body": b'{"a": "it\'s"}', "length": 1},
    "a body with its type": {"method": "PATCH", "request_body": b"a=1", "length": 1,
                             "more": (("Content-Type", "application/x-www-form-urlencoded"), ("Last", "1"))},
    "a body in UTF-8": {"method": "POST", "request_body": "né “x”\n\ttab".encode(), "length": 1},
    "a binary body": {"method": "PUT", "request_body": bytes(range(256)), "length": 1},
    "a body like a file's name": {"method": "POST", "request_body": b"@/etc/passwd", "length": 1},
    "a GET with a body": {"request_body": b"{}", "length": 1},
    "a chunked body": {"method": "POST", "request_body": b"x" * 300, "more": (("Transfer-Encoding", "chunked"),)},
    "a POST of nothing": {"method": "POST", "more": (("Content-Length", "0"),)},
    "a large body": {"method": "POST", "request_body": b"y" * 70_000, "length": 1},
    "HEAD": {"method": "HEAD"},
    "a target for a proxy": {"target": "http://shop.test/x"},
    "OPTIONS": {"method": "OPTIONS", "target": "/x"},
    "its own method": {"method": "PURGE"},
    "HTTP/1.0": {"http_version": "HTTP/1.0"},
}  # fmt: skip


@pytest.mark.parametrize("values", REQUESTS.values(), ids=REQUESTS)
def test_the_curl_line_sends_the_same_bytes(values: dict, tmp_path: Path) -> None:
    row = captured(**values)
    with RecordingServer() as server:
        run = dataset(tmp_path / "run", "run", result(0), target=server.url)
        ((_, line),) = show(row.exchange_id, [run], capture=dataset(tmp_path / "c", "capture", row)).curls
        subprocess.run(["sh", "-c", line], check=True, timeout=20, capture_output=True)
    request = Request(
        row.method,
        row.target,
        row.host,
        row.http_version,
        row.request_headers,
        row.request_body,
        row.request_size,
    )
    wire = serialise(request, Changes())
    assert wire.skipped is None
    assert server.requests == [wire.head + wire.body]


def captured(
    request_headers: tuple[Header, ...] = (HOST,),
    length: int = 0,
    more: tuple[Header, ...] = (),
    **values: object,
) -> Exchange:
    body = values.get("request_body", b"")
    assert isinstance(body, bytes)
    framing = (("Content-Length", str(len(body))),) if length else ()
    return exchange(0, request_headers=(*request_headers, *framing, *more), request_size=len(body), **values)


def test_each_build_is_asked_again_for_what_it_was_asked(tmp_path: Path) -> None:
    def run(name: str, port: int, order: str, **more: object) -> Path:
        head = f"GET /orders/{order} HTTP/1.1\r\nHost: shop.test\r\n\r\n".encode()
        sent = result(0, endpoint="GET /orders/{id}", sent_head=head, sent_body=b"", exact=False, **more)
        return dataset(tmp_path / name, "run", sent, target=f"http://127.0.0.1:{port}")

    old = run("old", 1, "5001")
    new = run("new", 2, "42", unbound="path[1] from POST /orders $.id: answered 500")
    shown = show(exchange(0).exchange_id, [old, new])
    lines = dict(shown.curls)
    assert "127.0.0.1:1/orders/5001" in lines[str(old)]
    assert "127.0.0.1:2/orders/42" in lines[str(new)]
    text = render(shown, 100)
    assert "GET /orders/5001 HTTP/1.1" in text
    assert f"Request of {new}" in text
    assert "lacked a live value: path[1] from POST /orders $.id: answered 500" in text.replace("\n", " ")
    assert show(exchange(0).exchange_id, [old]).otherwise == ()
