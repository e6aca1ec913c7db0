"""Several builds asked at once: each arrival once to each, in random order, every run's books closed."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from replay.config import RunSettings
from replay.errors import ReplayError
from replay.send.options import parse_targets
from replay.send.plan_stream import Planned
from replay.store.reader import Dataset
from replay.verbs.diff import diff_runs
from replay.verbs.run import replay_abreast
from tests.gate.gates import PATIENT
from tests.send.captures import steady
from tests.send.servers import RecordingServer, answer_ok
from tests.send.test_run import command, replay, rows

ROLES = ("baseline", "candidate", "control")


@contextmanager
def builds(*behaviours: object) -> Iterator[dict[str, RecordingServer]]:
    with ExitStack() as stack:
        servers = (RecordingServer(*([behave] if behave else [])) for behave in behaviours or (None,) * 3)
        yield {role: stack.enter_context(server) for role, server in zip(ROLES, servers, strict=False)}


def urls(servers: dict[str, RecordingServer]) -> dict[str, str]:
    return {role: server.url for role, server in servers.items()}


def orders(out: Path) -> list[tuple[str, ...]]:
    """For each exchange the builds in the order in which they were asked."""
    sent: dict[tuple[str, int], list[tuple[int, str]]] = {}
    for role in ROLES:
        for row in rows(out / role):
            sent.setdefault((row.exchange_id, row.lap), []).append((row.sent_ns, role))
    return [tuple(role for _, role in sorted(asked)) for _, asked in sorted(sent.items())]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_build_gets_each_arrival_once_in_random_order(tmp_path: Path, workers: int) -> None:
    # As many connections as arrivals that could be under way, so that none waits for another's answer.
    steady(tmp_path / "capture", 300, 4, connections=60)
    out = tmp_path / "runs"
    with builds() as servers:
        settings = RunSettings(workers=workers)
        summaries = replay_abreast(tmp_path / "capture", urls(servers), out, settings)
    assert tuple(summaries) == ROLES
    for role, server in servers.items():
        assert server.counts() == {f"/{number}": 1 for number in range(300)}
        assert summaries[role].balanced
        assert summaries[role].books["planned"] == summaries[role].books["answered"] == 300
        assert summaries[role].books["left_out"] == {}
        assert Dataset.open(out / role).meta["source"]["target"] == server.url
        assert [row.due_ns for row in rows(out / role)] == [number * 4_000_000 for number in range(300)]
    first = Counter(order[0] for order in orders(out))
    assert all(first[role] > 50 for role in ROLES)
    assert len(Counter(orders(out))) == 6
    sent = zip(*([row.sent_ns for row in rows(out / role)] for role in ROLES), strict=True)
    apart = sorted(max(times) - min(times) for times in sent)
    # Generous, for machines that run other tests meanwhile: asked in turn they would be a second apart.
    assert apart[150] < 20_000_000
    report = diff_runs(out / "baseline", out / "candidate", out / "control")
    assert (report.verdict, report.book.paired, report.findings) == ("pass", 300, ())


def test_a_slow_build_does_not_hold_up_the_others(tmp_path: Path) -> None:
    def slow(connection: socket.socket, request: bytes) -> bool:
        time.sleep(0.05)
        return answer_ok(connection, request)

    steady(tmp_path / "capture", 40, 5, connections=1)
    out = tmp_path / "runs"
    with builds(None, slow) as servers:
        summaries = replay_abreast(tmp_path / "capture", urls(servers), out, RunSettings())
    assert all(summary.balanced and summary.books["answered"] == 40 for summary in summaries.values())
    assert max(row.held_ns for row in rows(out / "candidate")) > 1_000_000_000
    assert max(row.held_ns for row in rows(out / "baseline")) < 500_000_000


def test_a_dead_build_has_rows_of_failures_and_the_others_answers(tmp_path: Path) -> None:
    def die(connection: socket.socket, request: bytes) -> bool:
        return False

    steady(tmp_path / "capture", 40, 5)
    with builds(None, die) as servers:
        summaries = replay_abreast(tmp_path / "capture", urls(servers), tmp_path / "runs", RunSettings())
    assert all(summary.balanced and summary.books["sent"] == 40 for summary in summaries.values())
    assert sum(summaries["candidate"].books["failed"].values()) == 40
    assert summaries["baseline"].books["answered"] == 40


def test_a_build_that_goes_down_stops_them_all(tmp_path: Path) -> None:
    def die(connection: socket.socket, request: bytes) -> bool:
        return False

    steady(tmp_path / "capture", 900, 4)
    with builds(None, die) as servers:
        settings = RunSettings(abort_failures=20, abort_window=0.2)
        summaries = replay_abreast(tmp_path / "capture", urls(servers), tmp_path / "runs", settings)
    assert all(summary.balanced and summary.books["sent"] < 900 for summary in summaries.values())
    assert summaries["candidate"].books["trips"]
    assert not summaries["baseline"].books["trips"]


@pytest.mark.parametrize("given", [{"concurrency": 8, "host_header": "target"}, {"loop": 2}])
def test_every_way_of_pacing_goes_abreast(tmp_path: Path, given: dict) -> None:
    steady(tmp_path / "capture", 60, 2, connections=10)
    with builds() as servers:
        settings = RunSettings(**given)
        summaries = replay_abreast(tmp_path / "capture", urls(servers), tmp_path / "runs", settings)
    sent = 60 * given.get("loop", 1)
    for role, server in servers.items():
        assert summaries[role].balanced
        assert len(server.requests) == summaries[role].books["answered"] == sent
        host = f"127.0.0.1:{server.port}" if "host_header" in given else "shop.test"
        assert all(f"Host: {host}\r\n".encode() in request for request in server.requests)


def test_the_command_and_the_comparison_after_it(tmp_path: Path) -> None:
    steady(tmp_path / "capture", 50, 4)
    (tmp_path / "replay.toml").write_text(PATIENT, "utf-8")
    patient = ("--config", tmp_path / "replay.toml")
    with builds() as servers:
        targets = [f"--target={role}={url}" for role, url in urls(servers).items()]
        done = replay("run", tmp_path / "capture", *targets, "--out", tmp_path / "runs", *patient)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == list(ROLES)
    runs = [tmp_path / "runs" / role for role in ROLES]
    compared = replay("diff", runs[0], runs[1], "--control", runs[2], *patient)
    assert compared.returncode == 0
    assert "50 of 50 exchanges answered alike" in compared.stdout


def test_an_interrupt_closes_the_books_of_all(tmp_path: Path) -> None:
    steady(tmp_path / "capture", 2000, 10)
    with builds() as servers:
        targets = [f"--target={role}={url}" for role, url in urls(servers).items()]
        with command(
            "-m", "replay", "run", tmp_path / "capture", *targets, "--out", tmp_path / "runs"
        ) as process:
            threading.Thread(target=interrupt, args=(process, servers), daemon=True).start()
            process.communicate(timeout=60)
    assert process.returncode == 130
    for role, server in servers.items():
        books = Dataset.open(tmp_path / "runs" / role).meta["books"]
        assert books["interrupted"]
        assert books["planned"] == books["sent"] + sum(books["skipped"].values())
        assert books["sent"] == books["answered"] + sum(books["failed"].values()) == len(server.requests)


def interrupt(process: subprocess.Popen[str], servers: dict[str, RecordingServer]) -> None:
    while any(len(server.requests) < 20 for server in servers.values()):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)


def test_where_one_build_cannot_be_reached_nothing_is_written(tmp_path: Path) -> None:
    steady(tmp_path / "capture", 5, 1)
    with builds() as servers:
        targets = {**urls(servers), "candidate": "http://127.0.0.1:1"}
        with pytest.raises(ReplayError, match="cannot be reached"):
            replay_abreast(tmp_path / "capture", targets, tmp_path / "runs", RunSettings())
    assert not (tmp_path / "runs").exists()


REFUSED = [["http://a", "b=http://b"], ["a=http://a", "a=http://b"], ["../a=http://a"], ["=http://a"]]


@pytest.mark.parametrize("texts", REFUSED)
def test_targets_need_names_of_their_own(texts: list[str]) -> None:
    with pytest.raises(ReplayError, match="--target"):
        parse_targets(texts)


def test_the_order_is_drawn_from_the_seed() -> None:
    import random

    from replay.send.abreast import send_abreast

    class Pump:
        behind, full, has_finished, closed_loop = 0, False, False, True

        def __init__(self, name: str, asked: list[str]) -> None:
            self.name, self.asked = name, asked

        def due(self, arrival: object, now: int) -> int:
            return now

        def over(self, now: int) -> bool:
            return False

        def take_up(self, arrival: Planned, due_at: int, now: int) -> None:
            self.asked.append(f"{self.name}{arrival.place}")

    def asked(seed: int) -> list[str]:
        found: list[str] = []
        pumps = [Pump(name, found) for name in "abc"]
        plan = [Planned(0, n, 0, (), b"", None, 0, "GET /", "GET", True, b"") for n in range(50)]
        send_abreast(pumps, [plan] * 3, random.Random(seed))  # type: ignore[arg-type]
        return found

    assert asked(1) == asked(1) != asked(2)
    assert sorted(asked(1)) == sorted(f"{name}{n}" for name, n in itertools.product("abc", range(50)))
