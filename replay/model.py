"""The nouns: frozen, slotted, standard library only.

Field order is the column order on disk (`replay.store.schema`); a test holds the two together.
Times: `*_at` is nanoseconds since the Unix epoch, UTC; `*_ns` is a duration in nanoseconds.
Text taken from the wire (targets, header names and values) is decoded as latin-1, which is lossless:
`text.encode("latin-1")` gives back the bytes as they travelled.
"""

from __future__ import annotations

from dataclasses import dataclass

Header = tuple[str, str]
"""One header line: name and value, case and duplicates kept, latin-1 decoded."""

NOT_SENT = "not sent"
"""In `unbound`: why a value is missing whose maker was not asked, so that no build is to blame."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One captured request with its response, or its error, and timings.

    A body of `None` was not stored (unlike `b""`, which was empty); bodies are as on the wire after
    de-chunking, content-encoding kept. `request_size` and `response_size` are the true body sizes in
    bytes, also when the stored body is cut (`truncated`). `status` is `None` when no answer came, and then
    `error` says why. `sample_weight` is 1 / inclusion probability.
    """

    exchange_id: str
    session_id: str
    connection_id: str
    started_at: int
    request_ns: int | None
    ttfb_ns: int | None
    duration_ns: int | None
    method: str
    scheme: str
    host: str
    target: str
    endpoint: str
    http_version: str
    request_headers: tuple[Header, ...]
    response_headers: tuple[Header, ...]
    request_body: bytes | None
    response_body: bytes | None
    request_size: int
    response_size: int
    truncated: bool
    status: int | None
    error: str | None
    sample_weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one arrival.

    `due_ns` and `sent_ns` count from the run's start on one monotonic clock; `sent_ns` is the instant the
    first byte of the request was given to the kernel, `None` when nothing was sent. `held_ns` is the part of
    `sent_ns - due_ns` spent waiting for the target (an earlier answer on the connection, or the connection
    itself being made): the generator's own lag is `sent_ns - due_ns - held_ns`. `ttfb_ns` and `duration_ns`
    count from `sent_ns`. `connect_ns` and `tls_ns` are durations, `None` on a reused connection.
    `learned` are pairs of a recorded value and the live one that this answer handed out in its place; `unbound`
    says which live values the request lacked, and why.
    `exact` tells whether the bytes sent were those captured; where they were not, `sent_head` and
    `sent_body` hold what was sent instead (`None`: as captured). `lap` counts the passes of a looped run.
    Exactly one of `status`, `error`, `skipped` explains the row, except that an answer cut short has both
    `status` and `error`.
    """

    exchange_id: str
    lap: int
    session_id: str
    connection_id: str
    endpoint: str
    due_ns: int
    sent_ns: int | None
    held_ns: int
    connect_ns: int | None
    tls_ns: int | None
    ttfb_ns: int | None
    duration_ns: int | None
    reused: bool
    exact: bool
    sent_head: bytes | None
    sent_body: bytes | None
    status: int | None
    response_headers: tuple[Header, ...]
    response_body: bytes | None
    response_size: int
    truncated: bool
    error: str | None
    skipped: str | None
    learned: tuple[Header, ...] | None = ()
    unbound: str | None = None


ERRORS = (
    "dns",
    "refused",
    "unreachable",
    "connect_timeout",
    "tls",
    "reset",
    "closed",
    "stale",
    "timeout",
    "protocol",
    "interrupted",
)
"""The closed set of `Result.error`, so that tables of errors stay small whatever servers do."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request due at an instant of the run: what the planner hands to the sender.

    `due_ns` counts from the run's start. `lane` names the connection it is sent on (one recorded connection
    is one lane; streams that overlapped on an HTTP/2 connection get lanes of their own). `head` and `body`
    are the bytes to write, ready made. `skipped` is a reason not to send.
    """

    due_ns: int
    exchange_id: str
    lap: int
    session_id: str
    connection_id: str
    endpoint: str
    lane: str
    method: str
    last_on_lane: bool
    exact: bool
    head: bytes
    body: bytes
    skipped: str | None = None


def exchange_id(started_at: int, salt: int) -> str:
    """An identifier that sorts by time: 16 hex digits of `started_at` (ns), then 12 of `salt` (48 bits)."""
    return f"{started_at:016x}-{salt & 0xFFFFFFFFFFFF:012x}"
