"""Sampling without memory or talk: a keyed hash of the session key decides, so all processes decide alike.

The hash is keyed so that nobody outside can choose to be recorded, or not; the same key also turns session
keys (a client address and what it says it is) into the pseudonymous session ids that stand on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from urllib.parse import parse_qsl

from replay.errors import UsageError
from replay.model import Header

_SPACE = 1 << 64


def keep(session_key: bytes, probability: float, key: bytes) -> bool:
    """Whether the session is in the sample. A session kept at 5 % is also kept at every higher share."""
    return _hash(session_key, key, b"sample") < probability * _SPACE


def parse_share(text: str) -> float:
    """`5%`, `0.05` or `1` as a probability above 0 and at most 1; `UsageError` for anything else."""
    number, percent, rest = text.strip().partition("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = 0.0
    if rest or not 0 < share <= 1:
        raise UsageError(f"--sample {text}: give a share above 0 and up to 100 %, such as 5% or 0.05")
    return share


def weight(probability: float) -> float:
    """1 / inclusion probability: what one kept exchange stands for (Horvitz and Thompson, 1952)."""
    return 1.0 / probability


def session_id(session_key: bytes, key: bytes) -> str:
    """The pseudonym under which the session stands on disk: 16 hex digits."""
    return f"{_hash(session_key, key, b'session'):016x}"


def session_key(
    client_address: str,
    headers: Sequence[Header],
    *,
    target: str = "",
    connection: str = "",
    by: tuple[str, str] = ("", ""),
) -> bytes:
    """What tells clients apart: a cookie, header or query parameter where `by` names one and it is there;
    else the client's address and user agent; else the connection."""
    named = _named(by, headers, target)
    if named:
        return f"{by[0]}\0{named}".encode("utf-8", "surrogateescape")
    agent = next((value for name, value in headers if name.lower() == "user-agent"), "")
    if not client_address and not agent:
        return f"connection\0{connection}".encode("utf-8", "surrogateescape")
    return f"{client_address}\0{agent}".encode("utf-8", "surrogateescape")


def _named(by: tuple[str, str], headers: Sequence[Header], target: str) -> str:
    kind, name = by
    if kind == "header":
        return next((value for key, value in headers if key.lower() == name.lower()), "")
    if kind == "query":
        return dict(reversed(parse_qsl(target.partition("?")[2], encoding="latin-1"))).get(name, "")
    if kind == "cookie":
        lines = (value for key, value in headers if key.lower() == "cookie")
        pairs = (pair.strip().partition("=") for line in lines for pair in line.split(";"))
        return next((value for key, _, value in pairs if key == name), "")
    return ""


class Floor:
    """At least some of every endpoint: beside the sample, each exchange has a second chance.

    The chance depends only on how many of the endpoint were seen before, never on what was kept, so the
    probability of being in the sample is known, and 1 / it weighs without bias. `per_minute` is the aim.
    """

    def __init__(self, per_minute: float) -> None:
        self._aim = per_minute
        self._minute = 0
        self._now: dict[str, int] = {}
        self._before: dict[str, int] = {}

    def chance(self, endpoint: str, started_at: int) -> float:
        """The probability for the next exchange of the endpoint; `started_at` in nanoseconds."""
        minute = started_at // 60_000_000_000
        if minute > self._minute:
            self._before = self._now if minute == self._minute + 1 else {}
            self._now, self._minute = {}, minute
        seen = self._now[endpoint] = self._now.get(endpoint, 0) + 1
        return min(1.0, self._aim / max(seen, self._before.get(endpoint, 0)))


def included(share: float, chance: float) -> float:
    """The probability of being kept by the sample or by the floor, drawn apart from each other."""
    return 1.0 - (1.0 - share) * (1.0 - chance)


def _hash(data: bytes, key: bytes, purpose: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8, key=key[:64], person=purpose).digest())
