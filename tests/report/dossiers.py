"""Dossiers to render and to judge: runs, their fidelity and their times around the reports of `reports`."""

from __future__ import annotations

from dataclasses import replace

from replay.findings import REGRESSION, Check, Example, Fidelity, Report
from replay.report.dossier import (
    ALL,
    BASELINE,
    CANDIDATE,
    CONTROL,
    Asking,
    Dossier,
    DriftRow,
    ErrorRow,
    LatencyCurve,
    MixRow,
    Percentile,
    RunFacts,
)
from replay.report.exchange import Line

from .reports import FULL, HOSTILE, finding

HELD = Check("lag p99", 0.4, 50.0, "ms", True, "use more workers")
BROKEN = replace(HELD, value=80.0, held=False)


def fidelity(*checks: Check) -> Fidelity:
    return Fidelity(
        "runs/x", checks or (HELD,), ((0.0, 10.0, 10.0), (1.0, 20.0, 19.0)), {"p50": 1e5, "p99": 4e5}
    )


def run(role: str, failed: int = 0, broken: int = 0) -> RunFacts:
    """A run of 100 arrivals, of which `failed` had no answer and `broken` were answered 500."""
    return RunFacts(
        role=role,
        path=f"runs/{role}",
        target="http://127.0.0.1:1",
        started_at="2026-01-02T03:04:05.678+00:00",
        seconds=10.0,
        planned=100,
        sent=100,
        answered=100 - failed,
        failed={"timeout": failed} if failed else {},
        skipped={},
        statuses={"200": 100 - failed - broken, "500": broken},
        fidelity=fidelity(),
    )


def curve(endpoint: str, role: str, ms: float, spread: float = 0.1) -> LatencyCurve:
    points = (Percentile(q, ms * q, ms * q * (1 - spread), ms * q * (1 + spread)) for q in (0.5, 0.95, 0.99))
    return LatencyCurve(endpoint, role, 100, tuple(points))


def dossier(report: Report = FULL, candidate_ms: float = 10.0, failed: int = 0, broken: int = 0) -> Dossier:
    """Everything that a dossier may hold; the candidate as the arguments say."""
    return Dossier(
        report=report,
        title="Shop 2.0",
        made_at="2026-01-02T03:10:00.000+00:00",
        capture="captures/mine",
        seconds=31.5,
        runs=(run(BASELINE), run(CONTROL), run(CANDIDATE, failed, broken)),
        curves=(
            curve(ALL, BASELINE, 10.0),
            curve(ALL, CONTROL, 10.0),
            curve(ALL, CANDIDATE, candidate_ms),
            curve("GET /search", BASELINE, 10.0),
        ),
        errors=(ErrorRow("GET /search", "500", {CANDIDATE: 3}),),
        mix=(MixRow("GET /search", 100, {BASELINE: 100, CANDIDATE: 99}),),
        drift=(
            DriftRow(
                "GET /search", 90, 2, 1, 800.0, 640.0, 4.0, 5.5, "200 → 404 ×2", ("$.a missing",), "x-1"
            ),
        ),
        requests={"x-1": Asking("GET /search?q=a HTTP/1.1", "curl 'http://127.0.0.1:1/search?q=a'")},
    )


SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"><svg/onload=alert(3)>"


def hostile() -> Dossier:
    """A dossier with a script wherever a build, or a file's name, may put a text."""
    bad = finding(
        REGRESSION, f"$.{SCRIPT}", endpoint=f"GET /{SCRIPT}",
        examples=(Example("x-1", 2, SCRIPT, SCRIPT, HOSTILE),), reason=SCRIPT,
    )  # fmt: skip
    report = replace(
        FULL, findings=(bad,), notes=(SCRIPT,), reasons=(SCRIPT,), candidate=SCRIPT,
        latency=tuple(replace(row, endpoint=SCRIPT) for row in FULL.latency),
        rules=(replace(FULL.rules[0], rule=SCRIPT),),
    )  # fmt: skip
    full = dossier(report)
    return replace(
        full,
        title=SCRIPT,
        capture=SCRIPT,
        limits=(replace(BROKEN, name=SCRIPT),),
        runs=tuple(
            replace(facts, target=SCRIPT, failed={SCRIPT: 0}, statuses={SCRIPT: 1}) for facts in full.runs
        ),
        curves=tuple(replace(one, endpoint=SCRIPT) for one in full.curves),
        errors=tuple(replace(row, endpoint=SCRIPT, kind=SCRIPT) for row in full.errors),
        mix=(MixRow(SCRIPT, 3, {BASELINE: 3}),),
        drift=tuple(
            replace(row, endpoint=SCRIPT, statuses=SCRIPT, paths=(SCRIPT,), example=SCRIPT)
            for row in full.drift
        ),
        requests={"x-1": Asking(SCRIPT, SCRIPT)},
        contexts={bad.id: ((Line(SCRIPT, ""), Line(HOSTILE, ""), True), (None, Line(SCRIPT, ""), False))},
    )
