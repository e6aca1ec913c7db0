"""GoReplay's files: requests and, where they were recorded, their answers.

A record is a line `TYPE ID TIME [LATENCY …]` (1 request, 2 answer, 3 answer of a replay; times in ns), the raw
HTTP/1.x message, and a separator. Its own reader forgets a last record that has none; this one does not.
A file names no clients: whoever has the same forwarded address, user agent and authorization is one session.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from replay.capture.importers import Item, Lanes, Note, NotTaken, digest_of, name_of, open_plain, salt_of
from replay.capture.importers.http1 import Message, parse
from replay.model import Exchange, exchange_id

START = re.compile(rb"([123]) (\S+) (\d{1,19})(?: (-?\d{1,19}))?(?: [^\n]*)?\n")
_SEPARATOR = "\n🐵🙈🙉\n".encode()
_BLOCK = 1 << 20
_LARGEST = 256 << 20
_PATIENCE = 120 * 1_000_000_000
_MOST_WAITING = 10_000
_REQUEST, _ANSWER = b"1", b"2"
_STATUS = re.compile(r"HTTP/1\.[01] ([1-9]\d\d)(?: |$)")


@dataclass(slots=True)
class _Waiting:
    """A request and what is known of its answer."""

    index: int
    started: int
    lasted: int
    message: Message
    answer: Message | None = None
    answered: int = 0
    ended: int = 0


def read(path: Path) -> Iterator[Item]:
    """The exchanges in order of their requests. One without an answer in the file has no status and no error."""
    digest = digest_of(path)
    lanes = Lanes(digest)
    waiting: OrderedDict[bytes, _Waiting] = OrderedDict()
    with open_plain(path) as file:
        for index, record in enumerate(_records(file)):
            yield from _take(record, index, waiting)
            yield from _ready(waiting, digest, lanes)
    while waiting:
        yield from _exchange(waiting.popitem(last=False)[1], digest, lanes)


def _records(file: BinaryIO) -> Iterator[bytes]:
    """Each record without its separator; one that grows beyond all bounds comes empty."""
    left = b""
    while block := file.read(_BLOCK):
        # Only what is new can hold a separator, but for one that lies across.
        searched = max(0, len(left) - len(_SEPARATOR))
        left += block
        if left.find(_SEPARATOR, searched) >= 0:
            *whole, left = left.split(_SEPARATOR)
            yield from whole
        elif len(left) > _LARGEST:
            yield b""
            left = b""
    if left.strip():
        yield left


def _take(record: bytes, index: int, waiting: OrderedDict[bytes, _Waiting]) -> Iterator[Item]:
    line = START.match(record)
    message = parse(record[line.end() :]) if line else None
    if line is None or message is None:
        yield NotTaken("damaged record")
        return
    kind, name, time, lasted = line[1], line[2], int(line[3]), max(0, int(line[4] or 0))
    if kind == _REQUEST:
        if name in waiting:
            yield NotTaken("request with the id of another")
        else:
            waiting[name] = _Waiting(index, time, lasted, message)
    elif kind == _ANSWER and name in waiting and waiting[name].answer is None:
        found = waiting[name]
        found.answer, found.answered, found.ended = message, time, time + lasted
    else:
        yield NotTaken("answer without its request" if kind == _ANSWER else "answer of a replay")


def _ready(waiting: OrderedDict[bytes, _Waiting], digest: bytes, lanes: Lanes) -> Iterator[Item]:
    """Those at the head of the queue that have their answer, or will hardly get one any more."""
    while waiting:
        first, last = next(iter(waiting.values())), next(reversed(waiting.values()))
        old = last.started - first.started > _PATIENCE or len(waiting) > _MOST_WAITING
        if first.answer is None and not old:
            return
        yield from _exchange(waiting.popitem(last=False)[1], digest, lanes)


def _exchange(found: _Waiting, digest: bytes, lanes: Lanes) -> Iterator[Item]:
    message, answer = found.message, found.answer
    method, _, rest = message.start.partition(" ")
    target, _, version = rest.rpartition(" ")
    if not method or not target or version not in ("HTTP/1.0", "HTTP/1.1"):
        yield NotTaken("not an HTTP/1 request")
        return
    status = _STATUS.match(answer.start) if answer else None
    yield from _notes(message, answer)
    user = name_of(digest, *(message.header(name) for name in _USER))
    ended = max(found.ended, found.started + found.lasted)
    yield Exchange(
        exchange_id=exchange_id(found.started, salt_of(digest, found.index)),
        session_id=user,
        connection_id=lanes.connection(user, found.started, ended - found.started),
        started_at=found.started,
        request_ns=found.lasted,
        ttfb_ns=max(0, found.answered - found.started) if status else None,
        duration_ns=max(0, found.ended - found.started) if status else None,
        method=method,
        scheme="http",
        host=message.header("host"),
        target=target,
        endpoint="",
        http_version=version,
        request_headers=message.headers,
        response_headers=answer.headers if answer and status else (),
        request_body=message.body,
        response_body=answer.body if answer and status else None,
        request_size=message.size,
        response_size=answer.size if answer and status else 0,
        truncated=message.cut or bool(answer and answer.cut),
        status=int(status[1]) if status else None,
        error=None,
    )


_USER = ("x-real-ip", "x-forwarded-for", "user-agent", "authorization")


def _notes(message: Message, answer: Message | None) -> Iterator[Note]:
    for side, one in (("request", message), ("response", answer)):
        if one is not None and one.cut:
            yield Note(f"{side} body cut short in the file")
        if one is not None and one.surplus:
            yield Note(f"bytes after the {side} body left out")
    if answer is None:
        yield Note("answer not in the file")
