"""Suspects asked again: what shows every time is the build's, what does not is a flake.

Each suspect finding has a few exchanges that showed it. They are asked again, both builds at once, some times
over. Every time there is a pair (old, new), and the old build's answers to two askings in a row are a pair
(old, old) that knows only noise. Fisher's exact test (1935, J. R. Stat. Soc. 98:39), one-sided, holds the one
count against the other: P(the finding in at least so many of the (old, new) pairs | in how many of all pairs).
Five askings of one exchange that all show it, and none of the four of the old build, have p = 1/126.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import comb

from replay.diff.answers import Answer, Comparer
from replay.diff.paths import erase
from replay.diff.verdict import count, rejudged
from replay.findings import INVALID, NOISE, REGRESSION, SUSPECT, Finding, Report

LEVEL = 0.01
"""Chance at which noise would be called reproducible."""

MOST = 200
"""Findings that are asked again, the worst first."""

Asked = tuple[Answer | None, Answer | None]
"""What the old and the new build answered to one asking; `None`: it was not sent."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A finding in `shown` of `asked` pairs (old, new), and in `noisy` of `beside` pairs (old, old)."""

    asked: int = 0
    shown: int = 0
    beside: int = 0
    noisy: int = 0

    @property
    def p(self) -> float:
        """Fisher's: the chance of at least so many shown, if the builds are alike."""
        return _tail(self.shown, self.asked, self.beside, self.shown + self.noisy)

    @property
    def least(self) -> float:
        """The smallest p that so many askings could have given."""
        return _tail(self.asked, self.asked, self.beside, self.asked)


def suspects(report: Report) -> tuple[Finding, ...]:
    """The findings to ask again. Without a control those judged on an assumed noise are among them."""
    open_ = (SUSPECT,) if report.control is not None else (SUSPECT, REGRESSION)
    if report.verdict == INVALID:
        return ()
    found = (finding for finding in report.findings if finding.judgement in open_ and finding.examples)
    return tuple(finding for finding in found if finding.path != "$..")[:MOST]


def seen(
    findings: Iterable[Finding], asked: Mapping[str, Sequence[Asked]], comparer: Comparer
) -> dict[str, Seen]:
    """By finding's id how it showed; `asked` maps an exchange to its askings in order."""
    old_new = {name: [_places(comparer, old, new) for old, new in pairs] for name, pairs in asked.items()}
    old_old = {
        name: [_places(comparer, first, second) for (first, _), (second, _) in pairwise(pairs)]
        for name, pairs in asked.items()
    }
    return {finding.id: _seen(finding, old_new, old_old) for finding in findings}


Places = frozenset[tuple[str, str]]


def _places(comparer: Comparer, left: Answer | None, right: Answer | None) -> Places | None:
    """Where two answers differ; `None` where that says nothing."""
    if left is None or right is None or (left.error is not None and right.error is not None):
        return None
    return frozenset((erase(found.path), found.kind) for found in comparer.differences(left, right))


def _seen(
    finding: Finding,
    old_new: Mapping[str, Sequence[Places | None]],
    old_old: Mapping[str, Sequence[Places | None]],
) -> Seen:
    names = dict.fromkeys(example.exchange_id for example in finding.examples)
    place = (finding.path, finding.kind)
    pairs = [places for name in names for places in old_new.get(name, ()) if places is not None]
    beside = [places for name in names for places in old_old.get(name, ()) if places is not None]
    return Seen(
        len(pairs),
        sum(place in places for places in pairs),
        len(beside),
        # What one old answer has more, the other has less: either way it is noise of that place.
        sum(bool(places.intersection(_either(place))) for places in beside),
    )


def _either(place: tuple[str, str]) -> Iterator[tuple[str, str]]:
    yield place
    mirrored = {"missing": "extra", "extra": "missing"}.get(place[1])
    if mirrored:
        yield place[0], mirrored


def settle(report: Report, found: Mapping[str, Seen]) -> Report:
    """The report with the findings that were asked again judged by what they showed, and the verdict made anew."""
    if not found:
        return report
    findings = [
        _settled(finding, found[finding.id]) if finding.id in found else finding
        for finding in report.findings
    ]
    again = [finding for finding in findings if finding.id in found]
    reproducible, flaky = (sum(f.judgement == kind for f in again) for kind in (REGRESSION, NOISE))
    note = f"asked again: {count(len(again), 'finding')}, {reproducible:,} reproducible, {flaky:,} flaky"
    rest = len(again) - reproducible - flaky
    note += f", {rest:,} open" if rest else ""
    return replace(rejudged(report, findings, report.latency), notes=(*report.notes, note))


def _settled(finding: Finding, shown: Seen) -> Finding:
    judgement, reason = judge(shown)
    return replace(finding, judgement=judgement, reason=reason)


def judge(found: Seen) -> tuple[str, str]:
    """Reproducible: a regression. Flaky: noise, unless only the new build ever flaked so: that stays suspect."""
    if not found.asked:
        return SUSPECT, "could not be asked again"
    told = f"shows in {found.shown} of {found.asked} asked again, old beside old in {found.noisy} of {found.beside}"
    if found.shown and found.p <= LEVEL:
        return REGRESSION, f"reproducible: {told}"
    if not found.shown or found.noisy:
        return NOISE, f"flaky: {told}"
    if found.shown == found.asked and found.least > LEVEL:
        return SUSPECT, f"asked too seldom to tell: {told}"
    return SUSPECT, f"flaky, but only with the new build: {told}"


def _tail(shown: int, asked: int, beside: int, marked: int) -> float:
    """P(X >= shown), X hypergeometric: `marked` of all pairs, `asked` of them drawn."""
    whole = comb(asked + beside, asked)
    most = min(asked, marked)
    return (
        sum(comb(marked, k) * comb(asked + beside - marked, asked - k) for k in range(shown, most + 1))
        / whole
    )
