"""The spool between the proxy and the recorder: bounded, and never in the way.

The proxy's thread only appends to a deque. A daemon thread empties it into the recorder's pipe, in large
writes; what the pipe does to that thread is nobody else's concern. When the spool is full, or the recorder is
gone, frames are dropped and counted, and traffic goes on.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

import msgpack

_PAUSE = 0.02
_REPORT_EVERY = 1.0
_LARGEST_WRITE = 1 << 20


class Spool:
    """Takes frames from one thread; `start` gives it the pipe's descriptor, `close` ends it.

    `report` returns totals for the books; they are sent as a map whenever they changed, and at the end.
    `on_broken` is called once, from the spool's thread, when the recorder is gone.
    """

    def __init__(
        self,
        *,
        most_rows: int,
        most_bytes: int,
        report: Callable[[], Mapping[str, Any]],
        on_broken: Callable[[str], None],
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self.broken = False
        self._most_rows = most_rows
        self._most_bytes = most_bytes
        self._report = report
        self._on_broken = on_broken
        self._frames: deque[bytes] = deque()
        # Each counter is written by one thread only; their difference is what is in the spool.
        self._put_bytes = 0
        self._taken_bytes = 0
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, frame: bytes) -> None:
        """Take a frame, or drop and count it. Never waits."""
        if self.broken:
            self.dropped["recorder gone"] += 1
        elif (
            len(self._frames) >= self._most_rows
            or self._put_bytes - self._taken_bytes + len(frame) > self._most_bytes
        ):
            self.dropped["queue full"] += 1
        else:
            self._put_bytes += len(frame)
            self._frames.append(frame)

    def start(self, descriptor: int) -> None:
        """Begin to write to `descriptor`, which the spool owns from here on."""
        self._thread = threading.Thread(
            target=self._run, args=(descriptor,), name="replay-spool", daemon=True
        )
        self._thread.start()

    def close(self, timeout: float) -> bool:
        """Write what is left, close the pipe. Whether that was done within `timeout` seconds."""
        self._closing.set()
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self, descriptor: int) -> None:
        try:
            self._write_until_closed(descriptor)
        except OSError as error:
            self.broken = True
            lost = len(self._frames)
            self._frames.clear()
            self.dropped["recorder gone"] += lost
            self._on_broken(error.strerror or str(error))
        finally:
            os.close(descriptor)

    def _write_until_closed(self, descriptor: int) -> None:
        told: Mapping[str, Any] = {}
        next_report = time.monotonic()
        closing = False
        while not closing:
            # Asked before the spool is emptied, so that nothing put before the end stays in it.
            closing = self._closing.is_set()
            while batch := self._take():
                _write(descriptor, batch)
            if closing or time.monotonic() >= next_report:
                totals = self._report()
                if totals != told:
                    _write(descriptor, msgpack.packb(totals))
                    told = totals
                next_report = time.monotonic() + _REPORT_EVERY
            if not closing:
                self._closing.wait(_PAUSE)

    def _take(self) -> bytes:
        frames: list[bytes] = []
        size = 0
        while self._frames and size < _LARGEST_WRITE:
            frames.append(self._frames.popleft())
            size += len(frames[-1])
        self._taken_bytes += size
        return b"".join(frames)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
