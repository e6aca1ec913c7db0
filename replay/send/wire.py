"""A captured request as the bytes to write: HTTP/1.1 serialised ahead, byte for byte as it was captured.

What differs from the capture is decided here and nowhere else, and each difference makes the request not
`exact`: the protocol version and pseudo-headers of an HTTP/2 capture, the Host line when asked for, header
lines set or removed by the user, and framing that no longer fits the body. A chunked upload keeps its
Transfer-Encoding and is sent as one chunk: where the chunks were cut is not in the capture.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from replay.model import Header

_HTTP1 = ("HTTP/1.0", "HTTP/1.1")
_UPGRADE, _CONTENT_LENGTH, _TRANSFER_ENCODING = (
    len("upgrade"),
    len("content-length"),
    len("transfer-encoding"),
)


class Wire(NamedTuple):
    """The bytes of a request, whether they are the captured ones, or why there are none to send."""

    head: bytes
    body: bytes
    exact: bool
    skipped: str | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What the user wants changed in every request. `host` replaces Host; `remove` holds lower-case names."""

    host: str | None = None
    set: tuple[Header, ...] = ()
    remove: frozenset[str] = frozenset()


_NONE = Changes()


class Request(NamedTuple):
    """The parts of an exchange that make the request."""

    method: str
    target: str
    host: str
    http_version: str
    headers: tuple[Header, ...]
    body: bytes | None
    size: int


def serialise(request: Request, changes: Changes) -> Wire:
    """The bytes to send. `skipped` names why a request cannot be sent: it was not stored whole, say."""
    if reason := _unsendable(request):
        return Wire(b"", b"", False, reason)
    body = request.body or b""
    headers = _without_http2(request)
    if changes != _NONE:
        headers = _changed(headers, changes)
    headers, chunked = _framed(headers, body, request.method)
    version = request.http_version if request.http_version in _HTTP1 else "HTTP/1.1"
    lines = [
        f"{request.method} {request.target} {version}",
        *(f"{name}: {value}" for name, value in headers),
        "",
        "",
    ]
    text = "\r\n".join(lines)
    if not _is_clean(text, len(lines) - 1) or " " in request.method:
        return Wire(b"", b"", False, "malformed")
    try:
        head = text.encode("latin-1")
    except UnicodeEncodeError:
        return Wire(b"", b"", False, "malformed")
    exact = headers == request.headers and version == request.http_version
    return Wire(head, _one_chunk(body) if chunked else body, exact)


class Serialiser:
    """`serialise` for many requests with the same changes. Header lines that have been met, as sessions repeat theirs,
    are not looked at anew; `most` of them are remembered."""

    def __init__(self, changes: Changes, most: int = 4096) -> None:
        self._changes = changes
        self._most = most
        self._known: dict[tuple[tuple[Header, ...], str, str], tuple[bytes, Wire]] = {}

    def __call__(self, request: Request) -> Wire:
        """The bytes to send."""
        method, target, host, version, headers, body, size = request
        if body or size or method == "CONNECT":
            return serialise(request, self._changes)
        key = (headers, version, host)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= self._most:
                self._known.clear()
            made = serialise(request._replace(method="GET", target="/"), self._changes)
            known = self._known[key] = made.head.removeprefix(b"GET /"), made
        rest, made = known
        start = f"{method} {target}"
        if made.skipped is not None:
            return made
        if not _is_clean(start, 0) or " " in method:
            return Wire(b"", b"", False, "malformed")
        try:
            return Wire(start.encode("latin-1") + rest, made.body, made.exact)
        except UnicodeEncodeError:
            return Wire(b"", b"", False, "malformed")


def _unsendable(request: Request) -> str | None:
    if request.method == "CONNECT":
        return "connect"
    for name, value in request.headers:
        if len(name) == _UPGRADE and name.lower() == "upgrade" and value.lower() != "h2c":
            return "upgrade"
    if request.body is None and request.size:
        return "body not captured"
    if request.body is not None and len(request.body) != request.size:
        return "body truncated"
    return None


def _is_clean(text: str, breaks: int) -> bool:
    """Whether the only line breaks are those between the lines: others would end the head early, or forge lines."""
    return text.count("\r") == text.count("\n") == breaks and "\0" not in text


def _without_http2(request: Request) -> tuple[Header, ...]:
    if request.http_version in _HTTP1:
        return request.headers
    headers = tuple(header for header in request.headers if not header[0].startswith(":"))
    if any(name.lower() == "host" for name, _ in headers):
        return headers
    return (("Host", request.host), *headers)


def _changed(headers: tuple[Header, ...], changes: Changes) -> tuple[Header, ...]:
    if changes.host is not None:
        host = changes.host
        headers = tuple((name, host) if name.lower() == "host" else (name, value) for name, value in headers)
    if changes.remove:
        headers = tuple(header for header in headers if header[0].lower() not in changes.remove)
    for name, value in changes.set:
        headers = _set(headers, name, value)
    return headers


def _set(headers: tuple[Header, ...], name: str, value: str) -> tuple[Header, ...]:
    """In the place of the first header of that name, or at the end."""
    places = [i for i, header in enumerate(headers) if header[0].lower() == name.lower()]
    if not places:
        return (*headers, (name, value))
    kept = [header for i, header in enumerate(headers) if i not in places[1:]]
    kept[places[0]] = (kept[places[0]][0], value)
    return tuple(kept)


def _framed(headers: tuple[Header, ...], body: bytes, method: str) -> tuple[tuple[Header, ...], bool]:
    """Headers that tell the body's length truly, and whether the body goes out chunked."""
    lengths = []
    for name, value in headers:
        # Most headers are neither: their length tells.
        if len(name) == _CONTENT_LENGTH and name.lower() == "content-length":
            lengths.append(value)
        elif (
            len(name) == _TRANSFER_ENCODING
            and name.lower() == "transfer-encoding"
            and "chunked" in value.lower()
        ):
            return headers, True
    size = str(len(body))
    if not lengths:
        return ((*headers, ("Content-Length", size)) if body else headers), False
    if all(length.strip() == size for length in lengths):
        return headers, False
    return _set(headers, "Content-Length", size), False


_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r\n]*chunked", re.IGNORECASE)


def unframed(head: bytes, body: bytes) -> bytes:
    """The body that a head as made here announces, without the framing of its one chunk."""
    if not _CHUNKED.search(head):
        return body
    return body.partition(b"\r\n")[2].removesuffix(b"\r\n0\r\n\r\n") if body != b"0\r\n\r\n" else b""


def _one_chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
