"""Accepted differences: judged, counted, expired, idle."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from replay.diff.accepted import Acceptance, accept
from replay.diff.pairs import Trio
from replay.diff.session import Comparison
from replay.diff.settings import DiffSettings
from replay.findings import ACCEPTED, FAIL, INVALID, NOISE, PASS, REGRESSION, LatencyRow, Report, finding_id

from .conftest import make_answer

DAY = date(2027, 1, 31)
TOTAL = finding_id("GET /x", "$.total", "value")
SLOWER = finding_id("GET /x", "p95", "slower")


def report(*paths: str, **settings: Any) -> Report:
    comparison = Comparison(DiffSettings(**settings), has_control=True)
    for number in range(100):
        old = make_answer(number, dict.fromkeys(paths, 1) | {"same": 1})
        new = make_answer(number, dict.fromkeys(paths, 2) | {"same": 1})
        comparison.add(Trio(old, new, old))
    return comparison.report("old", "new", "again")


def acceptance(finding: str = TOTAL, until: date = DAY) -> Acceptance:
    return Acceptance(finding, until, "cents now")


CASES = [
    pytest.param(["total"], [acceptance()], DAY, PASS, [ACCEPTED], 0, id="accepted"),
    pytest.param(["total"], [acceptance()], date(2027, 2, 1), FAIL, [REGRESSION], 1, id="expired"),
    pytest.param(["total", "tax"], [acceptance()], DAY, FAIL, [REGRESSION, ACCEPTED], 0, id="one of two"),
    pytest.param(["total"], [acceptance("00000000")], DAY, FAIL, [REGRESSION], 1, id="idle"),
    pytest.param([], [acceptance(until=date(2020, 1, 1))], DAY, PASS, [], 1, id="expired and idle"),
    pytest.param(["total"], [], DAY, FAIL, [REGRESSION], 0, id="none"),
]


@pytest.mark.parametrize(("paths", "acceptances", "today", "verdict", "judgements", "notes"), CASES)
def test_what_is_accepted(
    paths: list[str],
    acceptances: list[Acceptance],
    today: date,
    verdict: str,
    judgements: list[str],
    notes: int,
) -> None:
    found = report(*paths, accepted=tuple(acceptances), today=today)
    assert found.verdict == verdict
    assert [finding.judgement for finding in found.findings] == judgements
    assert len(found.notes) == notes


def test_the_report_says_until_when_and_why_and_that_it_expired() -> None:
    (finding,) = report("total", accepted=(acceptance(),), today=DAY).findings
    assert finding.reason == "accepted until 2027-01-31: cents now"
    expired = report("total", accepted=(acceptance(),), today=date(2027, 2, 1))
    assert "expired" in expired.findings[0].reason
    assert "expired" in expired.notes[0]
    assert TOTAL in expired.notes[0]


def row(judgement: str) -> LatencyRow:
    return LatencyRow("GET /x", 0.95, 100, 1.0, 9.0, 9.0, 8.0, 10.0, 1.0, judgement, "slower")


def test_a_slower_endpoint_may_be_accepted_too() -> None:
    slow = replace(report(), latency=(row(REGRESSION),), verdict=FAIL)
    accepted = accept(slow, [acceptance(SLOWER)], DAY)
    assert (accepted.verdict, accepted.latency[0].judgement) == (PASS, ACCEPTED)


def test_noise_stays_noise_and_an_invalid_report_stays_invalid() -> None:
    invalid = replace(report("total"), verdict=INVALID, reasons=("lost",), latency=(row(NOISE),))
    accepted = accept(invalid, [acceptance(), acceptance(SLOWER)], DAY)
    assert (accepted.verdict, accepted.reasons) == (INVALID, ("lost",))
    assert accepted.latency[0].judgement == NOISE
    assert accepted.findings[0].judgement == ACCEPTED
