"""Bound values are one value whatever each build made of it; what follows from a difference is not another one."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from replay.diff.accepted import Acceptance
from replay.diff.answers import Comparer, CompareSettings
from replay.diff.bound import makers
from replay.diff.pairs import Trio
from replay.diff.session import Comparison
from replay.diff.settings import DiffSettings
from replay.findings import FAIL, PASS, REGRESSION
from tests.diff.conftest import make_answer

OLD, NEW = (("41", "812"), ("tok-r", "tok-a")), (("41", "977"), ("tok-r", "tok-b"))

TABLE = [
    pytest.param({"id": 812}, {"id": 977}, [], id="a number"),
    pytest.param({"id": "812"}, {"id": "977"}, [], id="a text"),
    pytest.param({"u": "/orders/812?t=tok-a"}, {"u": "/orders/977?t=tok-b"}, [], id="inside a text"),
    pytest.param([812, 1], [977, 1], [], id="in a list"),
    pytest.param(
        {"o": [{"id": 812}, {"id": 5}]}, {"o": [{"id": 977}, {"id": 5}]}, [], id="in a list of objects"
    ),
    pytest.param({"id": 812}, {"id": 978}, ["$.id"], id="not the live value"),
    pytest.param({"id": 977}, {"id": 812}, ["$.id"], id="each build has its own"),
    pytest.param({"n": "x8120"}, {"n": "x9770"}, ["$.n"], id="part of another word"),
    pytest.param({"id": 812, "n": 1}, {"id": 977, "n": 2}, ["$.n"], id="a true difference beside"),
    pytest.param({"id": 812}, {"id": "977"}, ["$.id"], id="another type is a difference"),
    pytest.param({"id": 812}, {}, ["$.id"], id="missing is a difference"),
]


@pytest.mark.parametrize(("left", "right", "paths"), TABLE)
def test_bound_values_compare_as_equal(left: Any, right: Any, paths: list[str]) -> None:
    found = Comparer(CompareSettings()).differences(
        make_answer(body=left, learned=OLD), make_answer(body=right, learned=NEW)
    )
    assert [difference.path for difference in found] == paths


def test_lines_of_a_page_and_headers_too() -> None:
    def page(live: str, token: str) -> dict[str, Any]:
        body = f'<p>\n<a href="/orders/{live}/">order {live}</a>\n<input value="{token}">\n</p>\n'.encode()
        return {
            "body": body,
            "response_headers": (("Content-Type", "text/html"), ("Location", f"/orders/{live}")),
        }

    left = make_answer(**page("812", "tok-a"), learned=OLD)
    right = make_answer(**page("977", "tok-b"), learned=NEW)
    assert Comparer(CompareSettings()).differences(left, right) == []


def test_a_capture_has_the_recorded_values_themselves() -> None:
    found = Comparer(CompareSettings()).differences(
        make_answer(body={"id": 41}), make_answer(body={"id": 977}, learned=NEW)
    )
    assert found == []


CAUSE = "path[1] from POST /orders $.id: answered 500"


def compared(*, unbound: str | None, creates_fail: bool, settings: DiffSettings | None = None) -> Any:
    comparison = Comparison(settings or DiffSettings(), has_control=True)
    for number in range(60):
        create = make_answer(2 * number, endpoint="POST /orders", status=201)
        broken = make_answer(2 * number, endpoint="POST /orders", status=500 if creates_fail else 201)
        comparison.add(Trio(create, broken, create))
        show = make_answer(2 * number + 1, endpoint="GET /orders/{id}")
        gone = make_answer(2 * number + 1, endpoint="GET /orders/{id}", status=404, unbound=unbound)
        comparison.add(Trio(show, gone, show))
    return comparison


def test_what_follows_from_a_failed_create_is_downstream_of_it() -> None:
    comparison = compared(unbound=CAUSE, creates_fail=True)
    report = comparison.report("old", "new", "again")
    assert {finding.endpoint for finding in report.findings} == {"POST /orders"}
    assert (
        f"60 exchanges downstream of an earlier difference, not counted as findings: {CAUSE}" in report.notes
    )
    assert report.verdict == FAIL
    assert report.book.paired == 120


def test_downstream_adds_up_over_partitions() -> None:
    whole = compared(unbound=CAUSE, creates_fail=True)
    whole.absorb(compared(unbound=CAUSE, creates_fail=True).partial())
    assert whole.sums.downstream == {CAUSE: 120}


def test_a_difference_that_follows_from_nothing_is_a_finding() -> None:
    report = compared(unbound=None, creates_fail=False).report("old", "new", "again")
    assert {finding.endpoint for finding in report.findings} == {"GET /orders/{id}"}
    assert report.verdict == FAIL


def test_values_that_both_builds_lacked_are_compared_as_usual() -> None:
    comparison = Comparison(DiffSettings(), has_control=False)
    comparison.add(Trio(make_answer(unbound=CAUSE), make_answer(body={"ok": False}, unbound=CAUSE), None))
    report = comparison.report("old", "new", None)
    assert [finding.path for finding in report.findings] == ["$.ok"]
    assert report.verdict != PASS


def test_consequences_count_where_their_cause_does_not() -> None:
    """The create is answered alike, as far as rules let anybody see: then the lost page is the finding."""
    report = compared(unbound=CAUSE, creates_fail=False).report("old", "new", "again")
    assert [finding.endpoint for finding in report.judged(REGRESSION)] == ["GET /orders/{id}"]
    assert not any("downstream" in note for note in report.notes)


def test_an_accepted_cause_hides_nothing() -> None:
    cause = compared(unbound=CAUSE, creates_fail=True).report("old", "new", "again").findings[0]
    accepted = Acceptance(finding=cause.id, until=date(2030, 1, 1), because="known")
    settings = DiffSettings(accepted=(accepted,), today=date(2029, 1, 1))
    report = compared(unbound=CAUSE, creates_fail=True, settings=settings).report("old", "new", "again")
    assert [finding.endpoint for finding in report.judged(REGRESSION)] == ["GET /orders/{id}"]


def test_a_login_of_the_users_own_that_fails_hides_nothing() -> None:
    report = compared(unbound="login answered 500", creates_fail=False).report("old", "new", "again")
    assert report.verdict == FAIL


def test_what_was_not_asked_is_no_builds_doing() -> None:
    cause = "path[1] from POST /orders $.id: answered 404 (path[1] from POST /carts $.id: not sent)"
    report = compared(unbound=cause, creates_fail=False).report("old", "new", "again")
    assert report.findings == ()
    assert any(cause in note for note in report.notes)


def test_the_makers_of_a_chain() -> None:
    chain = (
        "path[1] from POST /orders $.id: answered 404 (query from from GET /a header location: answered 500)"
    )
    assert makers(chain) == ("GET /a", "POST /orders")
    assert makers("login answered 500") == ()
