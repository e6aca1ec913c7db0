"""All that was planted, and nothing else: the report is held to both."""

from __future__ import annotations

import pytest

from replay.demo.builds import PLANTED, Regression, Sign
from replay.demo.verify import verify
from replay.findings import NOISE, PASS, REGRESSION, SUSPECT, Finding, LatencyRow, PairBook, Report

RENAMED = Regression("renamed", (Sign("GET /a", "$.x", "missing"), Sign("GET /a", "$.y", "extra")))
BROKEN = Regression("broken", (Sign("GET /b", "status", "status"),), (Sign("GET /b", "$.error", "extra"),))
SLOW = Regression("slow", (Sign("GET /c", "", "slower"),))


def finding(endpoint: str, path: str, kind: str, judgement: str = REGRESSION) -> Finding:
    return Finding(
        id="f",
        endpoint=endpoint,
        path=path,
        kind=kind,
        pairs=9,
        differing=9,
        control_pairs=9,
        control_differing=0,
        odd_candidate=9,
        odd_control=0,
        odd_baseline=0,
        sessions=9,
        p_value=0.0,
        q_value=0.0,
        judgement=judgement,
        reason="",
        examples=(),
    )


def slower(endpoint: str, quantile: float, judgement: str = REGRESSION) -> LatencyRow:
    return LatencyRow(endpoint, quantile, 9, 4.0, 40.0, 10.0, 9.0, 11.0, 1.0, judgement, "")


def report(*rows: Finding | LatencyRow) -> Report:
    return Report(
        verdict=PASS,
        reasons=(),
        baseline="old",
        candidate="new",
        control="old again",
        findings=tuple(row for row in rows if isinstance(row, Finding)),
        latency=tuple(row for row in rows if isinstance(row, LatencyRow)),
        endpoints=(),
        book=PairBook(9, 9, {}),
        control_book=None,
    )


ALL = (
    finding("GET /a", "$.x", "missing"),
    finding("GET /a", "$.y", "extra"),
    finding("GET /b", "status", "status"),
    slower("GET /c", 0.5),
    slower("GET /c", 0.95),
)


@pytest.mark.parametrize(
    ("rows", "found", "missing", "unexpected"),
    [
        (ALL, 3, 0, 0),
        ((*ALL, finding("GET /b", "$.error", "extra")), 3, 0, 0),  # follows a planted one
        ((*ALL, finding("GET /d", "$", "value")), 3, 0, 1),
        ((*ALL, finding("GET /d", "$", "value", NOISE)), 3, 0, 0),
        ((*ALL, finding("GET /d", "$", "value", SUSPECT)), 3, 0, 0),
        ((*ALL, slower("GET /d", 0.5)), 3, 0, 1),
        ((*ALL, slower("GET /d", 0.5, NOISE)), 3, 0, 0),
        (ALL[1:], 2, 1, 0),
        (ALL[:3], 2, 1, 0),
        ((), 0, 4, 0),
    ],
)
def test_a_report_is_held_against_the_list(
    rows: tuple[Finding | LatencyRow, ...], found: int, missing: int, unexpected: int
) -> None:
    verdict = verify(report(*rows), (RENAMED, BROKEN, SLOW))
    assert (len(verdict.found), len(verdict.missing), len(verdict.unexpected)) == (found, missing, unexpected)
    assert verdict.held is (missing == unexpected == 0)


def test_a_report_of_all_signs_holds() -> None:
    rows = [
        slower(sign.endpoint, 0.5) if sign.kind == "slower" else finding(sign.endpoint, sign.path, sign.kind)
        for regression in PLANTED
        for sign in regression.signs
    ]
    verdict = verify(report(*rows), PLANTED)
    assert verdict.held
    assert verdict.found == PLANTED
