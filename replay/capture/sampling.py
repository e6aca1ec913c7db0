"""Sampling without memory or talk: a keyed hash of the session key decides, so all processes decide alike.

The hash is keyed so that nobody outside can choose to be recorded, or not; the same key also turns session
keys (a client address and what it says it is) into the pseudonymous session ids that stand on disk.
"""

from __future__ import annotations

from hashlib import blake2b

from replay.errors import UsageError

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


def session_key(client_address: str, headers: list[tuple[str, str]]) -> bytes:
    """What tells clients apart where nothing better is configured: address and user agent."""
    agent = next((value for name, value in headers if name.lower() == "user-agent"), "")
    return f"{client_address}\0{agent}".encode("utf-8", "surrogateescape")


def _hash(data: bytes, key: bytes, purpose: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8, key=key[:64], person=purpose).digest())
