"""GitHub's workflow commands: what a reviewer sees on the run's page without opening anything.

A step shows at most ten annotations of a type, so the last line of a type says how many more there are.
Escaping is that of GitHub's own toolkit: %, CR and LF in messages, and in properties also `:` and `,`.
"""

from __future__ import annotations

from collections.abc import Sequence

from replay.findings import INVALID, REGRESSION, SUSPECT
from replay.report import words
from replay.report.dossier import Dossier
from replay.report.junit import line, slower

MOST = 10

Annotation = tuple[str, str]
"""Title and message."""


def render(dossier: Dossier) -> str:
    """Lines to print on standard output of a GitHub step; empty where there is nothing to say."""
    report = dossier.report
    errors: list[Annotation] = []
    if report.verdict == INVALID:
        errors = [("Invalid run", "; ".join(report.reasons))]
    else:
        errors = [(finding.endpoint, line(finding)) for finding in report.judged(REGRESSION)]
        errors += [(row.endpoint, slower(row)) for row in report.latency if row.judgement == REGRESSION]
        errors += [
            (
                "Limit",
                f"{check.name} {words.measure(check.value, check.unit)}, limit"
                f" {words.measure(check.limit, check.unit)}",
            )
            for check in dossier.limits
            if not check.held and check.unit
        ]
    warnings = [(finding.endpoint, line(finding)) for finding in report.judged(SUSPECT)]
    notices = [("Note", note) for note in report.notes]
    lines = [*_of("error", errors), *_of("warning", warnings), *_of("notice", notices)]
    return "".join(f"{text}\n" for text in lines)


def failure(message: str) -> str:
    """The line for a gate that could not run at all."""
    return "".join(f"{text}\n" for text in _of("error", [("could not run", message)]))


def _of(kind: str, annotations: Sequence[Annotation]) -> list[str]:
    shown = list(annotations)
    if len(shown) > MOST:
        rest = len(shown) - MOST + 1
        shown = [*shown[: MOST - 1], ("More", f"and {rest:,} more: see the report")]
    return [f"::{kind} title={_property(f'replay: {title}')}::{_message(text)}" for title, text in shown]


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
