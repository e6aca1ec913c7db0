"""A free port for a server that is started a little later.

The kernel hands ports of its ephemeral range to whoever asks for any, at any time; one that is outside of it stays
free until somebody asks for that very one. So none is taken by chance between its choice and the server's start.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOWEST = 20_000
_TRIES = 100
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port of the loopback interface that nobody listens at, nor is given unless asked for by number."""
    low, high = _ephemeral()
    for _ in range(_TRIES):
        port = random.randrange(_LOWEST, 65_536)
        if not low <= port <= high and _is_free(port):
            return port
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _ephemeral() -> tuple[int, int]:
    try:
        low, high = map(int, _RANGE.read_text().split())
    except (OSError, ValueError):
        return 32_768, 60_999  # Linux's own choice
    return low, high


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
