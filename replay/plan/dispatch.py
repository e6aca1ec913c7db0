"""Whose work an arrival is, and whether it is sent at all.

Sessions are shared out among workers by a hash every process computes alike. Only safe methods (RFC 9110,
9.2.1) are sent unless writes are asked for: what changes data in production changes it in staging too.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from zlib import crc32

from replay.errors import UsageError

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
ALL = "all"

EXCLUDED, WRITE, DENIED = "excluded", "writes", "denied"
"""Why an exchange of the capture is left out of a run; in the books under these names."""


def share_of(session_id: str, shares: int) -> int:
    """The share (0 to shares - 1) a session belongs to: all of a session is one worker's, so order holds.

    Shares are ranges of the hash: however many there are, neighbours lie together in a capture (`replay.store.tables`).
    """
    return crc32(session_id.encode()) * shares >> 32


class Selection:
    """Includes and excludes endpoints by patterns such as `GET`, `/orders/*` or `POST /cart*`.

    A pattern with a blank is matched against the endpoint (`GET /orders/{id}`), one that begins with a slash
    against its route, any other against its method. `*`, `?` and `[...]` are wildcards. `writes` are the
    patterns of what may be sent although its method is not safe, `all` for everything; `deny` is never sent.
    """

    def __init__(
        self,
        include: tuple[str, ...] = (),
        exclude: tuple[str, ...] = (),
        writes: tuple[str, ...] = (ALL,),
        deny: tuple[str, ...] = (),
    ) -> None:
        for option, patterns in (
            ("--include and --exclude", (*include, *exclude)),
            ("--writes", writes),
            ("--deny", deny),
        ):
            if not all(pattern.strip() for pattern in patterns):
                raise UsageError(f"{option}: write a pattern such as 'GET' or '/orders/*'")
        self._include = include
        self._exclude = exclude
        self._writes = tuple("*" if pattern.lower() == ALL else pattern for pattern in writes)
        self._deny = deny
        self._known: dict[tuple[str, str], str | None] = {}

    def takes(self, endpoint: str, method: str | None = None) -> bool:
        """Whether arrivals at this endpoint are sent."""
        return self.left_out(endpoint, method or endpoint.partition(" ")[0]) is None

    def left_out(self, endpoint: str, method: str) -> str | None:
        """Why this is not sent (one of the reasons above), or `None`: it is. `method` is the one on the wire."""
        key = (endpoint, method)
        if key not in self._known:
            self._known[key] = self._judge(endpoint, method)
        return self._known[key]

    def denies(self, request: str) -> bool:
        """Whether a method and a path are denied."""
        return _any(self._deny, request)

    def _judge(self, endpoint: str, method: str) -> str | None:
        if _any(self._deny, endpoint):
            return DENIED
        if (self._include and not _any(self._include, endpoint)) or _any(self._exclude, endpoint):
            return EXCLUDED
        if method not in SAFE_METHODS and not _any(self._writes, endpoint):
            return WRITE
        return None


def _any(patterns: tuple[str, ...], endpoint: str) -> bool:
    return any(_matches(pattern, endpoint) for pattern in patterns)


def _matches(pattern: str, endpoint: str) -> bool:
    method, _, route = endpoint.partition(" ")
    if " " in pattern:
        return fnmatchcase(endpoint, pattern)
    if pattern.startswith("/"):
        return fnmatchcase(route, pattern)
    return fnmatchcase(method, pattern.upper())
