"""What to record at all: `--only` and `--skip` by method, host, path, status or header.

An exchange is recorded if, of every field that `--only` names, one of its patterns fits, and no `--skip` does.
Patterns are shell patterns: `path:/api/*`, `status:5xx`, `host:*.example.com`, `header:X-Debug=*`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from replay.capture.endpoints import path_of
from replay.errors import UsageError
from replay.model import Header

FIELDS = ("method", "host", "path", "status", "header")


@dataclass(frozen=True, slots=True)
class Seen:
    """Of an exchange, what filters look at."""

    method: str
    host: str
    target: str
    status: int | None
    headers: Sequence[Header]


class Filters:
    """`only` and `skip` as given; raises `UsageError` for one that cannot be read."""

    def __init__(self, only: Sequence[str] = (), skip: Sequence[str] = ()) -> None:
        self._only = [_parse(text, "--only") for text in only]
        self._skip = [_parse(text, "--skip") for text in skip]

    def reason(self, seen: Seen) -> str | None:
        """Why the exchange is not recorded, or `None` where it is."""
        for field in {field for field, _ in self._only}:
            if not any(_fits(seen, field, pattern) for name, pattern in self._only if name == field):
                return f"not in --only {field}"
        for field, pattern in self._skip:
            if _fits(seen, field, pattern):
                return f"--skip {field}:{pattern}"
        return None

    def __bool__(self) -> bool:
        return bool(self._only or self._skip)


def _parse(text: str, option: str) -> tuple[str, str]:
    field, colon, pattern = text.partition(":")
    if field not in FIELDS or not colon or not pattern:
        raise UsageError(f"{option} {text}: write FIELD:PATTERN, the field one of {', '.join(FIELDS)}")
    if field == "method":
        return field, pattern.upper()
    return field, pattern.lower().replace("x", "?") if field == "status" else pattern


def _fits(seen: Seen, field: str, pattern: str) -> bool:
    if field == "header":
        name, equals, value = pattern.partition("=")
        return any(
            key.lower() == name.lower() and (not equals or fnmatchcase(text, value))
            for key, text in seen.headers
        )
    return fnmatchcase(_value(seen, field), pattern)


def _value(seen: Seen, field: str) -> str:
    if field == "method":
        return seen.method
    if field == "host":
        return seen.host
    if field == "path":
        return path_of(seen.target) or seen.target
    return str(seen.status or "none")
