"""What a session sees after a write that one build refused follows from that, and is no finding of its own."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from replay.diff.accepted import Acceptance
from replay.diff.diverged import NO_WAYS, Turn, Ways, Wrote, turned
from replay.diff.pairs import Trio
from replay.diff.session import Comparison
from replay.diff.settings import DiffSettings
from replay.findings import REGRESSION, Report
from replay.report import json_
from replay.store import writer
from replay.verbs import partitions
from replay.verbs.diff import diff_runs
from tests.diff.conftest import make_answer
from tests.rows import result
from tests.store.test_dataset import write


def wrote(number: int, session: str = "s", status: int | None = 201, **given: Any) -> Wrote:
    known = {"lap": 0, "endpoint": "POST /cart", "error": None, "skipped": None, **given}
    return Wrote(exchange_id=f"{number:04d}", session_id=session, status=status, **known)


TURNS = [
    pytest.param(wrote(1), wrote(1, status=200), False, id="both did it"),
    pytest.param(wrote(1), wrote(1, status=500), True, id="the other did not"),
    pytest.param(wrote(1, status=409), wrote(1, status=201), True, id="only the other did"),
    pytest.param(wrote(1, status=409), wrote(1, status=500), False, id="neither did"),
    pytest.param(wrote(1), wrote(1, status=None, error="timeout"), True, id="no answer"),
    pytest.param(wrote(1), wrote(1, status=None, skipped="worker lost"), False, id="it was not asked"),
    pytest.param(wrote(1), wrote(2, status=500), False, id="another exchange"),
    pytest.param(wrote(1), wrote(1, status=500, lap=1), False, id="another lap"),
]


@pytest.mark.parametrize(("left", "right", "another"), TURNS)
def test_a_session_goes_another_way_where_a_write_fares_otherwise(
    left: Wrote, right: Wrote, another: bool
) -> None:
    assert bool(turned([left], [right])) == another


def test_the_first_such_write_counts_and_sessions_are_bounded() -> None:
    old = [wrote(n, session=f"s{n % 3}") for n in range(9)]
    new = [wrote(n, session=f"s{n % 3}", status=500) for n in range(9) if n != 0]
    assert turned(old, new) == {
        ("s1", 0): Turn("0001", "POST /cart"),
        ("s2", 0): Turn("0002", "POST /cart"),
        ("s0", 0): Turn("0003", "POST /cart"),
    }
    assert turned(old, new, most=1) == {("s1", 0): Turn("0001", "POST /cart")}


def test_only_what_comes_later_in_that_session_elsewhere_follows() -> None:
    ways = Ways({("s", 0): Turn("0005", "POST /cart")}, {("t", 1): Turn("0001", "POST /in")})
    asked = [
        *(("0004", 0, "s", "GET /cart"), ("0005", 0, "s", "POST /cart"), ("0006", 0, "s", "GET /cart")),
        *(("0006", 1, "s", "GET /cart"), ("0006", 0, "s", "POST /cart"), ("0006", 1, "t", "GET /x")),
    ]
    found = [ways.cause(*exchange) for exchange in asked]
    assert found == [None, None, "POST /cart", None, None, "POST /in"]
    assert ways.before("0005") == Ways({}, ways.control)
    assert ways.before(None) == ways


def compared(failing: int, settings: DiffSettings | None = None, control_fails: int = 0) -> Report:
    """Sixty sessions add to a cart and look at it, then at the news, which differ in all; the first `failing` creates
    fail in the candidate, the last `control_fails` in the control."""

    def status(fails: bool) -> int:
        return 500 if fails else 201

    trios, writes = [], ([], [], [])
    for number in range(60):
        bad = (False, number < failing, number >= 60 - control_fails)
        creates = [
            make_answer(3 * number, endpoint="POST /cart", session_id=f"s{number}", status=status(b))
            for b in bad
        ]
        carts = [
            make_answer(
                3 * number + 1, {"items": [] if b else [1]}, endpoint="GET /cart", session_id=f"s{number}"
            )
            for b in bad
        ]
        trios += [Trio(*creates), Trio(*carts)]
        for side, answer in zip(writes, creates, strict=True):
            side.append(Wrote(*answer[:5], None, None))
    ways = Ways(turned(writes[0], writes[1]), turned(writes[0], writes[2]))
    comparison = Comparison(settings or DiffSettings(), has_control=True, ways=ways)
    for trio in trios:
        comparison.add(trio)
    return comparison.report("old", "new", "again")


NOTE = (
    "30 exchanges downstream of POST /cart, which fared otherwise before them in their sessions,"
    " not counted as findings: GET /cart $.items[*] missing (30)"
)


def test_what_follows_from_a_regression_is_no_finding() -> None:
    report = compared(failing=30)
    assert [(f.endpoint, f.differing) for f in report.judged(REGRESSION)] == [("POST /cart", 30)]
    assert {f.endpoint for f in report.findings} == {"POST /cart"}
    assert NOTE in report.notes
    assert report.book.paired == 120


def test_what_follows_from_noise_counts_as_ever() -> None:
    report = compared(failing=6, control_fails=6)
    assert report.judged(REGRESSION) == ()
    assert {(f.endpoint, f.differing) for f in report.findings} == {("POST /cart", 6), ("GET /cart", 6)}
    assert not any("downstream" in note for note in report.notes)


def test_an_accepted_difference_hides_nothing() -> None:
    cause = compared(failing=30).findings[0]
    settings = DiffSettings(
        accepted=(Acceptance(finding=cause.id, until=date(2030, 1, 1), because="known"),),
        today=date(2029, 1, 1),
    )
    report = compared(failing=30, settings=settings)
    assert [f.endpoint for f in report.judged(REGRESSION)] == ["GET /cart"]


def test_without_a_look_at_sessions_all_are_findings() -> None:
    assert NO_WAYS.cause("1", 0, "s", "GET /x") is None


def test_runs_on_disk_by_any_number_of_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str, fails: bool) -> Path:
        rows = []
        for number in range(600):
            bad = fails and number % 2 == 0
            known = {"session_id": f"s{number}", "lap": 0}
            rows.append(result(2 * number, endpoint="POST /cart", status=500 if bad else 201, **known))
            body = b'{"items": []}' if bad else b'{"items": [1]}'
            rows.append(result(2 * number + 1, endpoint="GET /cart", response_body=body, **known))
        return write(tmp_path / name, rows, "run")

    monkeypatch.setattr(writer, "_BATCH_ROWS", 100)
    monkeypatch.setattr(writer, "PART_BYTES", 1)
    old, new, again = run("old", False), run("new", True), run("again", False)
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 100_000)
    assert (
        len(partitions.partitions([partitions.Source(path, "run") for path in (old, new)], DiffSettings()))
        > 3
    )
    reports = [json_.render(diff_runs(old, new, again, jobs=jobs)) for jobs in (1, 2)]
    assert reports[0] == reports[1]
    report = diff_runs(old, new, again)
    assert {f.endpoint for f in report.findings} == {"POST /cart"}
    assert any(note.startswith("300 exchanges downstream of POST /cart,") for note in report.notes)
