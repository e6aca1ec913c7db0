"""Machines for tests: network namespaces, each with one link to this one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest


class Networks:
    """`count` namespaces that reach this machine at `address`; each has a link that can be taken down."""

    def __init__(self, count: int) -> None:
        self._mark = f"{os.getpid() & 0xFFFFF:05x}"
        self.address = ""
        self.names = [f"replay-{self._mark}-{number}" for number in range(count)]

    def make(self, undo: ExitStack) -> None:
        """Make it all; `undo` takes it apart."""
        bridge = f"rb{self._mark}"
        _ip("link", "add", bridge, "type", "bridge")
        undo.callback(_ip, "link", "del", bridge)
        network = self._free_network(bridge)
        self.address = f"{network}.254"
        _ip("link", "set", bridge, "up")
        for number, name in enumerate(self.names):
            _ip("netns", "add", name)
            undo.callback(_ip, "netns", "del", name)
            _ip("link", "add", self._link(number), "type", "veth", "peer", "name", "eth0", "netns", name)
            undo.callback(
                subprocess.run, ["ip", "link", "del", self._link(number)], capture_output=True, check=False
            )
            _ip("link", "set", self._link(number), "master", bridge, "up")
            _ip("-n", name, "addr", "add", f"{network}.{number + 1}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")

    def inside(self, number: int) -> list[str]:
        """What to put before a command to run it in a namespace."""
        return ["ip", "netns", "exec", self.names[number]]

    def cut(self, number: int) -> None:
        """Take a namespace's link down."""
        _ip("link", "set", self._link(number), "down")

    def mend(self, number: int) -> None:
        """Take it up again."""
        _ip("link", "set", self._link(number), "up")

    def _link(self, number: int) -> str:
        return f"rv{self._mark}{number}"

    def _free_network(self, bridge: str) -> str:
        for third in range(int(self._mark, 16) % 200, 255):
            network = f"10.213.{third}"
            if f"{network}." not in subprocess.run(["ip", "addr"], capture_output=True, text=True).stdout:
                _ip("addr", "add", f"{network}.254/24", "dev", bridge)
                return network
        raise AssertionError("no free network")


@contextmanager
def networks(count: int) -> Iterator[Networks]:
    """Namespaces, taken apart in the end; skips the test where they cannot be made."""
    made = Networks(count)
    with ExitStack() as undo:
        try:
            made.make(undo)
        except (OSError, subprocess.CalledProcessError) as error:
            told = getattr(error, "stderr", None) or str(error)
            pytest.skip(f"network namespaces cannot be made here: {told.strip()}")
        yield made


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=20)
