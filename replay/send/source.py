"""Where the sender's arrivals come from: the planner's stream, read ahead by a native thread.

Blocks are kept undecoded (a few tens of megabytes at most) and decoded one at a time as they are needed, so
reading ahead costs the sending thread nothing and memory stays flat.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.monkey
import gevent.threadpool

from replay.errors import InputError, ReplayError
from replay.send.lean import environment
from replay.send.plan_stream import END, ERROR, LENGTH, Planned, unpack_block
from replay.send.planner import Order

AHEAD_BYTES = 64 << 20
_READY_BYTES = 48 << 20
_LOW_BYTES = 16 << 20
_POLL_S = 0.002
_FULL_S = 0.02
# Between two blocks while the sender runs and has enough: a planner that is let run without a pause takes
# half of a core that it shares with the sender, in slices of milliseconds.
_GENTLE_S = 0.003

_native_close = gevent.monkey.get_original("os", "close")
_native_sleep = gevent.monkey.get_original("time", "sleep")


class Source:
    """Starts a planner and reads its stream. Iterating waits, cooperatively, where the planner is behind."""

    def __init__(self, order: Order) -> None:
        self.counts: dict[str, int] = {}
        """The planner's closing counts, known once all arrivals have been taken."""
        self._blocks: deque[bytes] = deque()
        self._taken = 0
        self._read = 0
        self._ended = False
        self._stopped = False
        self._ready = False
        # A pipe of our own: gevent's would be nonblocking, and the thread's reads are meant to block.
        self._descriptor, writing = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "replay.send.planner"],
            stdin=subprocess.PIPE,
            stdout=writing,
            env=environment(),
        )
        os.close(writing)
        assert self._process.stdin is not None
        # Not on the command line, which everybody may read: headers that are set may be secrets.
        with self._process.stdin as orders:
            orders.write(order.to_json().encode())
        self._pool = gevent.threadpool.ThreadPool(1)
        self._pool.spawn(self._read_ahead)

    @property
    def waits(self) -> bool:
        """Whether the next arrival may not be there yet."""
        return not self._blocks and not self._ended

    def wait_ready(self, size: int = _READY_BYTES) -> None:
        """Wait until enough is read ahead to start: all of it, or `size` bytes."""
        while not self._ended and self._read < size:
            gevent.sleep(_POLL_S)
        self._ready = True
        if self._blocks:
            self._check(unpack_block(self._blocks[0])[-1])

    def __iter__(self) -> Iterator[Planned]:
        make = Planned._make
        while True:
            while not self._blocks:
                if self._ended:
                    raise InputError("the planner died: see its message above; the capture may be damaged")
                gevent.sleep(_POLL_S)
            block = self._blocks.popleft()
            self._taken += len(block)
            rows = unpack_block(block)
            last = rows[-1]
            if last[0] in (END, ERROR):
                rows.pop()
                yield from map(make, rows)
                self._check(last)
                self.counts = dict(last[1])
                return
            yield from map(make, rows)

    def close(self) -> None:
        """Stop the planner, wherever it is."""
        self._stopped = True
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()

    def _check(self, row: Any) -> None:
        if row[0] == ERROR:
            raise ReplayError(row[1])

    def _read_ahead(self) -> None:
        """Runs in a native thread: blocking reads, away from the event loop."""
        try:
            while not self._stopped and (length := self._exactly(LENGTH.size)):
                block = self._exactly(LENGTH.unpack(length)[0])
                if block is None:
                    return
                self._blocks.append(block)
                self._read += len(block)
                if self._ready and self._read - self._taken > _LOW_BYTES:
                    _native_sleep(_GENTLE_S)
                while self._read - self._taken > AHEAD_BYTES and not self._stopped:
                    _native_sleep(_FULL_S)
        finally:
            self._ended = True
            _native_close(self._descriptor)

    def _exactly(self, size: int) -> bytes | None:
        data = b""
        while len(data) < size:
            more = os.read(self._descriptor, size - len(data))
            if not more:
                return None
            data += more
        return data
