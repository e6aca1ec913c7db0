"""Differences that a person has looked at and accepts, until a day.

An accepted finding is listed as accepted and counts for nothing. After its last day the finding is judged as
ever, and the report says that the acceptance has expired; one that matches nothing is said to be idle, so
that the list does not outlive its reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TypeVar

from replay.diff.verdict import rejudged
from replay.findings import ACCEPTED, NOISE, Finding, LatencyRow, Report

Item = TypeVar("Item", Finding, LatencyRow)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """One accepted finding: its id, the last day it holds, and why. The other words are for the reader."""

    finding: str
    until: date
    because: str
    endpoint: str = ""
    path: str = ""
    kind: str = ""

    def holds(self, today: date) -> bool:
        return today <= self.until


def accept(report: Report, acceptances: Sequence[Acceptance], today: date) -> Report:
    """The report with what is accepted judged so, the verdict made anew, and notes on what expired or is idle."""
    if not acceptances:
        return report
    known = {acceptance.finding: acceptance for acceptance in acceptances}
    findings = [_judged(finding, known, today) for finding in report.findings]
    latency = [_judged(row, known, today) for row in report.latency]
    seen = {finding.id for finding in report.findings if finding.judgement != NOISE}
    seen |= {row.id for row in report.latency if row.judgement != NOISE}
    notes = tuple(note for entry in acceptances if (note := _note(entry, entry.finding in seen, today)))
    return replace(rejudged(report, findings, latency), notes=(*report.notes, *notes))


def _judged(item: Item, known: Mapping[str, Acceptance], today: date) -> Item:
    entry = known.get(item.id)
    if entry is None or item.judgement == NOISE:
        return item
    if entry.holds(today):
        return replace(item, judgement=ACCEPTED, reason=f"accepted until {entry.until}: {entry.because}")
    return replace(item, reason=f"{item.reason}; was accepted until {entry.until}, which has expired")


def _note(entry: Acceptance, seen: bool, today: date) -> str:
    what = " ".join(filter(None, (entry.finding, entry.endpoint, entry.path, entry.kind)))
    if not entry.holds(today) and seen:
        return f"accepted until {entry.until} and expired: {what} ({entry.because})"
    return "" if seen else f"accepted, but not found any more: {what}; is it still needed?"
