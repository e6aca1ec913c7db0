"""Ten thousand connections at once on one worker, each with two requests, against a real nginx."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from replay.config import RunSettings
from replay.store.reader import Dataset
from replay.verbs.run import replay_run
from tests.bench.machine import many_files, nginx
from tests.rows import T0, exchange
from tests.send.captures import write

CONNECTIONS = 10_000


@pytest.mark.real
def test_ten_thousand_connections_at_once(tmp_path: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < CONNECTIONS + 500:
        pytest.skip(f"this machine allows fewer than {CONNECTIONS:,} open files (ulimit -Hn)")
    many_files()
    # All have asked once before any asks again: until then every one of them has to stay open.
    capture = write(
        tmp_path / "capture",
        (
            exchange(
                turn * CONNECTIONS + number,
                started_at=T0 + turn * 5_000_000_000 + number * 400_000,
                connection_id=f"c{number}",
                session_id=f"s{number}",
                duration_ns=100_000,
            )
            for turn in range(2)
            for number in range(CONNECTIONS)
        ),
    )
    with nginx(tmp_path / "nginx", core=None) as server:
        summary = replay_run(capture, server.url, tmp_path / "run", RunSettings())
    assert summary.balanced
    assert summary.books["answered"] == 2 * CONNECTIONS
    reused = [row.reused for row in Dataset.open(tmp_path / "run", "run").rows()]
    assert reused.count(False) == CONNECTIONS
    assert reused.count(True) == CONNECTIONS
