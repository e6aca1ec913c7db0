"""The report for programs: one JSON object, stable within a schema version.

`schema_version` counts changes that would break a reader; added keys do not count.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson

from replay.findings import Finding, LatencyRow, Report

SCHEMA_VERSION = 1


def render(report: Report) -> str:
    """The report as JSON text, keys in a fixed order, two spaces a level."""
    return orjson.dumps(document(report), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def document(report: Report) -> dict[str, Any]:
    """The report as plain values."""
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": report.verdict,
        "exit_code": report.exit_code,
        "reasons": list(report.reasons),
        "notes": list(report.notes),
        "runs": {"baseline": report.baseline, "candidate": report.candidate, "control": report.control},
        "findings": [_finding(finding) for finding in report.findings],
        "latency": [_latency(row) for row in report.latency],
        "endpoints": [asdict(row) for row in report.endpoints],
        "books": {
            "candidate": asdict(report.book),
            "control": asdict(report.control_book) if report.control_book else None,
        },
        "rules": [asdict(use) for use in report.rules],
        "ignored": dict(report.ignored),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {**asdict(finding), "share": finding.share, "noise_share": finding.noise_share}


def _latency(row: LatencyRow) -> dict[str, Any]:
    # JSON has no infinity: an open interval has no upper end.
    return {**asdict(row), "high": None if row.high == float("inf") else row.high}
