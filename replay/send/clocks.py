"""How far the wall clocks of two machines are apart: Cristian's algorithm, the best of several exchanges."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple
from uuid import getnode


class Offset(NamedTuple):
    """The master's clock is ahead of this one by `offset_ns`, to within `error_ns`: half of the quickest exchange."""

    offset_ns: int
    error_ns: int


SAME = Offset(0, 0)


def best(exchanges: list[tuple[int, int, int]]) -> Offset:
    """Of exchanges (sent, the other's clock, received; nanoseconds) the offset by the quickest one."""
    sent, at, received = min(exchanges, key=lambda exchange: exchange[2] - exchange[0])
    return Offset(at - (sent + received) // 2, (received - sent + 1) // 2)


@cache
def machine() -> str:
    """What tells this machine, since it was started, from others: processes on it share a clock."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{getnode():x}"
