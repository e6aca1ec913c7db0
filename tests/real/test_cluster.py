"""A run on several machines, each a network namespace: killed, cut off, joined late; nothing is sent twice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from replay.store.reader import Dataset
from replay.verbs.fidelity import fidelity_of
from replay.verbs.ports import free_port
from tests.send.captures import steady
from tests.send.networks import Networks, networks
from tests.send.servers import RecordingServer, answer_ok
from tests.send.test_run import ROOT, command, wait_until

COUNT, GAP_MS, SESSIONS = 5000, 4, 60


@pytest.fixture
def machines() -> Iterator[Networks]:
    with networks(3) as made:
        yield made


class Cluster:
    """A master here, workers in namespaces."""

    def __init__(self, machines: Networks, server: RecordingServer, scratch: Path, undo: ExitStack) -> None:
        self._machines, self._undo = machines, undo
        self.server, self.run = server, scratch / "run"
        self.capture = scratch / "capture"
        self.times: list[float] = []
        self.port = free_port()

    def begin(self, expect: int, *more: object) -> subprocess.Popen[str]:
        return self._undo.enter_context(
            command(
                *("-m", "replay", "run", self.capture, "--target", self.server.url, "--out", self.run),
                *("--expect-workers", expect, "--master-port", self.port),
                *("--master-bind", self._machines.address, "--wait-workers", "60s", *more),
            )
        )

    def join(self, number: int) -> subprocess.Popen[str]:
        return self._undo.enter_context(
            command(
                *("-m", "replay", "worker", "--master", self._machines.address, "--port", self.port),
                before=self._machines.inside(number),
            )
        )

    @property
    def meta(self) -> dict[str, Any]:
        return Dataset.open(self.run).meta

    def sent(self, count: int) -> Callable[[], bool]:
        return lambda: len(self.server.requests) >= count


@pytest.fixture
def cluster(machines: Networks, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    steady(tmp_path / "capture", COUNT, getattr(request, "param", GAP_MS), connections=SESSIONS)
    with ExitStack() as undo:
        times: list[float] = []

        def answer(connection: socket.socket, request: bytes) -> bool:
            times.append(time.monotonic())
            return answer_ok(connection, request)

        server = undo.enter_context(RecordingServer(answer, host=machines.address))
        made = Cluster(machines, server, tmp_path, undo)
        made.times = times
        yield made


def ended(master: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = master.communicate(timeout=90)
    assert "Traceback" not in err, err
    return out, err


def balanced(books: dict[str, Any]) -> bool:
    return bool(
        books["planned"] == books["sent"] + sum(books["skipped"].values()) == COUNT
        and books["sent"] == books["answered"] + sum(books["failed"].values())
    )


def test_three_machines_send_everything_once(cluster: Cluster) -> None:
    for number in range(3):
        cluster.join(number)
    master = cluster.begin(3)
    out, err = ended(master)
    assert master.returncode == 0, out + err
    assert cluster.server.counts() == {f"/{number}": 1 for number in range(COUNT)}
    meta = cluster.meta
    assert balanced(meta["books"])
    assert meta["books"]["answered"] == COUNT
    assert sorted(meta["workers"]) == ["w0", "w1", "w2"]
    assert min(account["sent"] for account in meta["workers"].values()) > COUNT / 10
    assert meta["crew"]["lost"] == []


# Longer than the others: a worker is started while the run goes on, on a machine that may have much to do.
@pytest.mark.parametrize("cluster", [2 * GAP_MS], indirect=True)
def test_a_worker_killed_one_cut_off_and_one_that_joins_late(cluster: Cluster, machines: Networks) -> None:
    workers = [cluster.join(0), cluster.join(1)]
    master = cluster.begin(2)
    wait_until(cluster.sent(1))
    cluster.join(2)
    wait_until(lambda: len(told(cluster)) == 3, 30)
    os.killpg(workers[0].pid, signal.SIGKILL)
    wait_until(cluster.sent(3200), 40)
    machines.cut(1)
    out, err = ended(master)
    assert master.returncode in (0, 3), out + err
    counts = cluster.server.counts()
    assert max(counts.values()) == 1
    meta = cluster.meta
    books = meta["books"]
    assert balanced(books)
    assert sorted(meta["crew"]["lost"]) == ["w0", "w1"]
    assert meta["crew"]["joined_late"] == 1
    assert list(meta["workers"]) == ["w2"]
    # Missing is what the two may have been sending when they were lost: a second and a half of theirs at most.
    assert COUNT - len(counts) <= 2 * 1.5 * 250
    # Each that did not reach the target is in the books, as lost or as failed.
    assert books["skipped"].get("worker lost", 0) + sum(books["failed"].values()) >= COUNT - len(counts)
    fidelity = fidelity_of(cluster.run)
    assert not fidelity.faithful
    assert master.returncode == 3
    # What the one that was cut off still had comes too late: the books stay true.
    assert workers[1].wait(40) != 0
    rows = books["sent"] + sum(books["skipped"].values()) - books["skipped"].get("worker lost", 0)
    assert Dataset.open(cluster.run).count == rows
    assert not list(cluster.run.glob("journal-*"))


def told(cluster: Cluster) -> set[str]:
    """The workers that have begun a journal."""
    return {path.name.split("-")[1] for path in cluster.run.glob("journal-*")}


def test_a_worker_whose_link_comes_back_has_been_replaced(cluster: Cluster, machines: Networks) -> None:
    workers = [cluster.join(0), cluster.join(1)]
    master = cluster.begin(2)
    wait_until(cluster.sent(500))
    machines.cut(0)
    wait_until(cluster.sent(2500))
    machines.mend(0)
    out, err = ended(master)
    assert workers[0].wait(30) != 0
    assert "ended by itself" in workers[0].communicate()[1]
    assert max(cluster.server.counts().values()) == 1
    meta = cluster.meta
    assert balanced(meta["books"])
    assert len(meta["crew"]["lost"]) == 1
    assert meta["crew"]["shares_moved"] == 16
    # Sent late by the other, and so told: the fidelity report decides what the run is worth.
    assert master.returncode == 3, out + err
    rows = list(Dataset.open(cluster.run).rows())
    late = [row for row in rows if row.sent_ns is not None and row.sent_ns - row.due_ns > 500_000_000]
    assert 50 < len(late) < 0.5 * 250 * 5
    assert max(row.sent_ns - row.due_ns for row in late) < 6_000_000_000


def test_stop_reaches_all_machines(cluster: Cluster) -> None:
    for number in range(2):
        cluster.join(number)
    master = cluster.begin(2)
    wait_until(cluster.sent(300))
    subprocess.run(
        [sys.executable, "-m", "replay", "stop", str(cluster.run)], check=True, cwd=ROOT, timeout=30
    )
    out, err = ended(master)
    assert master.returncode == 3, out + err
    books = cluster.meta["books"]
    assert {trip["rule"] for trip in books["trips"]} == {"stop file"}
    assert len(cluster.server.requests) < COUNT
    # Where it was when it was told is not known to the test; that it all ended by itself, and balanced, is.
    assert books["planned"] == books["sent"] + sum(books["skipped"].values())


def test_without_their_master_workers_stop(cluster: Cluster) -> None:
    workers = [cluster.join(number) for number in range(2)]
    master = cluster.begin(2)
    wait_until(cluster.sent(300))
    (locust,) = psutil.Process(master.pid).children()
    locust.kill()
    killed = time.monotonic()
    for worker in workers:
        assert worker.wait(40) != 0
    assert time.monotonic() - killed < 30
    last = max(cluster.times)
    # A second's lease, and what a loaded machine adds to it.
    assert last - killed < 3
    assert len(cluster.server.requests) < COUNT


def test_in_the_closed_loop_shares_move_too(cluster: Cluster) -> None:
    workers = [cluster.join(0), cluster.join(1)]
    master = cluster.begin(2, "--concurrency", 2, "--loop", 8)
    wait_until(cluster.sent(2000))
    os.killpg(workers[0].pid, signal.SIGKILL)
    out, err = ended(master)
    meta = cluster.meta
    counts = cluster.server.counts()
    assert max(counts.values()) <= 8
    assert len(meta["crew"]["lost"]) == 1
    books = meta["books"]
    assert books["planned"] == 8 * COUNT == books["sent"] + sum(books["skipped"].values())
    assert 8 * COUNT - len(cluster.server.requests) <= books["skipped"].get("worker lost", 0)
    assert master.returncode in (0, 3), out + err
