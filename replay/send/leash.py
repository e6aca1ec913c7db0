"""How far a pump may go."""

from __future__ import annotations

NEVER = 1 << 62
HELD = -1


class Leash:
    """How far the pump may go: it sends no arrival whose key is `until` or beyond. `place` is how far it has come."""

    __slots__ = ("place", "until")

    def __init__(self, until: int = NEVER) -> None:
        self.until = until
        self.place = 0
