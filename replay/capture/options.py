"""The words of capture's options: sizes, rotation, floors, session keys. Each error names the option."""

from __future__ import annotations

import re

from replay.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)(i?b)?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|m|min|h)", re.IGNORECASE)
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
SYNCS = ("segment", "second", "always")
ON_ERROR = ("pass", "stop")
SAMPLE_BY = ("session", "request")


def parse_size(text: str, option: str) -> int:
    """`64MB`, `64m` or `65536` as bytes; units are powers of 1024."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise UsageError(f"{option} {text}: write a size such as 64MB or 512k")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def parse_rotate(text: str) -> tuple[int | None, float | None]:
    """`64MB`, `5min`, or both with a comma: the bytes and the seconds after which a Parquet file is made."""
    size: int | None = None
    seconds: float | None = None
    for part in filter(None, (part.strip() for part in text.split(","))):
        time = _TIME.fullmatch(part)
        if time and time[2].lower() != "m":
            seconds = float(time[1]) * _SECONDS[time[2].lower()]
        else:
            size = parse_size(part, "--rotate")
    if size == 0 or seconds == 0 or (size is None and seconds is None):
        raise UsageError(f"--rotate {text}: write a size, a time, or both: 64MB,5min")
    return size, seconds


def parse_floor(text: str) -> float:
    """`20/min`, `1/s`, `100/h` as exchanges a minute; 0 for none."""
    if text.strip() in ("", "0"):
        return 0.0
    number, slash, unit = text.partition("/")
    seconds = _SECONDS.get(unit.strip().lower())
    try:
        rate = float(number) * 60 / (seconds or 0)
    except (ValueError, ZeroDivisionError):
        rate = -1.0
    if not slash or not rate > 0:
        raise UsageError(f"--floor {text}: write how many of each endpoint a minute: 20/min")
    return rate


def parse_session_key(text: str) -> tuple[str, str]:
    """`cookie:sid`, `header:X-User` or `query:sid` as kind and name; empty for address and user agent."""
    if not text:
        return "", ""
    kind, colon, name = text.partition(":")
    if kind not in ("cookie", "header", "query") or not colon or not name:
        raise UsageError(f"--session-key {text}: write cookie:NAME, header:NAME or query:NAME")
    return kind, name


def choice(value: str, known: tuple[str, ...], option: str) -> str:
    """The value, if it is one of the known ones."""
    if value not in known:
        raise UsageError(f"{option} {value}: choose {' or '.join(known)}")
    return value
