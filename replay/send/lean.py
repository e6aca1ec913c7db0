"""What the sender's helper processes are started with: they run beside it, so they have to stay small.

Arrow's own allocator keeps what it once had, and glibc keeps an arena for each of Arrow's threads: together a
hundred megabytes and more that nobody uses.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from gevent import GreenletExit

_LEAN = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}


def environment() -> dict[str, str]:
    """This process's environment, and what keeps memory low; what the user has set stays."""
    return {**_LEAN, **os.environ}


def waited_for(process: Any) -> int:
    """The exit code of a process that must not be left half-way because the run was stopped."""
    while True:
        with suppress(GreenletExit):
            return int(process.wait())
