"""The closing words: what was found, what was not, and what to try next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from replay.demo.builds import PLANTED
from replay.demo.conclusion import conclusion
from replay.demo.verify import verify
from replay.findings import PASS, REGRESSION, Example, Finding, LatencyRow, PairBook, Report


def finding(endpoint: str, path: str, kind: str) -> Finding:
    example = Example("exchange-1", 0, path, "old", "new")
    return Finding(
        *("f", endpoint, path, kind, 200, 50, 200, 0, 50, 0, 0, 40, 0.0, 0.0, REGRESSION, "", (example,))
    )


@pytest.fixture
def report() -> Report:
    signs = [sign for regression in PLANTED for sign in regression.signs]
    return Report(
        verdict=PASS,
        reasons=(),
        baseline="old",
        candidate="new",
        control="old-again",
        findings=tuple(finding(s.endpoint, s.path, s.kind) for s in signs if s.kind != "slower"),
        latency=tuple(
            LatencyRow(s.endpoint, 0.5, 200, 4.5, 45.0, 10.0, 9.0, 11.0, 1.0, REGRESSION, "")
            for s in signs
            if s.kind == "slower"
        ),
        endpoints=(),
        book=PairBook(200, 200, {}),
        control_book=None,
    )


def test_all_found(report: Report) -> None:
    text = conclusion(report, verify(report, PLANTED), Path("here"), 27.4)
    assert "The demonstration held, in 27 s: all 6 were found, and nothing else." in text
    assert "GET /: headers.content-security-policy missing in 50/200 = 25 %, regression" in text
    assert "GET /search: status in 50/200" in text
    assert "4.5 ms → 45 ms at the median" in text
    assert "replay show exchange-1 here/old here/new" in text
    assert "MISSED" not in text
    assert text.endswith("here/report.html\n")


def test_something_missed_and_something_invented(report: Report) -> None:
    kept = tuple(f for f in report.findings if f.path != "$.price")
    report = replace(report, findings=(*kept, finding("GET /cart", "$.lines[*].title", "value")), latency=())
    text = conclusion(report, verify(report, PLANTED), Path("here"), 27.4)
    assert "The demonstration did NOT hold, in 27 s: 4 of 6 were found." in text
    assert "  missing: GET /products/{id}: $.price type\n" in text
    assert "  not planted: GET /cart: $.lines[*].title value\n" in text
    assert "GET /products/{id}: $.price type in none" in text
    assert "GET /products/{id}/reviews: no times" in text


def test_nothing_found_at_all(report: Report) -> None:
    report = replace(report, findings=(), latency=())
    text = conclusion(report, verify(report, PLANTED), Path("here"), 27.4)
    assert "0 of 6 were found" in text
    assert "replay show" not in text


def test_something_slower_that_was_not_planted_may_be_the_machine(report: Report) -> None:
    busy = LatencyRow("GET /cart", 0.95, 200, 5.0, 50.0, 10.0, 9.0, 11.0, 1.0, REGRESSION, "")
    report = replace(report, latency=(*report.latency, busy))
    text = conclusion(report, verify(report, PLANTED), Path("here"), 27.4)
    assert "  not planted: GET /cart: slower\n" in text
    assert "try again" in text
