"""HAR 1.2, as browsers, proxies and REST clients really write it.

A HAR tells less than the wire had: bodies are decoded, HTTP/2's pseudo-headers are mixed in, sizes and
timings may be -1. What is taken is put so that it is consistent in itself: a decoded body loses its
Content-Encoding and gets its own Content-Length, and each such step is noted. A file is one browser, so it
is one session.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from replay.capture.importers import Item, Lanes, Note, NotTaken, digest_of, name_of, open_plain, salt_of
from replay.errors import InputError
from replay.model import Exchange, Header, exchange_id

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<target>[^#]*)")
_LARGEST = 512 << 20
"""A HAR is read as a whole, and takes several times its size in memory."""
_LONGEST_MS = 1e12
_FRACTION = re.compile(r"\.(\d+)")
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_VERSIONS = {
    "h2": "HTTP/2.0",
    "http/2": "HTTP/2.0",
    "http/2.0": "HTTP/2.0",
    "h3": "HTTP/3",
    "http/3": "HTTP/3",
}
_VERSIONS |= {"http/3.0": "HTTP/3", "h3-29": "HTTP/3", "http/1.0": "HTTP/1.0", "http/1.1": "HTTP/1.1"}
_BOUNDARY = re.compile(r'boundary="?([^";]+)"?', re.IGNORECASE)


def read(path: Path) -> Iterator[Item]:
    """The exchanges of a HAR in order of time; `InputError` where the file is not one."""
    digest = digest_of(path)
    lanes = Lanes(digest)
    dated: list[tuple[_Times, int, Mapping[str, Any]]] = []
    for index, entry in enumerate(_entries(path)):
        with _named(path, index):
            reason = _why_not(entry)
            times = None if reason else _times(entry)
        if times is None:
            yield NotTaken(reason or "no time recorded")
        else:
            dated.append((times, index, entry))
    for times, index, entry in sorted(dated, key=lambda item: (item[0].started, item[1])):
        with _named(path, index):
            items = list(_items(entry, times, index, digest, lanes))
        yield from items


@contextmanager
def _named(path: Path, index: int) -> Iterator[None]:
    """Whatever an entry's odd values break: it is the entry that is named."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is no valid HAR: entry {index} is off ({type(error).__name__}: {error})"
        ) from None


def _entries(path: Path) -> list[Mapping[str, Any]]:
    with open_plain(path) as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise InputError(f"{path} is larger than {_LARGEST >> 20} MiB: save it in several files")
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        document = orjson.loads(data.decode(encoding, "surrogatepass"))
    except (UnicodeDecodeError, orjson.JSONDecodeError) as error:
        raise InputError(f"{path} is not JSON, so it is no HAR: {error}") from None
    log = document.get("log") if isinstance(document, dict) else None
    entries = log.get("entries") if isinstance(log, dict) else None
    if not isinstance(entries, list):
        raise InputError(f"{path} is JSON but no HAR: it has no log.entries")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("request"), dict):
            raise InputError(f"{path} is no valid HAR: entry {index} has no request")
    return entries


def _why_not(entry: Mapping[str, Any]) -> str | None:
    """Why an entry is not an exchange on the wire, if it is not."""
    match = _URL.match(str(entry["request"].get("url", "")))
    if not match or match["scheme"].lower() not in _SCHEMES:
        return "not HTTP (data:, blob: and the like)"
    if entry.get("_fromCache") or (entry.get("_servedFromCache") is True):
        return "answered from the browser's cache"
    response = entry.get("response") or {}
    if not _status(response) and "BLOCKED_BY" in str(response.get("_error", "")):
        return "blocked before it was sent"
    if match["scheme"].lower() in ("ws", "wss") and _status(response) != 101:
        return "WebSocket without its handshake"
    return None


def _items(
    entry: Mapping[str, Any], times: _Times, index: int, digest: bytes, lanes: Lanes
) -> Iterator[Item]:
    request, response = entry["request"], entry.get("response") or {}
    notes: list[str] = []
    match = _URL.match(request["url"])
    assert match
    request_headers = _headers(request, notes)
    request_body = _request_body(request, request_headers, notes)
    request_headers = _consistent(request_headers, request_body, "request", notes)
    status = _status(response)
    response_headers = _headers(response, notes)
    response_body = _response_body(request, response, status, notes)
    response_headers = _consistent(response_headers, response_body, "response", notes)
    authority = _pseudo(request, ":authority") or _value(request_headers, "host") or match["authority"]
    if entry.get("_webSocketMessages") or match["scheme"].lower() in ("ws", "wss"):
        notes.append("WebSocket messages left out, the handshake taken")
    if times.zone_missing:
        notes.append("time without a zone read as UTC")
    yield from map(Note, notes)
    yield Exchange(
        exchange_id=exchange_id(times.started, salt_of(digest, index)),
        session_id=name_of(digest, "session"),
        connection_id=_connection(entry, match["authority"], times, digest, lanes),
        started_at=times.started,
        request_ns=times.request,
        ttfb_ns=times.first_byte if status else None,
        duration_ns=times.duration,
        method=_wire(str(request.get("method") or "GET")),
        scheme=_SCHEMES[match["scheme"].lower()],
        host=authority,
        target=_target(match["target"]),
        endpoint="",
        http_version=_VERSIONS.get(str(request.get("httpVersion", "")).lower(), "HTTP/1.1"),
        request_headers=tuple(request_headers),
        response_headers=tuple(response_headers),
        request_body=request_body,
        response_body=response_body,
        request_size=len(request_body) if request_body is not None else _size(request, "bodySize"),
        response_size=len(response_body) if response_body is not None else _response_size(response),
        truncated=False,
        status=status,
        error=None if status else _error(response),
    )


# --- times


@dataclass(frozen=True, slots=True)
class _Times:
    """Nanoseconds: since the epoch, and from there."""

    started: int
    request: int | None
    first_byte: int | None
    duration: int | None
    zone_missing: bool


def _times(entry: Mapping[str, Any]) -> _Times | None:
    """When the first byte was sent: what HAR calls started is when the browser first thought of it."""
    try:
        begun, zone_missing = _instant(str(entry.get("startedDateTime", "")))
    except ValueError:
        return None
    timings = entry.get("timings") or {}
    before = sum(_phase(timings, name) or 0 for name in ("blocked", "dns", "connect"))
    send, wait, receive = (_phase(timings, name) for name in ("send", "wait", "receive"))
    if wait is None:
        total = _phase(entry, "time")
        return _Times(begun, send, None, total, zone_missing)
    first_byte = (send or 0) + wait
    return _Times(begun + before, send, first_byte, first_byte + (receive or 0), zone_missing)


def _instant(text: str) -> tuple[int, bool]:
    # The fraction apart: a float or a datetime would cut it to microseconds.
    fraction = _FRACTION.search(text)
    moment = datetime.fromisoformat(_FRACTION.sub("", text, count=1))
    zone_missing = moment.tzinfo is None
    if zone_missing:
        moment = moment.replace(tzinfo=UTC)
    nanoseconds = int(fraction[1][:9].ljust(9, "0")) if fraction else 0
    return int(moment.timestamp()) * 1_000_000_000 + nanoseconds, zone_missing


def _phase(timings: Mapping[str, Any], name: str) -> int | None:
    """A phase in nanoseconds; `None` where it is -1, missing or no number."""
    value = timings.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LONGEST_MS:
        return int(value * 1e6)
    return None


def _connection(entry: Mapping[str, Any], authority: str, times: _Times, digest: bytes, lanes: Lanes) -> str:
    """As the file names it, else one that no other exchange was using."""
    if named := entry.get("connection"):
        return name_of(digest, "connection", authority, named)
    return lanes.connection(authority, times.started, times.duration or 0)


# --- headers and bodies


def _headers(message: Mapping[str, Any], notes: list[str]) -> list[Header]:
    headers: list[Header] = []
    for field in message.get("headers") or []:
        name, value = field["name"], field.get("value") or ""
        if name.startswith(":"):
            continue
        if "\n" in value:
            # Firefox and Chrome join repeated headers by line feeds.
            headers.extend((_wire(name), _wire(part)) for part in value.split("\n"))
            notes.append("joined headers separated")
        else:
            headers.append((_wire(name), _wire(value)))
    return headers


def _consistent(headers: list[Header], body: bytes | None, side: str, notes: list[str]) -> list[Header]:
    """Headers that fit the body as it is kept."""
    if not body:
        return headers
    if any(name.lower() == "content-encoding" for name, _ in headers):
        headers = [(name, value) for name, value in headers if name.lower() != "content-encoding"]
        notes.append(f"{side} body kept decoded, Content-Encoding dropped")
    length = str(len(body))
    return [(n, length) if n.lower() == "content-length" else (n, v) for n, v in headers]


def _request_body(request: Mapping[str, Any], headers: list[Header], notes: list[str]) -> bytes | None:
    data = request.get("postData")
    if not data:
        if _size(request, "bodySize") > 0:
            notes.append("request body not in the file")
            return None
        return b""
    if "text" in data and data["text"] is not None:
        return _text_bytes(data["text"], str(data.get("encoding", "")), _size(request, "bodySize"))
    if data.get("params"):
        notes.append("request body put together from its parameters")
        return _from_parameters(data["params"], str(data.get("mimeType", "")), headers)
    return b""


def _from_parameters(parameters: Any, kind: str, headers: list[Header]) -> bytes:
    boundary = _BOUNDARY.search(kind) or _BOUNDARY.search(_value(headers, "content-type"))
    if "multipart" in kind and boundary:
        return (
            b"".join(_multipart(boundary[1], each) for each in parameters) + f"--{boundary[1]}--\r\n".encode()
        )
    return urlencode([(each["name"], each.get("value") or "") for each in parameters]).encode()


def _multipart(boundary: str, parameter: Mapping[str, Any]) -> bytes:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{parameter["name"]}"'
    if parameter.get("fileName"):
        head += f'; filename="{parameter["fileName"]}"'
    if parameter.get("contentType"):
        head += f"\r\nContent-Type: {parameter['contentType']}"
    return f"{head}\r\n\r\n{parameter.get('value') or ''}\r\n".encode("utf-8", "surrogatepass")


def _response_body(
    request: Mapping[str, Any], response: Mapping[str, Any], status: int | None, notes: list[str]
) -> bytes | None:
    content = response.get("content") or {}
    text = content.get("text")
    if text:
        return _text_bytes(text, str(content.get("encoding", "")), _size(content, "size"))
    bodiless = request.get("method") == "HEAD" or status in (None, 101, 204, 205, 304)
    if bodiless or (_size(content, "size") == 0 and _size(response, "bodySize") == 0):
        return b""
    notes.append("response body not in the file")
    return None


def _text_bytes(text: str, encoding: str, size: int) -> bytes:
    """The bytes behind a text: base64 if it says so and is, else UTF-8, or latin-1 if only that fits `size`."""
    if encoding.lower() == "base64":
        try:
            return base64.b64decode(text)
        except (binascii.Error, ValueError):
            pass
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) != size == len(text):
        try:
            return text.encode("latin-1")
        except UnicodeEncodeError:
            pass
    return encoded


def _status(response: Mapping[str, Any]) -> int | None:
    status = response.get("status")
    return int(status) if isinstance(status, int | float) and 100 <= status <= 999 else None


def _error(response: Mapping[str, Any]) -> str:
    text = str(response.get("_error") or "").lower()
    for kind in ("aborted", "refused", "reset", "timed_out", "name_not_resolved", "ssl", "cert", "closed"):
        if kind in text:
            return _ERRORS.get(kind, kind)
    return "interrupted"


_ERRORS = {
    "aborted": "client_closed",
    "timed_out": "timeout",
    "name_not_resolved": "dns",
    "ssl": "tls",
    "cert": "tls",
}


def _response_size(response: Mapping[str, Any]) -> int:
    return max(_size(response.get("content") or {}, "size"), _size(response, "bodySize"))


def _size(message: Mapping[str, Any], name: str) -> int:
    value = message.get(name)
    return int(value) if isinstance(value, int | float) and value > 0 else 0


def _pseudo(message: Mapping[str, Any], name: str) -> str:
    fields = message.get("headers") or []
    return next((_wire(field.get("value") or "") for field in fields if field["name"] == name), "")


def _value(headers: list[Header], name: str) -> str:
    return next((value for key, value in headers if key.lower() == name), "")


def _target(rest: str) -> str:
    """The request-target: what a URL may not hold on the wire is escaped, nothing else is touched."""
    if not rest.startswith("/"):
        rest = f"/{rest}"
    return quote(rest, safe="".join(map(chr, range(0x21, 0x7F))))


def _wire(text: str) -> str:
    """Text as latin-1 decoded bytes: what is not latin-1 was UTF-8 on the wire."""
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass").decode("latin-1")
    return text
