"""What is sent again, lap after lap, is planned once.

From lap to lap a plan only differs in when each arrival is due, and in numbers that count on: of the lap, of lanes
and of sessions. Everything else is kept packed, up to so many bytes; a longer capture is planned anew in each lap.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgpack

from replay.send.plan_stream import FIELDS, VARYING, Planned, pack_arrival

MOST_BYTES = 48 << 20

_ROW_BYTES = 500
_BESIDE_BYTES = 50
"""What keeping a row costs besides its bytes, and what one of another worker costs."""

_pack = msgpack.Packer().pack
_OPENING = b"\xdc" + FIELDS.to_bytes(2, "big")
"""An array of that many items, as msgpack opens one of 16 or more; its two parts are shorter and open with a byte."""
assert VARYING < 16 <= FIELDS < 16 + VARYING


class Kept(NamedTuple):
    """An arrival of the first lap, as the later ones need it."""

    share: int
    lane: int
    ends: tuple[int, ...]
    before_lap: bytes
    after_lap: bytes
    causal: tuple[int, int, tuple[int, ...], bool] | None
    rest: bytes


class Laps:
    """The first lap's plan. `whole` once it has ended, if it was short enough."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self.whole = False
        self._most = most
        self._rows: list[tuple[int, Kept | None]] = []
        self._lanes = self._sessions = 0

    def keep(self, recorded: int, exchange_id: str, arrival: Planned) -> bytes:
        """The row of an arrival of the first lap, `recorded` so many nanoseconds after the capture's first one."""
        if self._most <= 0:
            return pack_arrival(arrival)
        before = _pack(exchange_id)
        # The lap follows the exchange's id; the first one is a byte.
        after = arrival.identity[len(before) + 1 :]
        rest = _pack(arrival[VARYING:])[1:]
        kept = Kept(arrival.share, arrival.lane, arrival.ends, before, after, arrival.causal, rest)
        self._add(recorded, kept, len(before) + len(after) + len(rest) + _ROW_BYTES)
        return b"%b%b%b" % (_OPENING, _pack(arrival[:VARYING])[1:], rest)

    def pass_by(self, recorded: int) -> None:
        """An arrival that another worker sends."""
        if self._most > 0:
            self._add(recorded, None, _BESIDE_BYTES)

    def end(self, lanes: int, sessions: int) -> None:
        """The first lap is over; it has numbered that many lanes and sessions."""
        self._lanes, self._sessions = lanes, sessions
        self.whole = self._most > 0

    def __iter__(self) -> Iterator[tuple[int, Kept | None]]:
        return iter(self._rows)

    def pack(self, lap: int, due_ns: int, index: int, kept: Kept) -> bytes:
        """The row of the stream for an arrival in a later lap."""
        lanes, causal = lap * self._lanes, kept.causal
        if causal is not None:
            causal = (causal[0] + lap * self._sessions, *causal[1:])
        ends = tuple(lane + lanes for lane in kept.ends) if kept.ends else ()
        identity = b"%b%b%b" % (kept.before_lap, _pack(lap), kept.after_lap)
        varying: tuple[Any, ...] = (due_ns, index, kept.lane + lanes, ends, identity, causal)
        return b"%b%b%b" % (_OPENING, _pack(varying)[1:], kept.rest)

    def _add(self, recorded: int, kept: Kept | None, size: int) -> None:
        self._rows.append((recorded, kept))
        self._most -= size
        if self._most <= 0:
            self._rows.clear()
