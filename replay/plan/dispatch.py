"""Whose work an arrival is: sessions are shared out among workers by a hash every process computes alike."""

from __future__ import annotations

from fnmatch import fnmatchcase
from zlib import crc32

from replay.errors import UsageError


def share_of(session_id: str, shares: int) -> int:
    """The share (0 to shares - 1) a session belongs to: all of a session is one worker's, so order holds."""
    return crc32(session_id.encode()) % shares


class Selection:
    """Includes and excludes endpoints by patterns such as `GET`, `/orders/*` or `POST /cart*`.

    A pattern with a blank is matched against the endpoint (`GET /orders/{id}`), one that begins with a slash
    against its route, any other against its method. `*`, `?` and `[...]` are wildcards.
    """

    def __init__(self, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> None:
        for pattern in (*include, *exclude):
            if not pattern.strip():
                raise UsageError("--include and --exclude need a pattern such as 'GET' or '/orders/*'")
        self._include = include
        self._exclude = exclude
        self._known: dict[str, bool] = {}

    def takes(self, endpoint: str) -> bool:
        """Whether arrivals at this endpoint are sent."""
        if endpoint not in self._known:
            included = not self._include or any(_matches(p, endpoint) for p in self._include)
            excluded = any(_matches(p, endpoint) for p in self._exclude)
            self._known[endpoint] = included and not excluded
        return self._known[endpoint]


def _matches(pattern: str, endpoint: str) -> bool:
    method, _, route = endpoint.partition(" ")
    if " " in pattern:
        return fnmatchcase(endpoint, pattern)
    if pattern.startswith("/"):
        return fnmatchcase(route, pattern)
    return fnmatchcase(method, pattern.upper())
