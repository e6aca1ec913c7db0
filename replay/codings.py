"""Content encodings undone, from the last applied to the first (RFC 9110, 8.4)."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import brotli  # type: ignore[import-untyped]
import zstandard

MAX_DECODED = 32 << 20
"""Bytes a compressed body may grow to; what lies beyond is cut off, and said. A bomb stays a small thing."""


def decode(body: bytes, encodings: str) -> tuple[bytes, str]:
    """The body with its content encodings undone, and what went wrong ("" if nothing did)."""
    for encoding in reversed([name.strip().lower() for name in encodings.split(",")]):
        decoder = _DECODERS.get(encoding)
        if decoder is None:
            if encoding not in ("identity", ""):
                return body, f"content-encoding {encoding[:20]} is not known here"
            continue
        if not body:
            continue
        try:
            body = decoder(body)
        except (zlib.error, brotli.error, zstandard.ZstdError, ValueError) as error:
            return body, f"is not {encoding}: {str(error)[:80]}"
        if len(body) > MAX_DECODED:
            return body[:MAX_DECODED], f"cut at {MAX_DECODED >> 20} MiB while decoding {encoding}"
    return body, ""


def _gunzip(body: bytes) -> bytes:
    out = b""
    while body and len(out) <= MAX_DECODED:  # a gzip body may have several members (RFC 1952, 2.2)
        member = zlib.decompressobj(31)
        out += member.decompress(body, MAX_DECODED + 1 - len(out))
        body = member.unused_data
        if not member.eof and len(out) <= MAX_DECODED:
            raise ValueError("it ends early")
    return out


def _inflate(body: bytes) -> bytes:
    # "deflate" is the zlib format (RFC 9110, 8.4.1.2), but servers have always sent bare deflate too.
    try:
        return zlib.decompressobj().decompress(body, MAX_DECODED + 1)
    except zlib.error:
        return zlib.decompressobj(-15).decompress(body, MAX_DECODED + 1)


def _brotli(body: bytes) -> bytes:
    decompressor = brotli.Decompressor()
    out = bytearray()
    for start in range(0, len(body), 1 << 14):
        out += decompressor.process(body[start : start + (1 << 14)])
        if len(out) > MAX_DECODED:
            return bytes(out)
    if not decompressor.is_finished():
        raise ValueError("it ends early")
    return bytes(out)


def _unzstd(body: bytes) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as reader:
        return bytes(reader.read(MAX_DECODED + 1))


_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _inflate,
    "br": _brotli,
    "zstd": _unzstd,
}
