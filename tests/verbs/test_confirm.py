"""Confirming with real builds: each suspect after what its session did before it, to both, in random order."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from replay.config import RunSettings
from replay.diff.settings import DiffSettings
from replay.errors import ReplayError
from replay.findings import NOISE, REGRESSION, SUSPECT, Example, Report
from replay.model import Exchange
from replay.store.reader import Dataset
from replay.store.writer import DatasetWriter
from replay.verbs.confirm import askings, confirm
from replay.verbs.diff import diff_runs
from tests.gate.gates import PATIENT
from tests.rows import T0, exchange, result
from tests.send.captures import write
from tests.send.servers import RecordingServer
from tests.send.test_run import replay

SESSIONS, STEPS = 12, 5


class Shop:
    """A build with a state: what a session put in its basket. `dear` sells one thing at a wrong price."""

    def __init__(self, dear: str = "", flaky: bool = False) -> None:
        self.baskets: dict[str, int] = {}
        self.dear = dear
        self.flaky = flaky

    def answer(self, user: str, target: str) -> tuple[int, dict[str, object]]:
        if target == "/login":
            self.baskets[user] = 0
        elif user not in self.baskets:
            return 403, {}
        elif target.startswith("/add"):
            self.baskets[user] += 1
        price = 100 + (target == self.dear and self.baskets[user] >= 2)
        body: dict[str, object] = {"items": self.baskets[user], "price": price}
        if self.flaky and target == "/buy/7":
            self.flaky = False
            body["hint"] = "once"
        return 200, body

    def behave(self, connection: socket.socket, request: bytes) -> bool:
        user = re.search(rb"x-user: (\S+)", request)[1].decode()
        status, body = self.answer(user, request.split(b" ")[1].decode())
        text = json.dumps(body).encode()
        head = (
            f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        )
        connection.sendall(head.encode() + text)
        return True


def shopping(path: Path) -> Path:
    """Sessions that log in, put two things in, look, and buy: without what came before, nothing is sold."""

    def step(user: int, number: int) -> Exchange:
        target = ("/login", "/add/1", "/add/2", "/look", f"/buy/{user}")[number]
        given = {
            "target": target,
            "endpoint": f"GET {target.rstrip('0123456789')}{{id}}",
            "duration_ns": 1_000_000,
        }
        started = T0 + (user * STEPS + number) * 3_000_000
        headers = (("Host", "shop.test"), ("x-user", f"u{user}"))
        return exchange(user * STEPS + number, started_at=started, session_id=f"s{user}", connection_id=f"c{user}",
                        request_headers=headers, **given)  # fmt: skip

    return write(path, (step(user, number) for user in range(SESSIONS) for number in range(STEPS)))


def run(path: Path, capture: Path, shop: Shop) -> Path:
    """What a replay to this build would have recorded."""
    writer = DatasetWriter(path, "run", source={"capture": str(capture), "target": "http://x"}, settings={})
    rows = list(Dataset.open(capture).rows())
    for number, row in enumerate(rows):
        status, body = shop.answer(dict(row.request_headers)["x-user"], row.target)
        text = json.dumps(body).encode()
        given = {"exchange_id": row.exchange_id, "session_id": row.session_id, "endpoint": row.endpoint}
        given |= {"status": status, "response_body": text, "response_size": len(text)}
        writer.add(result(number, **given))
    books = {"planned": len(rows), "sent": len(rows), "answered": len(rows), "failed": {}, "skipped": {}}
    writer.close(
        {**books, "statuses": {}, "wall_ns": 10**9, "cpu_ns": 10**8, "behind": 0, "interrupted": False}
    )
    return path


def runs(tmp_path: Path, new: Shop) -> Report:
    """Three runs and their comparison."""
    capture = shopping(tmp_path / "capture")
    old, new_, again = (
        run(tmp_path / name, capture, shop)
        for name, shop in (("old", Shop()), ("new", new), ("again", Shop()))
    )
    return diff_runs(old, new_, again, DiffSettings(latency=None))


def asked_again(
    tmp_path: Path, report: Report, new: Shop, times: int = 5
) -> tuple[Report, list[list[bytes]]]:
    with RecordingServer(Shop().behave) as old_server, RecordingServer(new.behave) as new_server:
        targets = {"baseline": old_server.url, "candidate": new_server.url}
        settled = confirm(
            report, targets, tmp_path / "confirm", settings=DiffSettings(latency=None), running=RunSettings(),
            times=times,
        )  # fmt: skip
    return settled, [old_server.requests, new_server.requests]


def test_a_reproducible_suspect_becomes_a_regression_and_its_session_comes_before_it(tmp_path: Path) -> None:
    report = runs(tmp_path, Shop(dear="/buy/4"))
    (suspect,) = report.findings
    assert (suspect.path, suspect.judgement, report.verdict) == ("$.price", SUSPECT, "pass")
    settled, requests = asked_again(tmp_path, report, Shop(dear="/buy/4"))
    (finding,) = settled.findings
    assert (finding.judgement, settled.verdict) == (REGRESSION, "fail"), finding.reason
    assert finding.reason.startswith("reproducible: shows in 5 of 5")
    # Only this session is asked, whole and in order, five times over, by both builds.
    order = ["/login", "/add/1", "/add/2", "/look", "/buy/4"] * 5
    assert [[request.split(b" ")[1].decode() for request in each] for each in requests] == [order, order]
    assert all(b"x-user: u4" in request for each in requests for request in each)
    for turn in range(1, 6):
        for role in ("baseline", "candidate"):
            books = Dataset.open(tmp_path / "confirm" / f"run-{turn}" / role, "run").meta["books"]
            assert books["planned"] == books["answered"] == STEPS


def test_a_flaky_suspect_becomes_noise(tmp_path: Path) -> None:
    report = runs(tmp_path, Shop(flaky=True))
    (suspect,) = report.findings
    assert (suspect.path, suspect.judgement) == ("$.hint", SUSPECT)
    settled, _ = asked_again(tmp_path, report, Shop(), times=2)
    (finding,) = settled.findings
    assert (finding.judgement, settled.verdict) == (NOISE, "pass")
    assert "asked again: 1 finding, 0 reproducible, 1 flaky" in settled.notes


def test_nothing_suspect_asks_nothing(tmp_path: Path) -> None:
    report = runs(tmp_path, Shop())
    settled, requests = asked_again(tmp_path, report, Shop())
    assert settled is report
    assert requests == [[], []]


def test_the_command_settles_and_writes(tmp_path: Path) -> None:
    runs(tmp_path, Shop(dear="/buy/4"))
    (tmp_path / "replay.toml").write_text(PATIENT, "utf-8")
    with RecordingServer(Shop().behave) as old, RecordingServer(Shop().behave) as new:
        done = replay(
            "confirm", tmp_path / "old", tmp_path / "new", "--control", tmp_path / "again", "--times", 2,
            "--target", f"baseline={old.url}", "--target", f"candidate={new.url}",
            "--json", tmp_path / "report.json", "--config", tmp_path / "replay.toml",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "asked again: 1 finding, 0 reproducible, 1 flaky" in done.stdout
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert [(found["path"], found["judgement"]) for found in report["findings"]] == [("$.price", "noise")]


def test_a_session_is_asked_up_to_what_is_wanted_one_request_after_the_other() -> None:
    sessions = [
        [exchange(number, session_id=f"s{place}", connection_id=f"c{number}") for number in range(4)]
        for place in range(2)
    ]
    asked = list(askings(sessions[:1], {sessions[0][2].exchange_id}))
    assert [item.exchange_id for item in asked] == [item.exchange_id for item in sessions[0][:3]]
    assert {item.connection_id for item in asked} == {"s0"}
    times = [(item.started_at, item.started_at + (item.duration_ns or 0)) for item in asked]
    assert all(end < begin for (_, end), (begin, _) in pairwise(times))
    assert list(askings(sessions, set())) == []


def test_what_cannot_be_confirmed_says_why(tmp_path: Path) -> None:
    report = runs(tmp_path, Shop(dear="/buy/4"))
    targets = {"baseline": "http://127.0.0.1:1", "candidate": "http://127.0.0.1:1"}
    given = {"settings": DiffSettings(), "running": RunSettings()}
    with pytest.raises(ReplayError, match="needs two targets"):
        confirm(report, {"candidate": "http://x"}, tmp_path / "confirm", **given)
    with pytest.raises(ReplayError, match="cannot be reached"):
        confirm(report, targets, tmp_path / "confirm", **given)
    lost = replace(report.findings[0], examples=(Example("0" * 16, 0, "$", "", ""),))
    with pytest.raises(ReplayError, match="none of the exchanges to ask again"):
        confirm(replace(report, findings=(lost,)), targets, tmp_path / "confirm", **given)
    (tmp_path / "capture").rename(tmp_path / "elsewhere")
    with pytest.raises(ReplayError, match="name it with --capture"):
        confirm(report, targets, tmp_path / "other", **given)
