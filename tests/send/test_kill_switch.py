"""The kill switch in real runs: a target that goes bad gets nothing more, soon."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from replay.cli import main
from replay.config import RunSettings
from replay.errors import InputError
from replay.findings import FAIL, INVALID, Fidelity
from replay.report.dossier import CANDIDATE, CONTROL, Dossier
from replay.report.gate import Limits, invalidated, judged
from replay.store import metadata
from replay.verbs.fidelity import fidelity_of
from replay.verbs.run import replay_run, stop
from tests.report.reports import FULL
from tests.rows import T0, exchange
from tests.send import captures
from tests.send.servers import OK, RecordingServer, answer_ok

SERVER_ERROR = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"


class Failing(RecordingServer):
    """Answers well `good` times, then with 500; from then on it keeps the instants of requests."""

    def __init__(self, good: int, path: bytes = b"/") -> None:
        super().__init__(self._answer)
        self.bad_since: float | None = None
        self.last = 0.0
        self._good = good
        self._path = path

    def _answer(self, connection: socket.socket, request: bytes) -> bool:
        self.last = time.monotonic()
        if len(self.requests) <= self._good or not request.startswith(b"GET " + self._path):
            return answer_ok(connection, request)
        self.bad_since = self.bad_since or self.last
        connection.sendall(SERVER_ERROR)
        return True


@pytest.mark.parametrize("workers", [1, 2])
def test_a_target_that_starts_failing_half_way_is_left_alone_within_two_seconds(
    tmp_path: Path, workers: int
) -> None:
    capture = captures.steady(tmp_path / "capture", 4000, 2)
    with Failing(good=2000) as server:
        summary = replay_run(capture, server.url, tmp_path / "run", RunSettings(workers=workers))
        assert server.bad_since is not None
        assert server.last - server.bad_since < 2
        assert 2050 < len(server.requests) < 3200
    assert summary.balanced
    assert {trip["rule"] for trip in summary.books["trips"]} == {"share of failures"}
    fidelity = fidelity_of(tmp_path / "run")
    assert fidelity.stopped
    assert "everything stopped at" in fidelity.stopped[0]


def test_a_group_alone_is_stopped(tmp_path: Path) -> None:
    capture = captures.write(
        tmp_path / "capture",
        (
            exchange(
                number,
                started_at=T0 + number * 2_000_000,
                connection_id=f"c{number % 4}",
                target=f"/{'pay' if number % 2 else 'read'}/{number}",
                endpoint=f"GET /{'pay' if number % 2 else 'read'}/{{id}}",
            )
            for number in range(2000)
        ),
    )
    settings = RunSettings(abort_groups=("/pay/*", "/read/*"))
    with Failing(good=200, path=b"/pay") as server:
        summary = replay_run(capture, server.url, tmp_path / "run", settings)
        assert sum(request.startswith(b"GET /read/") for request in server.requests) == 1000
        assert sum(request.startswith(b"GET /pay/") for request in server.requests) < 800
    (trip,) = summary.books["trips"]
    assert trip["group"] == "/pay/*"
    assert summary.books["skipped"] == {"kill switch": 2000 - len(server.requests)}
    assert summary.balanced


def test_a_run_is_stopped_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    capture, run = captures.steady(tmp_path / "capture", 3000, 10), tmp_path / "run"

    def stop_soon(server: RecordingServer) -> None:
        while len(server.requests) < 20:
            server.more.wait(0.01)
        stop(run)

    class Counting(RecordingServer):
        more = threading.Event()

    with Counting() as server:
        threading.Thread(target=stop_soon, args=(server,), daemon=True).start()
        arguments = ["replay", "run", str(capture), "--target", server.url, "--out", str(run)]
        monkeypatch.setattr("sys.argv", arguments)
        began = time.monotonic()
        with pytest.raises(SystemExit) as ended:
            main()
        assert time.monotonic() - began < 15
        assert ended.value.code == 3
        assert len(server.requests) < 1000
    books = metadata.load(run, "run")["books"]
    assert [trip["rule"] for trip in books["trips"]] == ["stop file"]
    assert not fidelity_of(run).stopped
    assert not fidelity_of(run).faithful
    with pytest.raises(InputError, match="is over already"):
        stop(run)


def test_nothing_exceeds_the_ceilings(tmp_path: Path) -> None:
    capture = captures.steady(tmp_path / "capture", 600, 1, connections=50)
    with RecordingServer() as server:
        summary = replay_run(capture, server.url, tmp_path / "run", RunSettings(max_rate=200))
        assert len(server.requests) <= 200 * 0.6 + 20 + 2
    assert summary.books["skipped"] == {"above --max-rate": 600 - len(server.requests)}
    assert summary.balanced


def test_the_most_under_way_is_bounded(tmp_path: Path) -> None:
    capture = captures.steady(tmp_path / "capture", 200, 1, connections=100)
    under_way, most, lock = 0, 0, threading.Lock()

    def slow(connection: socket.socket, request: bytes) -> bool:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        threading.Event().wait(0.05)
        with lock:
            under_way -= 1
        connection.sendall(OK)
        return True

    with RecordingServer(slow) as server:
        summary = replay_run(capture, server.url, tmp_path / "run", RunSettings(max_concurrency=5))
    assert 1 <= most <= 5
    assert summary.books["skipped"]["above --max-concurrency"] == 200 - len(server.requests)


def test_a_high_rate_begins_gently(tmp_path: Path) -> None:
    capture = captures.steady(tmp_path / "capture", 1000, 1, connections=8)
    with RecordingServer() as server:
        replay_run(capture, server.url, tmp_path / "run", RunSettings(rate=1000, ramp_up=1.0))
    from replay.store.reader import Dataset

    due = [row.due_ns for row in Dataset.open(tmp_path / "run").rows()]  # type: ignore[union-attr]
    assert sum(instant < 500_000_000 for instant in due) == pytest.approx(125, abs=2)
    assert due[-1] == pytest.approx(1_499_000_000, rel=0.01)
    assert not [check.name for check in fidelity_of(tmp_path / "run").breaches if "rate" in check.name]


def test_a_stopped_candidate_fails_and_a_stopped_baseline_invalidates() -> None:
    bad = Fidelity(
        "run", (), (), {}, stopped=("everything stopped at 1.0 s: share of failures 60.0%, limit 50.0%",)
    )
    report = invalidated(FULL, {CANDIDATE: bad}.items())
    assert report.verdict == FAIL
    assert report.reasons[0].startswith("kill switch: everything stopped")
    # Limits that allow everything else do not let it pass.
    verdict = judged(Dossier(report), Limits(regressions=None, slower=None)).report
    assert verdict.verdict == FAIL
    assert invalidated(FULL, {CONTROL: bad}.items()).verdict == INVALID
