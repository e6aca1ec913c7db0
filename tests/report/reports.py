"""Reports to render: one with everything in it, untrusted text too, and its smaller siblings.

`python -m tests.report.reports` writes the golden files anew.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from replay.findings import (
    FAIL,
    INVALID,
    NOISE,
    PASS,
    REGRESSION,
    SUSPECT,
    EndpointRow,
    Example,
    Finding,
    LatencyRow,
    PairBook,
    Report,
    RuleUse,
)
from replay.report import json_, text

EXAMPLE = Example("18d4f0a1b2c3d4e5-0123456789ab", 0, "$.items[3].price", "12.5", '"12.50"')


def finding(judgement: str, path: str, kind: str = "value", differing: int = 12, **given: object) -> Finding:
    plain = Finding(
        id="0a1b2c3d", endpoint="GET /orders/{id}", path=path, kind=kind, pairs=310, differing=differing,
        control_pairs=310, control_differing=0, odd_candidate=differing, odd_control=0, odd_baseline=0,
        sessions=9, p_value=1e-6, q_value=1e-5, judgement=judgement, reason="the old build never did this",
        examples=(EXAMPLE,),
    )  # fmt: skip
    return replace(plain, **given)  # type: ignore[arg-type]


def latency(judgement: str, endpoint: str = "GET /search", high: float = 11.2) -> LatencyRow:
    return LatencyRow(endpoint, 0.95, 310, 4.123, 41.234, 10.0, 8.89, high, 1.01, judgement, "slower")


FULL = Report(
    verdict=FAIL,
    reasons=("2 regressions on 1 endpoint", "1 endpoint slower"),
    baseline="runs/old",
    candidate="runs/new",
    control="runs/again",
    findings=(
        finding(REGRESSION, "status", "status", 310, endpoint="GET /products/{id}"),
        finding(REGRESSION, "$.items[*].price", "type"),
        finding(SUSPECT, "$.note", differing=1, reason="too few to tell"),
        finding(NOISE, "$.at", differing=309, control_differing=308),
    ),
    latency=(latency(REGRESSION), latency(NOISE, "GET /")),
    endpoints=(EndpointRow("GET /orders/{id}", 310, 1), EndpointRow("GET /products/{id}", 310, 0)),
    book=PairBook(640, 620, {"candidate: missing": 15, "candidate: skipped (filtered)": 5}),
    control_book=PairBook(640, 640, {}),
    rules=(RuleUse("ignore $.seen", 40), RuleUse("ignore $.nowhere", 0)),
)
EMPTY = Report(
    verdict=PASS, reasons=("no regression in 620 exchanges",), baseline="a", candidate="b", control=None,
    findings=(), latency=(), endpoints=(EndpointRow("GET /", 620, 620),), book=PairBook(620, 620, {}),
    control_book=None, notes=("no control run: noise is not known",),
)  # fmt: skip
UNFAITHFUL = replace(EMPTY, verdict=INVALID, reasons=("20 of 100 exchanges have no pair",))

HOSTILE = "\x1b[31mred\x07\u202egnp.exe\n[bold]x[/bold]\ud800"
UNTRUSTED = replace(
    FULL,
    findings=(
        finding(
            REGRESSION,
            f"$.{HOSTILE}",
            endpoint=f"GET /{HOSTILE}",
            examples=(Example("id", 0, "$", HOSTILE, "x" * 5000),),
        ),
    ),
)


def _write_golden() -> None:
    golden = Path(__file__).parent / "golden"
    for width in (140, 100, 60):
        (golden / f"full-{width}.txt").write_text(text.render(FULL, width), "utf-8")
    (golden / "full.json").write_text(json_.render(FULL), "utf-8")


if __name__ == "__main__":
    _write_golden()
