"""Memory does not grow with the exchanges, neither of a run nor of a capture."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from replay.verbs.capture import CaptureProcess, CaptureSettings
from tests.bench.capturing import through
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


@pytest.mark.real
def test_a_long_capture_takes_no_more_memory_than_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLAY_KEY", "0123456789abcdef0123456789abcdef")
    with nginx(tmp_path / "nginx", core=None) as server:
        capture = CaptureProcess(
            CaptureSettings(out=tmp_path / "capture", upstream=server.url, listen="127.0.0.1:0", rotate="1MB")
        )
        _, port = capture.start()
        try:
            processes = psutil.Process().children(recursive=True)
            proxy, recorder = (
                next(child for child in processes if word in " ".join(child.cmdline()))
                for word in ("mitmproxy.tools", "replay.capture.recorder")
            )
            sizes = []
            for seconds in (4, 12):
                through(port, seconds)
                sizes.append([process.memory_info().rss >> 20 for process in (proxy, recorder)])
            books = capture.stop().books
        finally:
            capture.kill()
    assert books["written"] > 1_000
    (proxy_before, recorder_before), (proxy_after, recorder_after) = sizes
    assert proxy_after < proxy_before + 16
    assert recorder_after < recorder_before + 64
