"""The stream between the planner and the sender: blocks of arrivals, ready to write, over a pipe.

A block is its length (uint32, little-endian) and that many bytes of msgpack rows. An arrival is a row in the
order of `Planned`; the last row of a whole stream is an `END` row with the planner's counts, or an `ERROR`
row with one line that says what went wrong. A stream that ends without either was cut off.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import msgpack

BLOCK_BYTES = 16 << 10
LENGTH = struct.Struct("<I")
END = "end"
ERROR = "error"

_pack = msgpack.Packer().pack


class Planned(NamedTuple):
    """One arrival as the sender needs it.

    `place` is its place in the whole plan, `share` which share of the sessions it is of. `ends` are lanes that the
    recording closed after this arrival. `identity` is five packed columns that open the result's row: exchange_id,
    lap, session_id, connection_id, endpoint. `changed` is (sent_head, sent_body) where the bytes are not the captured
    ones. `causal` is the session's number, the arrival's number in it, the numbers it awaits, and whether it is the
    session's last; `None` for an arrival that is alone in its session. `script` (see `replay.plan.requests`) and
    `takes` (`replay.plan.correlate`) say what of the session's earlier answers goes into the request, which is not in
    `wire` then, and what of its own answer is kept. `unbound` is told by the sender: values that were wanted and not
    there.
    """

    due_ns: int
    place: int
    lane: int
    ends: tuple[int, ...]
    identity: bytes
    causal: tuple[int, int, tuple[int, ...], bool] | None
    share: int
    endpoint: str
    method: str
    exact: bool
    wire: bytes
    changed: tuple[bytes, bytes] | None = None
    skipped: str | None = None
    script: Any = None
    takes: Any = ()
    unbound: str | None = None


VARYING = Planned._fields.index("share")
"""The fields before this one are others in each lap; those from here on are the same."""
FIELDS = len(Planned._fields)


def pack_identity(exchange_id: str, lap: int, session_id: str, connection_id: str, endpoint: str) -> bytes:
    """The first five columns of a result, packed one after the other."""
    # An array of five, without the byte that says so.
    packed: bytes = _pack((exchange_id, lap, session_id, connection_id, endpoint))[1:]
    return packed


def pack_arrival(arrival: Planned) -> bytes:
    """One row of a block."""
    packed: bytes = _pack(arrival)
    return packed


def pack_last(kind: str, payload: Any) -> bytes:
    """The row that ends a stream: `END` with counts, or `ERROR` with a message."""
    packed: bytes = _pack([kind, payload])
    return packed


def unpack_block(block: bytes) -> list[list[Any]]:
    """The rows of a block, each the fields of `Planned` in order, or an `END` or `ERROR` row."""
    unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=max(1, len(block)))
    unpacker.feed(block)
    return list(unpacker)
