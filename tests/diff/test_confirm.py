"""Suspects asked again: what is counted, and what it is judged as."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import isclose
from typing import Any

import pytest

from replay.diff.answers import Answer, Comparer, CompareSettings
from replay.diff.confirm import Seen, judge, seen, settle, suspects
from replay.findings import FAIL, INVALID, NOISE, PASS, REGRESSION, SUSPECT, Example, Report
from tests.report.reports import FULL, finding

from .conftest import make_answer

VERDICTS = [
    (Seen(), SUSPECT, "could not be asked again"),
    (Seen(5, 5, 4, 0), REGRESSION, "reproducible: shows in 5 of 5 asked again, old beside old in 0 of 4"),
    (Seen(15, 15, 12, 0), REGRESSION, "reproducible"),
    (Seen(15, 9, 12, 0), REGRESSION, "reproducible"),
    (Seen(5, 0, 4, 0), NOISE, "flaky: shows in 0 of 5"),
    (Seen(5, 5, 4, 4), NOISE, "flaky"),
    (Seen(15, 7, 12, 5), NOISE, "flaky"),
    (Seen(5, 0, 4, 4), NOISE, "flaky"),
    (Seen(5, 2, 4, 0), SUSPECT, "flaky, but only with the new build"),
    (Seen(2, 2, 1, 0), SUSPECT, "asked too seldom"),
    (Seen(1, 1, 0, 0), SUSPECT, "asked too seldom"),
]


@pytest.mark.parametrize(("found", "judgement", "reason"), VERDICTS)
def test_how_it_is_judged(found: Seen, judgement: str, reason: str) -> None:
    judged = judge(found)
    assert judged[0] == judgement
    assert judged[1].startswith(reason)


@pytest.mark.parametrize("found", [Seen(5, 5, 4, 0), Seen(5, 3, 4, 1), Seen(3, 1, 4, 2), Seen(4, 0, 3, 3)])
def test_p_is_the_share_of_all_ways_to_deal_out_what_was_seen(found: Seen) -> None:
    pairs = range(found.asked + found.beside)
    marked = found.shown + found.noisy
    ways = list(combinations(pairs, marked))
    as_many = sum(sum(place < found.asked for place in way) >= found.shown for way in ways)
    assert isclose(found.p, as_many / len(ways))


def asked(*pairs: tuple[Any, Any]) -> list[tuple[Answer | None, Answer | None]]:
    return [tuple(None if body is None else make_answer(body=body) for body in pair) for pair in pairs]  # type: ignore[misc]


LOST = make_answer(status=None, error="reset", response_body=None, response_size=0)
PRICE = replace(finding(SUSPECT, "$.items[*].p"), examples=(Example("x", 0, "$.items[3].p", "1", "2"),))
GONE = replace(PRICE, id="gone", path="$.note", kind="missing")
COUNTS = [
    pytest.param(asked(*[({"items": [{"p": 1}]}, {"items": [{"p": 2}]})] * 3), Seen(3, 3, 2, 0), id="every time"),
    pytest.param(asked(*[({"items": [{"p": 1}]}, {"items": [{"p": 1}]})] * 3), Seen(3, 0, 2, 0), id="never"),
    pytest.param(asked(*(({"items": [{"p": n}]}, {"items": [{"p": "z"}]}) for n in "abc")), Seen(3, 3, 2, 2), id="t"),
    pytest.param(asked(({"items": []}, None), (None, {"items": []})), Seen(0, 0, 0, 0), id="not sent"),
    pytest.param([(LOST, LOST)] * 2, Seen(0, 0, 0, 0), id="both lost"),
    pytest.param([], Seen(0, 0, 0, 0), id="not asked"),
]  # fmt: skip


@pytest.mark.parametrize(("pairs", "expected"), COUNTS)
def test_what_is_counted(pairs: list[tuple[Answer | None, Answer | None]], expected: Seen) -> None:
    assert seen([PRICE], {"x": pairs}, Comparer(CompareSettings())) == {PRICE.id: expected}


def test_what_comes_and_goes_in_the_old_build_is_noise_of_what_is_missing() -> None:
    pairs = asked(({"note": 1}, {}), ({}, {"note": 1}), ({"note": 1}, {}), ({}, {}))
    assert seen([GONE], {"x": pairs}, Comparer(CompareSettings()))["gone"] == Seen(4, 2, 3, 3)


def report(**given: Any) -> Report:
    return replace(FULL, latency=(), findings=(finding(REGRESSION, "$.a", id="a"), PRICE, GONE), **given)


def test_the_verdict_is_made_anew() -> None:
    without = replace(report(), findings=(PRICE, GONE), verdict=PASS, reasons=("fine",))
    settled = settle(without, {PRICE.id: Seen(5, 5, 4, 0), "gone": Seen(5, 0, 4, 0)})
    assert (settled.verdict, settled.reasons) == (FAIL, ("1 regression on 1 endpoint",))
    assert [f.judgement for f in settled.findings] == [REGRESSION, NOISE]
    assert settled.notes[-1] == "asked again: 2 findings, 1 reproducible, 1 flaky"
    calmed = settle(report(control=None), {"a": Seen(5, 0, 4, 0), "gone": Seen(5, 1, 4, 0)})
    assert calmed.verdict == PASS
    assert calmed.notes[-1].endswith("0 reproducible, 1 flaky, 1 open")


def test_which_are_asked_again() -> None:
    assert [f.id for f in suspects(report())] == [PRICE.id, "gone"]
    assert [f.id for f in suspects(report(control=None))] == ["a", PRICE.id, "gone"]
    assert suspects(report(verdict=INVALID)) == ()
    anywhere = replace(PRICE, path="$..")
    assert suspects(replace(report(), findings=(anywhere, replace(PRICE, examples=())))) == ()
    nothing = report()
    assert settle(nothing, {}) is nothing
