"""Letting the event loop have its turn, at once and for exactly one round.

`gevent.sleep(0)` does not do this: callbacks that keep yielding to each other run for up to 5 ms (the
interpreter's switch interval) before gevent looks at any socket. A descriptor that is always readable makes
the loop poll, serve whatever else is readable, and come back without waiting.
"""

from __future__ import annotations

import os
from typing import Any

import gevent
import greenlet

_READ = 1


class Turns:
    """Belongs to one greenlet, which calls `give`; close it after use."""

    def __init__(self) -> None:
        self._hub: Any = gevent.get_hub()
        self._reading, self._writing = os.pipe()
        os.write(self._writing, b"x")
        self._watcher = self._hub.loop.io(self._reading, _READ)

    def give(self) -> None:
        """Return after the event loop has served every descriptor that is ready now."""
        self._watcher.start(greenlet.getcurrent().switch)
        try:
            self._hub.switch()
        finally:
            self._watcher.stop()

    def close(self) -> None:
        """Release the descriptors."""
        self._watcher.close()
        os.close(self._reading)
        os.close(self._writing)
