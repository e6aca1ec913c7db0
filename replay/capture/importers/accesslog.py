"""Access logs of nginx, Apache and whoever writes as they do: the common and the combined format.

A line tells of a request without its body and but two of its headers: only methods that carry no body are taken.
Time is known to the second, so the lines of a second are spread evenly over it. An address with a user agent is
one session. Apache's `vhost_combined` begins with the host; for other logs the user names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from replay.capture.importers import Item, Lanes, Note, NotTaken, digest_of, name_of, open_plain, salt_of
from replay.errors import InputError
from replay.model import Exchange, exchange_id

LINE = re.compile(
    rb"""
    (?:(?P<host>[A-Za-z0-9._-]+(?::\d+)?)[ ])?
    (?P<address>\S+)[ ]\S+[ ]\S+[ ]
    \[(?P<time>\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d[ ][+-]\d{4})\][ ]
    "(?P<request>(?:[^"\\]|\\.)*)"[ ](?P<status>\d{3})[ ](?P<size>\d{1,18}|-)
    (?:[ ]"(?P<referer>(?:[^"\\]|\\.)*)"[ ]"(?P<agent>(?:[^"\\]|\\.)*)")?
    """,
    re.VERBOSE,
)
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"
_ESCAPE = re.compile(rb"\\(x[0-9A-Fa-f]{2}|.)")
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_VERSIONS = {"HTTP/1.0": "HTTP/1.0", "HTTP/1.1": "HTTP/1.1", "HTTP/2.0": "HTTP/2.0", "HTTP/3.0": "HTTP/3"}
_LONGEST = 1 << 20
_SECOND = 1_000_000_000


class _Line(NamedTuple):
    """One line: second since the epoch, and what matched; `None` where it is no line of such a log."""

    number: int
    second: int
    match: re.Match[bytes] | None


def read(path: Path, host: str | None = None) -> Iterator[Item]:
    """The exchanges, in the log's order; `InputError` where neither a line nor `host` says where they went."""
    digest = digest_of(path)
    lanes = Lanes(digest)
    for second, group in groupby(_lines(path), key=lambda line: line.second):
        lines = list(group)
        for place, line in enumerate(lines):
            started = second * _SECOND + place * _SECOND // len(lines)
            yield from _items(line, started, path, host, digest, lanes)


def _lines(path: Path) -> Iterator[_Line]:
    second = 0
    with open_plain(path) as file:
        index = 0
        while line := file.readline(_LONGEST):
            match = LINE.match(line)
            second = _second(match["time"].decode()) if match else second
            if line.strip():
                yield _Line(index, second, match)
            index += 1


def _second(text: str) -> int:
    """`10/Oct/2000:13:55:36 -0700`; not by strptime, whose months are those of the user's language."""
    try:
        minutes = int(text[22:24]) * 60 + int(text[24:26])
        zone = timezone(timedelta(minutes=-minutes if text[21] == "-" else minutes))
        day, month, year = int(text[:2]), _MONTHS.index(text[3:6]) // 3 + 1, int(text[7:11])
        clock = (int(text[12:14]), int(text[15:17]), int(text[18:20]))
        return int(datetime(year, month, day, *clock, tzinfo=zone).timestamp())
    except ValueError:
        return 0


def _items(
    line: _Line, started: int, path: Path, host: str | None, digest: bytes, lanes: Lanes
) -> Iterator[Item]:
    if line.match is None or not line.second:
        yield NotTaken("not a line of an access log")
        return
    method, target, version = _request(line.match["request"])
    if version not in _VERSIONS:
        yield NotTaken("not an HTTP request")
        return
    if method not in _BODILESS:
        yield NotTaken(f"{method} whose body is not in the log")
        return
    named = line.match["host"].decode() if line.match["host"] else host
    if named is None:
        raise InputError(f"{path} does not say which host was asked: name it with --host")
    yield Note("headers other than Host, User-Agent and Referer not in the file")
    size = line.match["size"]
    user = name_of(digest, line.match["address"], line.match["agent"] or b"")
    yield Exchange(
        exchange_id=exchange_id(started, salt_of(digest, line.number)),
        session_id=user,
        connection_id=lanes.connection(user, started, 0),
        started_at=started,
        request_ns=None,
        ttfb_ns=None,
        duration_ns=None,
        method=method,
        scheme="http",
        host=named,
        target=target,
        endpoint="",
        http_version=_VERSIONS[version],
        request_headers=_headers(named, line.match),
        response_headers=(),
        request_body=b"",
        response_body=None,
        request_size=0,
        response_size=0 if size == b"-" else int(size),
        truncated=False,
        status=int(line.match["status"]),
        error=None,
    )


def _request(quoted: bytes) -> tuple[str, str, str]:
    method, _, rest = _plain(quoted).partition(" ")
    target, _, version = rest.rpartition(" ")
    return method, target, version


def _headers(host: str, match: re.Match[bytes]) -> tuple[tuple[str, str], ...]:
    found = (("User-Agent", match["agent"]), ("Referer", match["referer"]))
    given = ((name, _plain(value)) for name, value in found if value and value != b"-")
    return (("Host", host), *given)


def _plain(quoted: bytes) -> str:
    r"""Without the escapes that the servers write: `\x1b`, `\"`, `\\`, and Apache's `\n`, `\r` and `\t`."""
    return _ESCAPE.sub(_unescaped, quoted).decode("latin-1")


def _unescaped(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return bytes.fromhex(code[1:].decode()) if len(code) > 1 else _LETTERS.get(code, code)
