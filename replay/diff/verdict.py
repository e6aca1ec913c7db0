"""The verdict that findings and times make, wherever they were judged: compared, accepted, asked again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from replay.diff.tally import rank
from replay.findings import ACCEPTED, FAIL, INVALID, PASS, REGRESSION, Finding, LatencyRow, Report


def verdict(
    findings: Sequence[Finding], latency: Sequence[LatencyRow], paired: int
) -> tuple[str, tuple[str, ...]]:
    """Pass or fail, and the reasons, over `paired` exchanges that could be compared."""
    regressions = [finding for finding in findings if finding.judgement == REGRESSION]
    slower = {row.endpoint for row in latency if row.judgement == REGRESSION}
    reasons = []
    if regressions:
        endpoints = len({finding.endpoint for finding in regressions})
        reasons.append(f"{count(len(regressions), 'regression')} on {count(endpoints, 'endpoint')}")
    if slower:
        reasons.append(f"{count(len(slower), 'endpoint')} slower")
    outcome = FAIL if reasons else PASS
    if not reasons:
        reasons.append(f"no regression in {count(paired, 'exchange')}")
    judgements = [*(finding.judgement for finding in findings), *(row.judgement for row in latency)]
    accepted = judgements.count(ACCEPTED)
    return outcome, (*reasons, *((f"{count(accepted, 'difference')} accepted",) if accepted else ()))


def rejudged(report: Report, findings: Sequence[Finding], latency: Sequence[LatencyRow]) -> Report:
    """The report with findings and times judged anew. An invalid report stays invalid, for its own reasons."""
    decided, reasons = verdict(findings, latency, report.book.paired)
    if report.verdict == INVALID:
        decided, reasons = INVALID, report.reasons
    return replace(
        report,
        verdict=decided,
        reasons=reasons,
        findings=tuple(sorted(findings, key=rank)),
        latency=tuple(latency),
    )


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 body`, `2,000 bodies`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
