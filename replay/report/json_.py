"""The report for programs: one JSON object, stable within a schema version.

`schema_version` counts changes that would break a reader; added keys do not count.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import orjson

from replay.findings import Fidelity, Finding, LatencyRow, Report
from replay.report.dossier import Dossier, RunFacts

SCHEMA_VERSION = 1


def render(report: Report, dossier: Dossier | None = None) -> str:
    """The report as JSON text, keys in a fixed order, two spaces a level; with a dossier, all that is in it."""
    told = document(report) if dossier is None else {**document(dossier.report), **_around(dossier)}
    try:
        return orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()
    except TypeError:  # half a surrogate pair, which a JSON text may hold as an escape and UTF-8 may not
        return json.dumps(told, indent=2) + "\n"


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
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {**asdict(finding), "share": finding.share, "noise_share": finding.noise_share}


def _latency(row: LatencyRow) -> dict[str, Any]:
    # JSON has no infinity: an open interval has no upper end.
    return {"id": row.id, **asdict(row), "high": None if row.high == float("inf") else row.high}


def _around(dossier: Dossier) -> dict[str, Any]:
    return {
        "tool": dossier.tool,
        "made_at": dossier.made_at,
        "capture": dossier.capture,
        "seconds": dossier.seconds,
        "limits": [asdict(check) for check in dossier.limits],
        "run_facts": [_facts(run) for run in dossier.runs],
        "curves": [asdict(curve) for curve in dossier.curves],
        "errors": [asdict(row) for row in dossier.errors],
        "mix": [asdict(row) for row in dossier.mix],
        "drift": [asdict(row) for row in dossier.drift],
        "requests": {key: asdict(asking) for key, asking in dossier.requests.items()},
    }


def _facts(run: RunFacts) -> dict[str, Any]:
    return {**asdict(run), "fidelity": _fidelity(run.fidelity)}


def _fidelity(fidelity: Fidelity | None) -> dict[str, Any] | None:
    return None if fidelity is None else {"faithful": fidelity.faithful, **asdict(fidelity)}
