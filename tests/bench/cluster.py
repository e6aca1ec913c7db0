"""What a second worker adds: the rate of one and of two, each held to the same part of a core.

With as many cores as workers each would simply have one; where there are fewer, control groups give each worker
`PART` of a core, the server has another core to itself, and both are far from what it could answer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from replay.store.reader import Dataset
from tests.bench.machine import GENERATOR_CORE, SERVER_CORE, child, free_port, nginx, run, table
from tests.send.captures import steady

PART = 0.3
_GROUPS = Path("/sys/fs/cgroup/cpu")
_PERIOD_US = 10_000
_CONNECTIONS = 32
_SESSIONS = 512


def rates(scratch: Path, seconds: int) -> str:
    """Requests per second of one worker and of two, `PART` of a core each."""
    capture = steady(scratch / "capture", 40_000, 0.05, _SESSIONS, response_body=b"")
    seen: dict[int, list[float]] = {1: [], 2: []}
    with nginx(scratch / "nginx") as server:
        for turn in range(3):
            for workers, found in seen.items():
                found.append(_rate(capture, server.url, scratch / f"{workers}-{turn}", workers, seconds))
    one = median(seen[1])
    rows = [
        [str(workers), f"{median(found):,.0f}", f"{median(found) / one:.2f}"]
        for workers, found in seen.items()
    ]
    return table((f"workers, {PART:.0%} of a core each", "requests/s", "÷ one"), rows)


def _rate(capture: Path, url: str, out: Path, workers: int, seconds: int) -> float:
    port = free_port()
    with ExitStack() as running:
        for number in range(workers):
            group = running.enter_context(_group(f"replay-bench-{os.getpid()}-{number}"))
            command = [sys.executable, "-m", "replay", "worker", "--master", "127.0.0.1", "--port", str(port)]
            # The planner and the compactor are the worker's children: they share its part.
            held = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *command]
            running.enter_context(child(held, GENERATOR_CORE))
        run(
            [
                *(sys.executable, "-m", "replay", "run", str(capture), "--target", url, "--out", str(out)),
                *("--expect-workers", str(workers), "--master-port", str(port), "--master-bind", "127.0.0.1"),
                *("--concurrency", str(_CONNECTIONS), "--loop", "0", "--duration", f"{seconds}s"),
                *("--sessions", "off"),
            ],
            SERVER_CORE,
        )  # fmt: skip
    books = Dataset.open(out, "run").meta["books"]
    return float(books["answered"] / (books["wall_ns"] / 1e9))


@contextmanager
def _group(name: str) -> Iterator[Path]:
    """A control group (version 1) that holds its processes to `PART` of a core; needs root."""
    group = _GROUPS / name
    group.mkdir()
    try:
        (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(int(_PERIOD_US * PART)))
        yield group
    finally:
        for process in (group / "cgroup.procs").read_text().split():
            (_GROUPS / "cgroup.procs").write_text(process)
        group.rmdir()
