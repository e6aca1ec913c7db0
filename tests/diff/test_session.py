"""The whole comparison in memory: trios in, a report out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from replay.diff.answers import Answer, CompareSettings
from replay.diff.pairs import Trio
from replay.diff.rules import compile_rules
from replay.diff.session import NO_CONTROL, Comparison
from replay.diff.settings import DiffSettings
from replay.findings import FAIL, INVALID, NOISE, PASS, REGRESSION, SUSPECT, Report

from .conftest import make_answer

Change = Callable[[int, dict[str, Any]], dict[str, Any]]
LOST: dict[str, Any] = {"status": None, "error": "reset", "response_body": None, "response_size": 0}


def build(seed: int, n: int, change: Change | None = None) -> Iterator[Answer]:
    """A build with honest noise: a clock, a random choice, a shuffled list, a flake now and then."""
    draw = random.Random(seed)
    for number in range(n):
        items = [{"id": i, "price": i * number % 17} for i in range(5)]
        draw.shuffle(items)
        body = {
            "at": draw.random(),
            "tip": draw.choice("abc"),
            "items": items,
            "total": number % 23,
            "name": f"n{number}",
        }
        if draw.random() < 0.001:
            body.pop("tip")
        given = {"body": body, "endpoint": f"GET /{number % 3}/{{id}}"}
        yield make_answer(number, **(change(number, given) if change else given))


def compared(change: Change | None = None, n: int = 900, control: bool = True, **settings: Any) -> Report:
    comparison = Comparison(DiffSettings(**settings), control)
    for old, new, again in zip(build(1, n), build(2, n, change), build(3, n), strict=True):
        comparison.add(Trio(old, new, again if control else None))
    return comparison.report("old", "new", "again" if control else None)


def regressions(report: Report) -> list[tuple[str, str, str]]:
    return [(finding.endpoint, finding.path, finding.kind) for finding in report.judged(REGRESSION)]


def rename(number: int, given: dict[str, Any]) -> dict[str, Any]:
    if number % 3 == 0:
        given["body"]["sum"] = given["body"].pop("total")
    return given


def wrong_price_in_a_shuffled_list(number: int, given: dict[str, Any]) -> dict[str, Any]:
    if number % 3 == 1 and number % 7 == 0:
        given["body"]["items"][0]["price"] += 100
    return given


def fail_some(number: int, given: dict[str, Any]) -> dict[str, Any]:
    return {**given, "status": 500} if number % 3 == 2 and number % 20 == 0 else given


def lose_a_header(number: int, given: dict[str, Any]) -> dict[str, Any]:
    return {**given, "response_headers": ()} if number % 3 == 0 else given


def drop_answers(number: int, given: dict[str, Any]) -> dict[str, Any]:
    return {**given, **LOST, "body": b""} if number % 3 == 0 and number % 10 == 0 else given


PLANTED = [
    pytest.param(rename, [("GET /0/{id}", "$.total", "missing"), ("GET /0/{id}", "$.sum", "extra")], id="rename"),
    pytest.param(wrong_price_in_a_shuffled_list, [("GET /1/{id}", "$.items[*].price", "value")], id="wrong price"),
    pytest.param(fail_some, [("GET /2/{id}", "status", "status")], id="errors"),
    pytest.param(lose_a_header, [("GET /0/{id}", "headers.content-type", "missing")], id="header"),
    pytest.param(drop_answers, [("GET /0/{id}", "error", "error")], id="no answer"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), PLANTED)
def test_what_was_planted_is_found_and_nothing_else(
    change: Change, expected: list[tuple[str, str, str]]
) -> None:
    report = compared(change)
    assert regressions(report) == expected
    assert (report.verdict, report.exit_code) == (FAIL, 1)
    assert all(finding.examples for finding in report.findings)


def test_a_build_passes_beside_itself_time_and_again() -> None:
    # Over 800 such comparisons none alarmed.
    for seed in range(0, 45, 3):
        comparison = Comparison(DiffSettings(), has_control=True)
        for trio in zip(build(seed, 300), build(seed + 1, 300), build(seed + 2, 300), strict=True):
            comparison.add(Trio(*trio))
        assert comparison.report("old", "new", "again").verdict == PASS


def test_a_build_passes_beside_itself() -> None:
    report = compared()
    assert regressions(report) == []
    assert (report.verdict, report.exit_code, report.notes) == (PASS, 0, ())
    assert {finding.path for finding in report.judged(NOISE)} >= {"$.at", "$.tip", "$.items"}


def test_the_worst_comes_first() -> None:
    report = compared(lambda number, given: fail_some(number, rename(number, given)))
    kinds = [finding.kind for finding in report.judged(REGRESSION)]
    assert kinds == ["status", "missing", "extra"]
    judged = [finding.judgement for finding in report.findings]
    assert judged == sorted(judged, key=[REGRESSION, SUSPECT, NOISE].index)


def test_without_a_control_every_difference_counts_and_the_report_says_so() -> None:
    report = compared(control=False)
    assert report.verdict == FAIL
    assert NO_CONTROL in report.notes
    assert {"$.at", "$.tip", "$.items"} <= {path for _, path, _ in regressions(report)}
    assert report.control_book is None


def test_rules_are_applied_and_one_that_never_matched_shows() -> None:
    rules = compile_rules([{"path": "$.total", "ignore": True}, {"path": "$.sum", "ignore": True},
                           {"path": "$.nowhere", "ignore": True}])  # fmt: skip
    report = compared(rename, compare=CompareSettings(rules=rules))
    assert report.verdict == PASS
    assert [use.matched for use in report.rules] == [300, 300, 0]


def test_examples_prefer_exchanges_where_only_the_candidate_differs() -> None:
    report = compared(
        lambda number, given: given if number % 3 else {**given, "body": {**given["body"], "tip": "z"}}
    )
    (finding,) = report.judged(REGRESSION)
    assert (finding.endpoint, finding.path, finding.differing) == ("GET /0/{id}", "$.tip", 300)
    assert [example.right for example in finding.examples] == ['"z"'] * 3
    assert finding.odd_candidate > 50


def trios(paired: int, missing: int = 0, failed: int = 0) -> Report:
    comparison = Comparison(DiffSettings(), has_control=False)
    for number in range(paired):
        comparison.add(Trio(make_answer(number), make_answer(number), None))
    for number in range(paired, paired + missing):
        comparison.add(Trio(make_answer(number), None, None))
    for number in range(paired + missing, paired + missing + failed):
        comparison.add(Trio(make_answer(number, **LOST), make_answer(number), None))
    return comparison.report("old", "new", None)


INVALIDS = [
    (trios(0), "no exchange has an answer in both runs"),
    (trios(80, missing=20), "20 of 100 exchanges have no pair (20.0%"),
    (trios(90, failed=10), "the baseline failed 10 of 100 exchanges (10.0%"),
]


@pytest.mark.parametrize(("report", "reason"), INVALIDS)
def test_a_run_that_was_not_faithful_is_invalid(report: Report, reason: str) -> None:
    assert (report.verdict, report.exit_code) == (INVALID, 3)
    assert report.reasons[0].startswith(reason)


def test_a_control_of_another_capture_is_invalid() -> None:
    comparison = Comparison(DiffSettings(), has_control=True)
    comparison.add(Trio(make_answer(1), make_answer(1), None))
    comparison.add(Trio(None, None, make_answer(2)))
    assert comparison.report("old", "new", "again").verdict == INVALID


def test_places_without_number_fall_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay.diff.tally.MAX_PLACES", 10)
    comparison = Comparison(DiffSettings(), has_control=False)
    for number in range(100):
        key = "k" + "".join(chr(97 + int(digit)) for digit in str(number))
        comparison.add(Trio(make_answer(number, {key: 1}), make_answer(number, {key: 2}), None))
    findings = comparison.report("old", "new", None).findings
    assert len(findings) == 11
    assert max(finding.differing for finding in findings) == 90
