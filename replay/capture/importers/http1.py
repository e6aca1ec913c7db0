"""A message of HTTP/1.x as raw bytes, taken apart: what the importers of raw traffic share."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass

import httptools

from replay.model import Header


@dataclass(frozen=True, slots=True)
class Message:
    """Start line and headers as they were, the body de-chunked; `size` is what the body should have had."""

    start: str
    headers: tuple[Header, ...]
    body: bytes
    size: int
    surplus: bool

    @property
    def cut(self) -> bool:
        return len(self.body) < self.size

    def header(self, name: str) -> str:
        """The first header of that name (lower case), or nothing."""
        return next((value for key, value in self.headers if key.lower() == name), "")


def parse(raw: bytes) -> Message | None:
    """The message; `None` where there is no whole head. A body that ends early is `cut`, one that is too long
    has a `surplus`, which is left out."""
    head, end, rest = raw.partition(b"\r\n\r\n")
    start, *lines = head.decode("latin-1").split("\r\n")
    if not end or not all(":" in line for line in lines):
        return None
    headers = tuple((name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines))
    return _with_body(start, headers, rest)


def _with_body(start: str, headers: tuple[Header, ...], rest: bytes) -> Message:
    framing = {name.lower(): value for name, value in headers}
    if "chunked" in framing.get("transfer-encoding", "").lower():
        body, whole = _dechunked(rest)
        return Message(start, headers, body, len(body) + (not whole), False)
    length = framing.get("content-length", "")
    if re.fullmatch("[0-9]{1,18}", length):
        size = int(length)
        return Message(start, headers, rest[:size], size, len(rest) > size)
    return Message(start, headers, rest, len(rest), False)


class _Chunks:
    def __init__(self) -> None:
        self.body = bytearray()
        self.whole = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.whole = True


def _dechunked(rest: bytes) -> tuple[bytes, bool]:
    chunks = _Chunks()
    parser = httptools.HttpRequestParser(chunks)
    parser.feed_data(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    with suppress(httptools.HttpParserError):  # what came before the damage counts
        parser.feed_data(rest)
    return bytes(chunks.body), chunks.whole
