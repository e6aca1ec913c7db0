"""The verdict: limits and fidelity, as a table of what is allowed, what was found, and what is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replay.findings import FAIL, INVALID, NOISE, PASS, REGRESSION, Report
from replay.report.dossier import CANDIDATE, CONTROL
from replay.report.gate import Limits, invalidated, judged

from .dossiers import BROKEN, HELD, dossier, fidelity
from .reports import EMPTY, FULL, UNFAITHFUL, latency

NOTHING = Limits(regressions=None, slower=None)
QUIET = replace(EMPTY, latency=(latency(NOISE), latency(NOISE, "GET /")))  # ratio 10, low 8.89

VERDICTS = [
    ("nothing found", EMPTY, Limits(), {}, PASS, "no regression in 620 exchanges"),
    ("regressions", FULL, Limits(), {}, FAIL, "2 regressions; 1 endpoint slower"),
    ("as many as allowed", FULL, Limits(regressions=2, slower=1), {}, PASS,
     "within the limits, although: 2 regressions on 1 endpoint; 1 endpoint slower"),
    ("more than allowed", FULL, Limits(regressions=1, slower=None), {}, FAIL, "2 regressions, at most 1 allowed"),
    ("no limit on anything", FULL, NOTHING, {}, PASS,
     "within the limits, although: 2 regressions on 1 endpoint; 1 endpoint slower"),
    ("suspects", FULL, replace(NOTHING, suspects=0), {}, FAIL, "1 suspect"),
    ("few errors", EMPTY, Limits(error_rate=0.05), {"failed": 2, "broken": 3}, PASS, "no regression in 620 exchanges"),
    ("errors", EMPTY, Limits(error_rate=0.05), {"failed": 2, "broken": 4}, FAIL, "error rate 6 %, limit 5 %"),
    ("slow for all", QUIET, Limits(ratios={0.95: 2.0}), {}, FAIL,
     "p95 of GET /search 10x, limit 2x (candidate / baseline); p95 of GET / 10x, limit 2x (candidate / baseline)"),
    ("slow elsewhere", QUIET, Limits(endpoints={"GET /x": {0.95: 2.0}}), {}, PASS, "no regression in 620 exchanges"),
    ("slow here", QUIET, Limits(endpoints={"GET /": {0.95: 2.0}}), {}, FAIL,
     "p95 of GET / 10x, limit 2x (candidate / baseline)"),
    ("own limit over the common one", QUIET, Limits(ratios={0.95: 2.0}, endpoints={"GET /": {0.95: 20.0}}), {}, FAIL,
     "p95 of GET /search 10x, limit 2x (candidate / baseline)"),
    ("another quantile", QUIET, Limits(ratios={0.99: 2.0}), {}, PASS, "no regression in 620 exchanges"),
    ("slow by chance", replace(EMPTY, latency=(replace(latency(NOISE), low=0.9),)), Limits(ratios={0.95: 2.0}), {},
     PASS, "no regression in 620 exchanges"),
    ("slow overall", EMPTY, Limits(overall={0.99: 1.5}), {"candidate_ms": 20.0}, FAIL,
     "p99 of all requests 2x, limit 1.5x (candidate / baseline)"),
    ("hardly slow overall", EMPTY, Limits(overall={0.99: 1.05}), {"candidate_ms": 11.0}, PASS,
     "no regression in 620 exchanges"),
    ("not comparable", UNFAITHFUL, Limits(), {}, INVALID, "20 of 100 exchanges have no pair"),
    ("not comparable, whatever is allowed", UNFAITHFUL, NOTHING, {}, INVALID, "20 of 100 exchanges have no pair"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("report", "limits", "run", "verdict", "reason"),
    [case[1:] for case in VERDICTS],
    ids=[case[0] for case in VERDICTS],
)
def test_verdict(report: Report, limits: Limits, run: dict, verdict: str, reason: str) -> None:
    found = judged(dossier(report, **run), limits)
    assert (found.report.verdict, "; ".join(found.report.reasons)) == (verdict, reason)
    broken = [check for check in found.limits if not check.held]
    assert (verdict == FAIL) == bool(broken) or verdict == INVALID


def test_a_limit_within_is_told_as_well() -> None:
    found = judged(dossier(EMPTY), Limits(error_rate=0.05, overall={0.5: 2.0}))
    assert [(check.name, check.held) for check in found.limits] == [
        ("regressions", True),
        ("endpoints slower", True),
        ("error rate", True),
        ("p50 of all requests", True),
    ]


def test_what_is_beyond_a_limit_by_chance_says_so() -> None:
    chance = replace(EMPTY, latency=(replace(latency(NOISE), low=0.9), latency(NOISE, "GET /")))
    limits = Limits(
        regressions=None, slower=None, ratios={0.95: 20.0}, endpoints={"GET /search": {0.95: 2.0}}
    )
    found = judged(dossier(chance, candidate_ms=11.0), replace(limits, overall={0.99: 1.05}))
    assert [(check.name, check.held) for check in found.limits] == [
        ("p95 of GET /search (too few requests to be sure)", True),
        ("p95 of each other endpoint", True),
        ("p99 of all requests (too few requests to be sure)", True),
    ]


def test_unfaithful_runs_are_not_judged() -> None:
    good, bad = fidelity(HELD), fidelity(HELD, BROKEN)
    assert invalidated(FULL, {CANDIDATE: good}.items()) is FULL
    report = invalidated(FULL, {CONTROL: good, CANDIDATE: bad}.items())
    assert (report.verdict, report.exit_code) == (INVALID, 3)
    assert report.reasons == (
        "the candidate run was not faithful: lag p99 80 ms, limit 50 ms (use more workers)",
    )
    assert report.judged(REGRESSION) == FULL.judged(REGRESSION)
    assert judged(dossier(report), NOTHING).report.reasons == report.reasons
    every = invalidated(FULL, {CONTROL: bad, CANDIDATE: bad}.items())  # the same advice once
    assert every.reasons == (
        "the control run was not faithful: lag p99 80 ms, limit 50 ms (use more workers)",
        "the candidate run was not faithful: lag p99 80 ms, limit 50 ms",
    )
    both = invalidated(UNFAITHFUL, {CANDIDATE: bad}.items())
    assert both.reasons == UNFAITHFUL.reasons + report.reasons
