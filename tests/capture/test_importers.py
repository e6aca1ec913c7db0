"""Importers: every real file, and every trap known of them."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.io import FlowWriter
from mitmproxy.test import tflow

from replay.capture.importers import Item, Note, NotTaken, reader_for
from replay.errors import InputError
from replay.model import Exchange

DATA = Path(__file__).parent.parent / "data"

REAL = [
    # file, exchanges, notes
    ("har/event_stream.har", 2, []),
    ("har/reqres.in.har", 2, ["response body kept decoded, Content-Encoding dropped"]),
    ("har/string-problematic-characters.har", 1, []),
    ("har/successful_log.har", 2, []),
    ("har/url-encoded-body-no-text-field.har", 1, ["request body put together from its parameters"]),
    ("flows/dumpfile-7.mitm", 2, []),
    ("flows/dumpfile-19.mitm", 1, []),
    (
        "flows/event_stream.mitm",
        2,
        ["end of the answer not in the file"] + 2 * ["response body not in the file"],
    ),
    ("flows/successful_log.mitm", 2, []),
]


def test_no_real_file_is_forgotten() -> None:
    there = {str(path.relative_to(DATA)) for path in DATA.glob("*/*") if path.parent.name in ("har", "flows")}
    assert there == {name for name, _, _ in REAL}


@pytest.mark.parametrize(("name", "count", "notes"), REAL, ids=[name for name, _, _ in REAL])
def test_real_files(name: str, count: int, notes: list[str]) -> None:
    items = read(DATA / name)
    taken = exchanges(items)
    assert len(taken) == count
    assert sorted(item.what for item in items if isinstance(item, Note)) == notes
    assert not [item for item in items if isinstance(item, NotTaken)]
    assert [item.started_at for item in taken] == sorted(item.started_at for item in taken)
    for item in taken:
        assert item.target.startswith("/")
        assert item.host
        assert not any(header.startswith(":") for header, _ in item.request_headers)
        lengths = [value for header, value in item.request_headers if header.lower() == "content-length"]
        assert lengths in ([], [str(item.request_size)])
        assert item.response_body is None or len(item.response_body) == item.response_size


@pytest.mark.parametrize("name", [name for name, _, _ in REAL])
def test_the_same_file_gives_the_same_exchanges(name: str) -> None:
    assert read(DATA / name) == read(DATA / name)


def test_a_real_har_is_read_to_the_byte() -> None:
    first, second = exchanges(read(DATA / "har/reqres.in.har"))
    assert (first.method, first.host, first.target) == ("POST", "reqres.in", "/api/register")
    assert first.http_version == "HTTP/2.0"
    assert json.loads(first.request_body or b"")["email"]
    assert first.started_at == 1710168984937_000000 + int(3.2040000492334366 * 1e6)
    assert first.request_ns == int(0.25500000000000006 * 1e6)
    assert first.session_id == second.session_id
    (form,) = exchanges(read(DATA / "har/url-encoded-body-no-text-field.har"))
    assert form.request_body == b"name=morpheus&job=leader" or len(form.request_body or b"") == 23


# --- HAR, trap by trap


def entry(**changes: Any) -> dict[str, Any]:
    request = {
        "method": "GET",
        "url": "http://h/a",
        "httpVersion": "HTTP/1.1",
        "headers": [],
        **changes.pop("request", {}),
    }
    response = {
        "status": 200,
        "headers": [],
        "content": {"text": "x", "size": 1},
        **changes.pop("response", {}),
    }
    return {
        "startedDateTime": "2024-01-01T00:00:00.000Z",
        "time": 10,
        "timings": {"send": 1, "wait": 5, "receive": 2},
        "request": request,
        "response": response,
        **changes,
    }


def har(path: Path, *entries: dict[str, Any], prefix: bytes = b"") -> Path:
    path.write_bytes(prefix + json.dumps({"log": {"version": "1.2", "entries": entries}}).encode())
    return path


def one(path: Path) -> Exchange:
    (exchange,) = exchanges(read(path))
    return exchange


def read(path: Path) -> list[Item]:
    return list(reader_for(path)(path))


def exchanges(items: list[Item]) -> list[Exchange]:
    return [item for item in items if isinstance(item, Exchange)]


def test_a_byte_order_mark_utf16_and_gzip(tmp_path: Path) -> None:
    plain = har(tmp_path / "a", entry())
    marked = har(tmp_path / "b", entry(), prefix=b"\xef\xbb\xbf \n")
    (tmp_path / "c").write_text(plain.read_text(), encoding="utf-16")
    (tmp_path / "d").write_bytes(gzip.compress(plain.read_bytes()))
    assert {one(path).target for path in (plain, marked, tmp_path / "c", tmp_path / "d")} == {"/a"}


def test_entries_come_in_order_of_time(tmp_path: Path) -> None:
    late = entry(startedDateTime="2024-01-01T01:00:02.000000001+01:00", request={"url": "http://h/late"})
    path = har(tmp_path / "a.har", late, entry())
    first, second = exchanges(read(path))
    assert (first.target, second.target) == ("/a", "/late")
    assert second.started_at - first.started_at == 2_000_000_001


def test_timings(tmp_path: Path) -> None:
    timings = {"blocked": 3, "dns": -1, "connect": 20, "ssl": 15, "send": -1, "wait": 5.5, "receive": 2}
    told = one(har(tmp_path / "a", entry(timings=timings)))
    assert told.started_at == 1704067200_023_000000
    assert (told.request_ns, told.ttfb_ns, told.duration_ns) == (None, 5_500_000, 7_500_000)
    silent = one(har(tmp_path / "b", entry(timings={"wait": -1}, time=12)))
    assert (silent.request_ns, silent.ttfb_ns, silent.duration_ns) == (None, None, 12_000_000)


def test_pseudo_headers_name_the_host_and_go(tmp_path: Path) -> None:
    headers = [
        {"name": ":authority", "value": "real:8443"},
        {"name": ":path", "value": "/a"},
        {"name": "x", "value": "y"},
    ]
    told = one(har(tmp_path / "a", entry(request={"headers": headers, "httpVersion": "h2"})))
    assert (told.host, told.request_headers, told.http_version) == ("real:8443", (("x", "y"),), "HTTP/2.0")


def test_joined_headers_are_separated(tmp_path: Path) -> None:
    headers = [{"name": "Set-Cookie", "value": "a=1\nb=2"}]
    told = one(har(tmp_path / "a", entry(response={"headers": headers})))
    assert told.response_headers == (("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"))


BODIES = [
    ({"text": "é", "size": 2}, "é".encode(), None),
    ({"text": "é", "size": 1}, b"\xe9", None),
    ({"text": base64.b64encode(b"\x00\xff").decode(), "encoding": "base64"}, b"\x00\xff", None),
    ({"text": "not base64!", "encoding": "base64"}, b"not base64!", None),
    ({"text": "plain", "encoding": "utf-8"}, b"plain", None),
    ({"size": 0}, b"", None),
    ({"size": 12}, None, "response body not in the file"),
    ({}, b"", None),
]


@pytest.mark.parametrize(("content", "body", "note"), BODIES)
def test_response_bodies(
    tmp_path: Path, content: dict[str, Any], body: bytes | None, note: str | None
) -> None:
    items = read(har(tmp_path / "a", entry(response={"content": content})))
    assert exchanges(items)[0].response_body == body
    assert [item.what for item in items if isinstance(item, Note)] == ([note] if note else [])


def test_no_body_is_missed_where_there_can_be_none(tmp_path: Path) -> None:
    told = one(har(tmp_path / "a", entry(request={"method": "HEAD"}, response={"content": {"size": 99}})))
    assert told.response_body == b""


def test_a_decoded_body_loses_its_coding_and_gets_its_length(tmp_path: Path) -> None:
    headers = [{"name": "Content-Encoding", "value": "br"}, {"name": "content-length", "value": "999"}]
    told = one(har(tmp_path / "a", entry(response={"headers": headers})))
    assert told.response_headers == (("content-length", "1"),)


REQUESTS = [
    ({"postData": {"text": "a=1", "mimeType": "x"}}, b"a=1"),
    ({"postData": {"params": [{"name": "a b", "value": "ü"}, {"name": "c"}]}}, b"a+b=%C3%BC&c="),
    (
        {
            "postData": {
                "mimeType": "multipart/form-data; boundary=XX",
                "params": [{"name": "f", "fileName": "a.txt", "contentType": "text/plain", "value": "hi"}],
            }
        },
        b'--XX\r\nContent-Disposition: form-data; name="f"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\nhi\r\n'
        b"--XX--\r\n",
    ),
    ({"bodySize": 12}, None),
    ({"bodySize": -1}, b""),
]


@pytest.mark.parametrize(("request_part", "body"), REQUESTS)
def test_request_bodies(tmp_path: Path, request_part: dict[str, Any], body: bytes | None) -> None:
    assert one(har(tmp_path / "a", entry(request={"method": "POST", **request_part}))).request_body == body


def test_what_is_not_taken_is_said(tmp_path: Path) -> None:
    path = har(
        tmp_path / "a",
        entry(request={"url": "data:text/plain,x"}),
        entry(_fromCache="disk"),
        entry(response={"status": 0, "_error": "net::ERR_BLOCKED_BY_CLIENT"}),
        entry(request={"url": "wss://h/ws"}),
        entry(startedDateTime="yesterday"),
    )
    items = read(path)
    assert len(items) == 5
    assert all(isinstance(item, NotTaken) for item in items)


def test_a_websocket_handshake_is_taken_and_its_messages_are_counted(tmp_path: Path) -> None:
    items = read(
        har(tmp_path / "a", entry(request={"url": "wss://h/ws"}, response={"status": 101, "content": {}}))
    )
    assert (exchanges(items)[0].scheme, exchanges(items)[0].status) == ("https", 101)
    assert Note("WebSocket messages left out, the handshake taken") in items


def test_a_request_without_an_answer_is_a_row(tmp_path: Path) -> None:
    told = one(har(tmp_path / "a", entry(response={"status": 0, "_error": "net::ERR_CONNECTION_REFUSED"})))
    assert (told.status, told.error) == (None, "refused")


def test_connections_by_name_or_by_overlap(tmp_path: Path) -> None:
    named = [entry(connection="7"), entry(connection="7"), entry(connection="8")]
    assert len({item.connection_id for item in exchanges(read(har(tmp_path / "a", *named)))}) == 2
    overlapping = [entry(), entry(), entry(startedDateTime="2024-01-01T00:01:00Z")]
    ids = [item.connection_id for item in exchanges(read(har(tmp_path / "b", *overlapping)))]
    assert ids[0] != ids[1]
    assert ids[2] in ids[:2]


def test_targets_are_what_was_on_the_wire(tmp_path: Path) -> None:
    urls = {"http://h": "/", "http://h?q=1#f": "/?q=1", "http://h/a%2fb/ü x?y=[1]": "/a%2fb/%C3%BC%20x?y=[1]"}
    for number, (url, target) in enumerate(urls.items()):
        assert one(har(tmp_path / str(number), entry(request={"url": url}))).target == target


BAD = [
    (b"", "none of these"),
    (b"\x00\x01", "none of these"),
    (b"{", "not JSON"),
    (b'{"a":1}', "log.entries"),
    (b'{"log":{"entries":[1]}}', "entry 0"),
    (
        b'{"log":{"entries":[{"request":{"url":"http://h/","headers":[1]},"startedDateTime":"2024-01-01"}]}}',
        "entry 0",
    ),
    (b"12:abc", "flow dump"),
    (b"3:1:a,~", "flow dump"),
]


@pytest.mark.parametrize(("content", "message"), BAD)
def test_bad_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        read(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_files_and_directories_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        reader_for(tmp_path / "nothing")
    with pytest.raises(InputError, match="is a directory"):
        reader_for(tmp_path)


# --- flow dumps


def dump(path: Path, *flows: Any) -> Path:
    with path.open("wb") as file:
        writer = FlowWriter(file)  # type: ignore[no-untyped-call]
        for flow in flows:
            writer.add(flow)
    return path


def test_flows_of_other_kinds_are_counted(tmp_path: Path) -> None:
    items = read(
        dump(
            tmp_path / "a", tflow.tflow(resp=True), tflow.ttcpflow(), tflow.tdnsflow(), tflow.twebsocketflow()
        )
    )
    assert len(exchanges(items)) == 2
    assert [item.reason for item in items if isinstance(item, NotTaken)] == [
        "tcp connection",
        "dns connection",
    ]
    assert [item for item in items if isinstance(item, Note)] == [
        Note("WebSocket messages left out, the handshake taken")
    ]


def test_failed_flows_are_rows(tmp_path: Path) -> None:
    failed, unanswered = exchanges(read(dump(tmp_path / "a", tflow.tflow(err=True), tflow.tflow())))
    assert (failed.status, failed.error) == (None, "protocol")
    assert (unanswered.status, unanswered.error) == (None, "interrupted")


def test_a_torn_dump_gives_what_is_whole(tmp_path: Path) -> None:
    path = dump(tmp_path / "a", tflow.tflow(resp=True), tflow.tflow(resp=True))
    path.write_bytes(path.read_bytes()[:-20])
    items = read(path)
    assert len(exchanges(items)) == 1
    assert isinstance(items[-1], NotTaken)
