"""Several workers share a run: sessions stay whole, the books close, and a lost worker is told."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import psutil
import pytest

from replay.config import RunSettings
from replay.send import closing
from replay.store.reader import Dataset
from replay.verbs.fidelity import fidelity_of
from replay.verbs.ports import free_port
from replay.verbs.run import Progress, replay_run
from tests.send.captures import steady
from tests.send.servers import RecordingServer
from tests.send.test_run import ROOT, command, rows, wait_until


def test_two_workers_send_everything_once_and_keep_sessions_whole(tmp_path: Path) -> None:
    steady(tmp_path / "capture", 200, 5, connections=20)
    told: list[Progress] = []
    with RecordingServer() as server:
        settings = RunSettings(workers=2)
        summary = replay_run(tmp_path / "capture", server.url, tmp_path / "run", settings, told.append)
    assert summary.books["planned"] == summary.books["answered"] == 200 == len(server.requests)
    assert server.counts() == {f"/{number}": 1 for number in range(200)}
    assert summary.balanced
    assert told[-1].answered == 200
    assert {path.name.split("-")[1] for path in (tmp_path / "run").glob("part-*")} == {"w0", "w1"}
    found = rows(tmp_path / "run")
    assert [row.due_ns for row in found] == [number * 5_000_000 for number in range(200)]
    by_session = defaultdict(list)
    for row in found:
        by_session[row.session_id].append(row.sent_ns)
    assert all(times == sorted(times) for times in by_session.values())
    # One start for all: no session, and so no worker, is a constant away from the schedule. How late single
    # requests are is the machine's doing as well.
    late = defaultdict(list)
    for row in found:
        late[row.session_id].append(row.sent_ns - row.due_ns - row.held_ns)
    assert max(median(times) for times in late.values()) < 100_000_000


def test_a_worker_that_dies_makes_the_run_invalid_with_closed_books(tmp_path: Path) -> None:
    steady(tmp_path / "capture", 1500, 4, connections=20)
    with RecordingServer() as server:
        threading.Thread(target=kill_one, args=(tmp_path / "run", server), daemon=True).start()
        summary = replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings(workers=2))
    books = summary.books
    assert books["planned"] == 1500
    assert books["workers_lost"] == 1
    assert summary.balanced
    assert books["skipped"][closing.LOST] > 100
    assert max(server.counts().values()) == 1
    # Kept: all that the dead one had flushed, so all but its last second (about 125 of its arrivals).
    assert len(rows(tmp_path / "run")) == books["sent"] >= len(server.requests) - 250
    fidelity = fidelity_of(tmp_path / "run")
    assert not fidelity.faithful
    assert "arrivals lost" in {check.name for check in fidelity.breaches}


def kill_one(run: Path, server: RecordingServer) -> None:
    """Kill the worker processes' first-born once it is well under way."""
    wait_until(lambda: len(server.requests) > 300)
    (locust,) = [p for p in psutil.process_iter(["cmdline"]) if is_master(p, str(run))]
    workers = [child for child in locust.children() if "locust" in " ".join(child.cmdline())]
    os.kill(workers[0].pid, signal.SIGKILL)


def is_master(process: psutil.Process, run: str) -> bool:
    line = process.info["cmdline"] or []
    if "locust" not in line or run not in line:
        return False
    parent = process.parent()
    return parent is not None and run not in parent.cmdline()


def test_plain_locust_with_processes(tmp_path: Path) -> None:
    port = free_port()
    steady(tmp_path / "capture", 200, 5, connections=20)
    with RecordingServer() as server:
        locust = [
            *("-m", "locust", "-f", ROOT / "locustfiles" / "replay.py", "--headless", "--processes", 2),
            *("--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port),
            *("--capture", tmp_path / "capture", "--host", server.url, "--out", tmp_path / "run"),
            *("--csv", tmp_path / "csv"),
        ]
        with command(*locust) as process:
            _, err = process.communicate(timeout=90)
            assert process.returncode == 0, err
    assert len(server.requests) == 200
    meta = Dataset.open(tmp_path / "run").meta
    assert (meta["state"], meta["books"]["answered"], sorted(meta["workers"])) == (
        "closed",
        200,
        ["w0", "w1"],
    )
    assert (tmp_path / "csv_stats.csv").read_text().splitlines()[1].startswith("GET,GET /{id},200,0,")


def test_the_closed_books_do_not_change(tmp_path: Path) -> None:
    steady(tmp_path / "capture", 5, 1)
    with RecordingServer() as server:
        summary = replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings())
    before = (tmp_path / "run" / "run.json").read_bytes()
    assert closing.close(tmp_path / "run") == summary.books
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_latencies_are_kept_as_histograms(tmp_path: Path) -> None:
    import base64

    from hdrh.histogram import HdrHistogram

    steady(tmp_path / "capture", 50, 2)
    with RecordingServer(lambda connection, request: time.sleep(0.02) or slow(connection)) as server:
        replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings())
    latency = Dataset.open(tmp_path / "run").meta["latency"]["GET /{id}"]
    service = HdrHistogram.decode(base64.b64decode(latency["service"]))
    response = HdrHistogram.decode(base64.b64decode(latency["response"]))
    assert service.get_total_count() == response.get_total_count() == 50
    found = sorted(row.duration_ns / 1000 for row in rows(tmp_path / "run"))
    assert service.get_value_at_percentile(50) == pytest.approx(found[24], rel=0.002)
    # Four connections cannot keep up with 2 ms gaps at 20 ms an answer: only the response time shows it.
    assert response.get_value_at_percentile(99) > 2 * service.get_value_at_percentile(99)


def slow(connection: object) -> bool:
    from tests.send.servers import answer_ok

    return answer_ok(connection, b"GET / HTTP/1.1")


def test_the_closed_loop_of_several_workers_ends_with_its_duration(tmp_path: Path) -> None:
    steady(tmp_path / "capture", 200, 1, connections=20)
    settings = RunSettings(workers=2, concurrency=4, loop=0, duration=1.5)
    with RecordingServer() as server:
        summary = replay_run(tmp_path / "capture", server.url, tmp_path / "run", settings)
    books = summary.books
    assert summary.balanced
    assert books["answered"] == books["planned"] == len(server.requests) > 200
    assert 1.4e9 < books["wall_ns"] < 10e9
    meta = Dataset.open(tmp_path / "run").meta
    assert meta["crew"]["lost"] == []
    assert min(account["answered"] for account in meta["workers"].values()) > 0


def test_when_all_workers_are_lost_the_run_is_invalid_not_silently_short(tmp_path: Path) -> None:
    steady(tmp_path / "capture", 1500, 4, connections=20)
    with RecordingServer() as server:
        threading.Thread(target=kill_workers, args=(tmp_path / "run", server), daemon=True).start()
        summary = replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings(workers=2))
    assert summary.balanced
    assert max(server.counts().values()) == 1
    assert not fidelity_of(tmp_path / "run").faithful


def kill_workers(run: Path, server: RecordingServer) -> None:
    """Kill both worker processes once they are well under way."""
    wait_until(lambda: len(server.requests) > 300)
    (locust,) = [p for p in psutil.process_iter(["cmdline"]) if is_master(p, str(run))]
    for child in locust.children():
        if "locust" in " ".join(child.cmdline()):
            os.kill(child.pid, signal.SIGKILL)
