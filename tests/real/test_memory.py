"""Memory does not grow with the capture: a run of eight times as many exchanges takes hardly more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench.machine import nginx, peak_mb
from tests.send.captures import steady

CONNECTIONS = 64
FEW, MANY = 25_000, 200_000


@pytest.mark.real
def test_a_long_run_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    peaks = {}
    with nginx(tmp_path / "nginx", core=None) as server:
        for count in (FEW, MANY):
            capture = steady(tmp_path / f"capture-{count}", count, 0.1, CONNECTIONS, response_body=b"x" * 500)
            run = [sys.executable, "-m", "replay", "run", str(capture), "--target", server.url]
            out = ["--out", str(tmp_path / f"run-{count}"), "--concurrency", str(CONNECTIONS)]
            peaks[count] = peak_mb([*run, *out], core=None)
    # What is read ahead and the segment that is being compacted have bounds that the short run does not reach.
    assert peaks[MANY] < peaks[FEW] + 120
    assert peaks[MANY] < 300
