"""Runs as a user starts them: on time, interrupted, killed, refused; under plain Locust too."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from replay.config import RunSettings
from replay.errors import ReplayError
from replay.plan.dispatch import Selection
from replay.send.descriptors import most_at_once
from replay.store.reader import Dataset
from replay.verbs.ports import free_port
from replay.verbs.run import Progress, replay_run
from tests.rows import exchange
from tests.send.captures import steady, write
from tests.send.servers import OK, RecordingServer, answer_ok

ROOT = Path(__file__).parents[2]


@contextmanager
def command(
    *arguments: object, before: Sequence[str] = (), **kwargs: object
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*before, sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        env={**os.environ, "COLUMNS": "120"},
        **kwargs,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def replay(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "replay", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def rows(path: Path) -> list:
    return list(Dataset.open(path, "run").rows())


def wait_until(condition: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as running:
        yield running


def test_arrivals_keep_their_recorded_times(tmp_path: Path, server: RecordingServer) -> None:
    steady(tmp_path / "capture", 100, 10)
    replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings(speed=2))
    found = rows(tmp_path / "run")
    assert [row.due_ns for row in found] == [number * 5_000_000 for number in range(100)]
    lag = sorted(row.sent_ns - row.due_ns - row.held_ns for row in found)
    assert lag[0] >= 0
    # A generous bound, for machines that run other tests meanwhile: lag that accumulates would be far above.
    assert lag[50] < 50_000_000


def test_a_slow_answer_delays_only_its_own_connection(tmp_path: Path) -> None:
    def behave(connection: socket.socket, request: bytes) -> bool:
        if request.startswith(b"GET /0 "):
            time.sleep(0.5)
        return answer_ok(connection, request)

    steady(tmp_path / "capture", 8, 1, connections=2)
    with RecordingServer(behave) as server:
        replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings())
    by_target = {int(row.exchange_id[-12:], 16): row for row in rows(tmp_path / "run")}
    assert all(by_target[n].held_ns > 400_000_000 for n in (2, 4, 6))
    assert all(by_target[n].held_ns < 300_000_000 for n in (1, 3, 5, 7))
    # Waiting for the build under test is not the generator's lag.
    assert all(row.sent_ns - row.due_ns - row.held_ns < 200_000_000 for row in by_target.values())


def test_loops_have_arrivals_of_their_own(tmp_path: Path, server: RecordingServer) -> None:
    steady(tmp_path / "capture", 10, 5)
    summary = replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings(loop=3))
    found = rows(tmp_path / "run")
    assert summary.books["planned"] == 30 == len(server.requests)
    assert [row.lap for row in found] == [0] * 10 + [1] * 10 + [2] * 10
    due = [row.due_ns for row in found]
    assert due == [number * 5_000_000 for number in range(30)]


def test_duration_ends_the_schedule(tmp_path: Path, server: RecordingServer) -> None:
    steady(tmp_path / "capture", 100, 10)
    summary = replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings(duration=0.2))
    assert summary.books["planned"] == 20 == len(server.requests)
    assert summary.books["left_out"] == {"after the duration": 80}


def test_rate_replaces_the_recorded_times(tmp_path: Path, server: RecordingServer) -> None:
    steady(tmp_path / "capture", 50, 100)
    replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings(rate=100))
    assert [row.due_ns for row in rows(tmp_path / "run")] == [number * 10_000_000 for number in range(50)]


def test_the_closed_loop_keeps_to_its_connections(tmp_path: Path, server: RecordingServer) -> None:
    steady(tmp_path / "capture", 200, 1000)
    summary = replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings(concurrency=5))
    assert summary.books["answered"] == 200 == len(server.requests)
    assert len(server.connections) <= 5


def test_the_closed_loop_ends_with_the_duration(tmp_path: Path, server: RecordingServer) -> None:
    steady(tmp_path / "capture", 50, 1)
    settings = RunSettings(concurrency=2, loop=0, duration=0.5)
    summary = replay_run(tmp_path / "capture", server.url, tmp_path / "run", settings)
    assert summary.books["answered"] == len(server.requests) > 0
    assert summary.balanced


def test_more_connections_than_files_may_be_open(tmp_path: Path, server: RecordingServer) -> None:
    steady(tmp_path / "capture", 10, 1)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    settings = RunSettings(concurrency=hard)
    with pytest.raises(ReplayError, match=r"may open .* files here: raise that to .* --workers"):
        replay_run(tmp_path / "capture", server.url, tmp_path / "run", settings)
    assert not (tmp_path / "run").exists()
    assert not server.requests


def test_connections_open_at_once_are_counted(tmp_path: Path) -> None:
    # c0 asks at 0, 4, 8 ms and c1 at 1, 5, 9 ms; c2 and c3 likewise: all four are open from 3 ms on.
    capture = steady(tmp_path / "capture", 12, 1, connections=4)
    assert most_at_once(capture, Selection((), ())) == 4
    one_by_one = write(tmp_path / "other", (exchange(n, connection_id=f"c{n}") for n in range(5)))
    assert most_at_once(one_by_one, Selection((), ())) == 1


def test_selection_is_in_the_books(tmp_path: Path, server: RecordingServer) -> None:
    steady(tmp_path / "capture", 10, 1)
    with pytest.raises(ReplayError, match="none of the capture's 10 exchanges"):
        replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings(exclude=("GET",)))
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_sent_is_skipped_by_reason(tmp_path: Path, server: RecordingServer) -> None:
    steady(tmp_path / "capture", 4, 1, request_headers=(("Upgrade", "websocket"),))
    summary = replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings())
    assert summary.books["skipped"] == {"upgrade": 4}
    assert summary.balanced
    assert [row.skipped for row in rows(tmp_path / "run")] == ["upgrade"] * 4
    assert server.requests == []


def test_progress_is_told(tmp_path: Path, server: RecordingServer) -> None:
    steady(tmp_path / "capture", 60, 10)
    told: list[Progress] = []
    replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings(), told.append)
    assert len(told) >= 2
    assert (told[-1].planned, told[-1].answered) == (60, 60)
    assert [p.answered for p in told] == sorted(p.answered for p in told)


def test_many_connections_at_once(tmp_path: Path, server: RecordingServer) -> None:
    steady(tmp_path / "capture", 600, 0.2, connections=300)
    summary = replay_run(tmp_path / "capture", server.url, tmp_path / "run", RunSettings(timeout=20))
    assert summary.books["answered"] == 600 == len(server.requests)


def test_ctrl_c_once_keeps_and_closes_what_was_done(tmp_path: Path, server: RecordingServer) -> None:
    steady(tmp_path / "capture", 2000, 10)
    with command(
        "-m", "replay", "run", tmp_path / "capture", "--target", server.url, "--out", tmp_path / "run"
    ) as process:
        wait_until(lambda: len(server.requests) > 20)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 130
    meta = json.loads((tmp_path / "run" / "run.json").read_text())
    found = rows(tmp_path / "run")
    assert meta["state"] == "closed"
    assert meta["books"]["interrupted"] is True
    assert 20 < len(found) == len(server.requests) == meta["books"]["sent"] < 2000


def test_ctrl_c_twice_does_not_wait_for_answers(tmp_path: Path) -> None:
    def behave(connection: socket.socket, request: bytes) -> bool:
        return connection.recv(1) != b"" if request.startswith(b"GET /3 ") else answer_ok(connection, request)

    steady(tmp_path / "capture", 2000, 10)
    arguments = ("run", tmp_path / "capture", "--target", "URL", "--out", tmp_path / "run", "--timeout", 300)
    with RecordingServer(behave) as server:
        with command("-m", "replay", *(server.url if a == "URL" else a for a in arguments)) as process:
            # Well into the run: a replayer that has not reported yet is ended as one that is still starting.
            wait_until(lambda: len(server.requests) > 200)
            process.send_signal(signal.SIGINT)
            wait_until(lambda: not sends_more(server))
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
            assert process.returncode == 130
        found = rows(tmp_path / "run")
    assert "interrupted" in {row.error for row in found}
    assert len(found) >= len(server.requests)


def sends_more(server: RecordingServer) -> bool:
    before = len(server.requests)
    time.sleep(0.3)
    return len(server.requests) > before


def test_kill_9_loses_at_most_the_last_second(tmp_path: Path, server: RecordingServer) -> None:
    steady(tmp_path / "capture", 3000, 2)
    locust = [
        *("-m", "locust", "-f", ROOT / "locustfiles" / "replay.py", "--headless", "--only-summary"),
        *("--capture", tmp_path / "capture", "--host", server.url, "--out", tmp_path / "run"),
    ]
    with command(*locust) as process:
        wait_until(lambda: len(server.requests) > 1000)
        killed_at = time.monotonic()
        arrived = len(server.requests)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
    assert time.monotonic() - killed_at < 30
    # 2 ms apart: the last second is 500 arrivals, and a few were on their way while the signal was.
    wait_until(lambda: not list((tmp_path / "run").glob("journal-*")) or rows(tmp_path / "run"))
    assert len(rows(tmp_path / "run")) > arrived - 600
    assert Dataset.open(tmp_path / "run").meta["state"] in ("open", "recovered")


def test_a_replayer_whose_command_was_killed_ends_itself(tmp_path: Path, server: RecordingServer) -> None:
    steady(tmp_path / "capture", 30_000, 2)
    run = ("-m", "replay", "run", tmp_path / "capture", "--target", server.url, "--out", tmp_path / "run")
    with command(*run) as process:
        wait_until(lambda: len(server.requests) > 100)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
    wait_until(lambda: Dataset.open(tmp_path / "run").meta["state"] == "closed")
    books = Dataset.open(tmp_path / "run").meta["books"]
    assert books["interrupted"]
    assert books["sent"] == len(server.requests) < 30_000


def test_plain_locust_with_its_own_flags(tmp_path: Path, server: RecordingServer) -> None:
    steady(tmp_path / "capture", 50, 2)
    locust = [
        *("-m", "locust", "-f", ROOT / "locustfiles" / "replay.py", "--headless"),
        *("--capture", tmp_path / "capture", "--host", server.url, "--out", tmp_path / "run"),
        *("--csv", tmp_path / "csv", "--html", tmp_path / "report.html"),
    ]
    with command(*locust) as process:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert "Traceback" not in err
    stats = (tmp_path / "csv_stats.csv").read_text().splitlines()
    assert stats[1].startswith("GET,GET /{id},50,0,")
    assert "GET /{id}" in (tmp_path / "report.html").read_text()
    assert len(rows(tmp_path / "run")) == 50


def test_failures_are_locusts_failures(tmp_path: Path) -> None:
    def behave(connection: socket.socket, request: bytes) -> bool:
        if request.split(b" ")[1] in (b"/3", b"/7"):
            return False
        connection.sendall(OK.replace(b"200 OK", b"503 Busy") if request.startswith(b"GET /5 ") else OK)
        return True

    steady(tmp_path / "capture", 10, 2, connections=10)
    with RecordingServer(behave) as server:
        locust = [
            *(
                "-m",
                "locust",
                "-f",
                ROOT / "locustfiles" / "replay.py",
                "--headless",
                "--csv",
                tmp_path / "csv",
            ),
            *("--capture", tmp_path / "capture", "--host", server.url, "--out", tmp_path / "run"),
        ]
        with command(*locust) as process:
            process.communicate(timeout=60)
            assert process.returncode == 1
    assert (tmp_path / "csv_stats.csv").read_text().splitlines()[1].startswith("GET,GET /{id},10,2,")
    failures = (tmp_path / "csv_failures.csv").read_text().splitlines()
    assert [line.split(",")[:4] for line in failures[1:]] == [["GET", "GET /{id}", "Failed('closed')", "2"]]


def test_the_web_ui_starts_and_shows_the_run(tmp_path: Path, server: RecordingServer) -> None:
    import urllib.request

    port = free_port()
    steady(tmp_path / "capture", 50, 2)
    locust = [
        *(
            "-m",
            "locust",
            "-f",
            ROOT / "locustfiles" / "replay.py",
            "--web-host",
            "127.0.0.1",
            "--web-port",
            port,
        ),
        *("--capture", tmp_path / "capture", "--host", server.url, "--out", tmp_path / "run", "--autostart"),
    ]
    with command(*locust):
        wait_until(lambda: (tmp_path / "run" / "run.json").exists() and len(server.requests) == 50)

        def shown() -> bool:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats/requests", timeout=5) as answer:
                told = json.load(answer)
            totals = {(row["name"], row["num_requests"]) for row in told["stats"]}
            tab = told["extended_stats"][0]
            live = [(row["worker"], row["answered"], row["failed"]) for row in tab["stats"]]
            return ("GET /{id}", 50) in totals and (tab["key"], live) == ("replay", [("w0", 50, 0)])

        wait_until(shown)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "nowhere", "--target", "http://127.0.0.1:1", "--out", "OUT"), "nowhere does not exist"),
        (("run", "CAPTURE", "--target", "http://127.0.0.1:1", "--out", "OUT"), "cannot be reached: Connection refused"),
        (("run", "CAPTURE", "--target", "ftp://x", "--out", "OUT"), "is not a URL"),
        (("run", "CAPTURE", "--target", "http://x:99999", "--out", "OUT"), "port is not a number"),
        (("run", "CAPTURE", "--target", "http://a/path", "--out", "OUT"), "paths come from the capture"),
        (("run", "CAPTURE", "--target", "http://no-such-host.invalid", "--out", "OUT"), "cannot be resolved"),
        (("run", "CAPTURE", "--target", "URL", "--out", "CAPTURE"), "is there already"),
        (("run", "CAPTURE", "--target", "URL", "--out", "OUT", "--speed", "0"), "--speed 0 must be above 0"),
        (("run", "CAPTURE", "--target", "URL", "--out", "OUT", "--rate", "5", "--ramp", "0:1"), "choose one"),
        (("run", "CAPTURE", "--target", "URL", "--out", "OUT", "--ramp", "x"), "--ramp 'x'"),
        (("run", "CAPTURE", "--target", "URL", "--out", "OUT", "--ca", "/nowhere.pem"), ""),
        (("run", "CAPTURE", "--target", "URL", "--out", "OUT", "--config", "/nowhere.toml"), "does not exist"),
        (("inspect", "/"), "neither a capture nor a run"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_2(
    tmp_path: Path, server: RecordingServer, arguments: tuple, says: str
) -> None:
    if "/nowhere.pem" in arguments:
        arguments = tuple(f"https://127.0.0.1:{server.port}" if a == "URL" else a for a in arguments)
        says = "--ca /nowhere.pem"
    capture = steady(tmp_path / "capture", 3, 1)
    places = {"CAPTURE": capture, "OUT": tmp_path / "out", "URL": server.url}
    done = replay(*(places.get(a, a) for a in arguments))
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_names_are_no_formulas_in_csv(tmp_path: Path, server: RecordingServer) -> None:
    """A method may begin with a plus sign, and a spreadsheet would compute what follows."""
    write(tmp_path / "capture", [exchange(1, method="+CMD", endpoint="+CMD /{id}")])
    locust = [
        *("-m", "locust", "-f", ROOT / "locustfiles" / "replay.py", "--headless", "--writes", "all"),
        *("--capture", tmp_path / "capture", "--host", server.url, "--out", tmp_path / "run"),
        *("--csv", tmp_path / "csv"),
    ]
    with command(*locust) as process:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    stats = (tmp_path / "csv_stats.csv").read_text().splitlines()
    assert stats[1].startswith("'+CMD,'+CMD /{id},1,0,")
