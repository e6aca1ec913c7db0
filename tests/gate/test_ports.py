"""Ports for servers that start a little later: nobody is given one of them by chance meanwhile."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from replay.verbs import ports


def test_a_free_port_is_not_one_that_the_kernel_hands_out() -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    found = {ports.free_port() for _ in range(20)}
    assert len(found) > 10
    assert not any(low <= port <= high for port in found)


def test_one_that_is_taken_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "_ephemeral", lambda: (0, 0))
        monkeypatch.setattr(ports.random, "randrange", lambda low, high: port)
        assert ports.free_port() != port


def test_where_the_range_is_not_known_it_is_linuxs_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ports, "_RANGE", tmp_path / "none")
    assert not 32_768 <= ports.free_port() <= 60_999
