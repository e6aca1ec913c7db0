"""Holds a report against what was planted: all of it found, and nothing else.

Pure, and the last step of the demonstration: the report was made without knowing of any of this.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from replay.demo.builds import Regression, Sign
from replay.findings import REGRESSION, Report


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which regressions were found in all their places, which signs are missing, what else was claimed."""

    found: tuple[Regression, ...]
    missing: tuple[Sign, ...]
    unexpected: tuple[Sign, ...]

    @property
    def held(self) -> bool:
        return not self.missing and not self.unexpected


def verify(report: Report, planted: Iterable[Regression]) -> Verdict:
    """Compare what the report calls a regression with the list of those that were planted."""
    planted = tuple(planted)
    claimed = claims(report)
    known = {sign for regression in planted for sign in (*regression.signs, *regression.follows)}
    return Verdict(
        found=tuple(regression for regression in planted if claimed.issuperset(regression.signs)),
        missing=tuple(sign for regression in planted for sign in regression.signs if sign not in claimed),
        unexpected=tuple(sorted(claimed - known, key=lambda sign: (sign.endpoint, sign.path, sign.kind))),
    )


def claims(report: Report) -> set[Sign]:
    """Everything that the report calls a regression; the quantiles of one endpoint's times are one claim."""
    found = {Sign(finding.endpoint, finding.path, finding.kind) for finding in report.judged(REGRESSION)}
    slower = {Sign(row.endpoint, "", "slower") for row in report.latency if row.judgement == REGRESSION}
    return found | slower
