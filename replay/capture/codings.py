"""Content codings: a body opened for the search, and closed again where something was replaced."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import brotli  # type: ignore[import-untyped]
import zstandard

from replay.model import Header

_LARGEST_DECODED = 64 << 20


@dataclass(frozen=True, slots=True)
class Plain:
    """A body with its codings taken off: how to put them on again, and whether that was possible."""

    data: bytes
    codings: tuple[str, ...] = ()
    broken: bool = False


def codings_of(headers: Sequence[Header]) -> tuple[str, ...]:
    values = [value for name, value in headers if name.lower() == "content-encoding"]
    names = (name.strip().lower().removeprefix("x-") for value in values for name in value.split(","))
    return tuple(name for name in names if name in ("gzip", "deflate", "br", "zstd"))


def open_body(body: bytes, codings: tuple[str, ...]) -> Plain:
    data = body
    used: list[str] = []
    for coding in reversed(codings):
        if coding == "deflate" and not _has_zlib_header(data):
            coding = "raw deflate"
        try:
            opened = _DECODERS[coding](data)
        except (zlib.error, brotli.error, zstandard.ZstdError, _TooLargeError):
            if used or _looks_like(data, coding):
                return Plain(b"", broken=True)
            # The header names a coding that the body does not have: it is searched as it is.
            return Plain(body)
        used.append(coding)
        data = opened
    return Plain(data, tuple(reversed(used)))


class _TooLargeError(Exception):
    """A body that grows beyond reason as it is opened."""


def _inflated(data: bytes, window: int) -> bytes:
    """Inflated data, as far as a cut body goes; gzip may come in several members."""
    whole = bytearray()
    while data:
        decoder = zlib.decompressobj(window)
        whole += decoder.decompress(data, _LARGEST_DECODED)
        if decoder.unconsumed_tail or len(whole) > _LARGEST_DECODED:
            raise _TooLargeError
        data = decoder.unused_data if decoder.unused_data.startswith(b"\x1f\x8b") else b""
    return bytes(whole)


def _unbrotli(data: bytes) -> bytes:
    decoder = brotli.Decompressor()
    whole = bytearray()
    for start in range(0, len(data), 1024):
        whole += decoder.process(data[start : start + 1024])
        if len(whole) > _LARGEST_DECODED:
            raise _TooLargeError
    return bytes(whole)


def _unzstd(data: bytes) -> bytes:
    # Read by parts: what a cut body still holds comes out before the end is missed.
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data, read_across_frames=True)
    whole = bytearray()
    while part := reader.read(1 << 20):
        whole += part
        if len(whole) > _LARGEST_DECODED:
            raise _TooLargeError
    return bytes(whole)


def _looks_like(data: bytes, coding: str) -> bool:
    if coding == "gzip":
        return data.startswith(b"\x1f\x8b")
    if coding == "zstd":
        return data.startswith(b"\x28\xb5\x2f\xfd")
    # Neither brotli nor deflate has a mark: what is not text may be a damaged one.
    return any(byte < 9 or byte > 126 for byte in data[:64])


def _has_zlib_header(data: bytes) -> bool:
    return len(data) > 1 and data[0] & 0x0F == 8 and int.from_bytes(data[:2]) % 31 == 0


def close_body(data: bytes, plain: Plain) -> bytes:
    for coding in plain.codings:
        data = _ENCODERS[coding](data)
    return data


def _deflated(data: bytes, window: int) -> bytes:
    encoder = zlib.compressobj(6, zlib.DEFLATED, window)
    return encoder.compress(data) + encoder.flush()


_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: _inflated(data, 31),
    "deflate": lambda data: _inflated(data, 15),
    "raw deflate": lambda data: _inflated(data, -15),
    "br": _unbrotli,
    "zstd": _unzstd,
}
_ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: _deflated(data, 31),
    "deflate": lambda data: _deflated(data, 15),
    "raw deflate": lambda data: _deflated(data, -15),
    "br": lambda data: bytes(brotli.compress(data, quality=4)),
    "zstd": lambda data: zstandard.ZstdCompressor(level=3).compress(data),
}
