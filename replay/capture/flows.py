"""mitmproxy's flows as exchanges: what of a flow goes in which column, for live traffic and for its dumps.

`target` is the origin-form, which is what the server behind the proxy gets; `host` is what the client asked
for (Host or `:authority`), and only without one the address it was sent to; `scheme` is the client's side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mitmproxy.http import HTTPFlow, Request

from replay.model import Exchange, Header

RawHeaders = tuple[tuple[bytes, bytes], ...]

_ERRORS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        ("client_closed", r"client disconnected|reset by client|client closed|connection killed by client"),
        ("killed", r"killed"),
        ("dns", r"getaddrinfo|name or service|name resolution|nodename|no address associated|resolve"),
        ("refused", r"refused|connect call failed"),
        ("unreachable", r"unreachable|no route"),
        ("tls", r"tls|ssl|certificate"),
        ("timeout", r"timed? ?out|timeout"),
        ("reset", r"reset"),
        ("closed", r"disconnected|closed|eof|broken pipe|incomplete|peer closed"),
    )
)


def error_kind(message: str) -> str:
    """mitmproxy's words for what went wrong, as one of a small closed set; `protocol` for the rest."""
    for kind, pattern in _ERRORS:
        if pattern.search(message):
            return kind
    return "protocol"


_SIZE = re.compile(r"[0-9]{1,18}")


def host_of(request: Request, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The host the client asked for, with the port if it named one."""
    for name, value in fields:
        if len(name) == 4 and name.lower() == b"host":
            return value
    data = request.data
    if data.authority:
        return data.authority
    return f"{data.host}:{data.port}".encode("utf-8", "surrogateescape")


def to_headers(fields: Iterable[tuple[bytes, bytes]]) -> tuple[Header, ...]:
    """Raw header fields as text that gives back the bytes."""
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields)


def to_exchange(flow: HTTPFlow, *, exchange_id: str, session_id: str, connection_id: str) -> Exchange:
    """A flow from a dump as an exchange. Times are the dump's: floats of seconds, good to some 0.2 µs."""
    request, response = flow.request, flow.response
    started = request.timestamp_start
    ended = (response.timestamp_end if response else None) or (flow.error.timestamp if flow.error else None)
    request_body = request.raw_content
    response_body = response.raw_content if response else None
    return Exchange(
        exchange_id=exchange_id,
        session_id=session_id,
        connection_id=connection_id,
        started_at=int(started * 1e9),
        request_ns=_since(started, request.timestamp_end),
        ttfb_ns=_since(started, response.timestamp_start) if response else None,
        duration_ns=_since(started, ended),
        method=request.data.method.decode("latin-1"),
        scheme=request.data.scheme.decode("latin-1") or ("https" if flow.client_conn.tls else "http"),
        host=host_of(request, request.headers.fields).decode("latin-1"),
        target=request.data.path.decode("latin-1"),
        endpoint="",
        http_version=request.data.http_version.decode("latin-1"),
        request_headers=to_headers(request.headers.fields),
        response_headers=to_headers(response.headers.fields) if response else (),
        request_body=request_body,
        response_body=response_body,
        request_size=len(request_body) if request_body is not None else _length(request.headers),
        response_size=(
            len(response_body) if response_body is not None else _length(response.headers) if response else 0
        ),
        truncated=False,
        status=response.status_code if response else None,
        error=_error(flow),
    )


def _error(flow: HTTPFlow) -> str | None:
    if flow.error:
        return error_kind(flow.error.msg)
    return None if flow.response else "interrupted"


def _since(started: float, instant: float | None) -> int | None:
    return max(0, int((instant - started) * 1e9)) if instant else None


def _length(headers: object) -> int:
    value = headers.get("content-length", "")  # type: ignore[attr-defined]
    return int(value) if _SIZE.fullmatch(value) else 0
