"""One comparison as it goes by: trios in, a report out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from replay.diff.accepted import accept
from replay.diff.answers import Answer, Comparer
from replay.diff.bound import downstream, makers
from replay.diff.diverged import NO_WAYS, Ways
from replay.diff.latency import LatencySettings
from replay.diff.pairs import Accounts, Trio
from replay.diff.partial import Partial
from replay.diff.settings import DiffSettings
from replay.diff.tally import Differences, Tally, rank
from replay.diff.verdict import count, verdict
from replay.findings import INVALID, REGRESSION, SUSPECT, Difference, Finding, Report, RuleUse
from replay.model import NOT_SENT

NO_CONTROL = "no control run: noise is not known, so every difference counts as the build's"

CAPTURED = (
    "the baseline is a capture, what production answered: times to answer are not compared, and a difference may"
    " be the environment's, its data's or the proxy's as well as the build's; values, order and headers that"
    " differ are suspects at most without a control run of the old build"
)

MAX_NOTES = 8
MAX_PLACES = 4
_OUTCOMES = ("error", "status")
_TELLING = ("error", "status", "missing", "extra", "type")


class Comparison:
    """Adds up what trios of answers say. Memory grows with endpoints and fields, not with exchanges."""

    def __init__(
        self, settings: DiffSettings, has_control: bool, captured: bool = False, ways: Ways = NO_WAYS
    ) -> None:
        """`captured`: the baseline is no run, but what production answered. `ways`: which sessions went another way."""
        self.settings = settings
        self.has_control = has_control
        self.captured = captured
        self.ways = ways
        self.comparer = Comparer(settings.compare)
        self.sums = Partial([0] * len(settings.compare.rules))

    @property
    def accounts(self) -> Accounts:
        return self.sums.accounts

    def partial(self) -> Partial:
        """All that was added so far, for another comparison of the same settings to `absorb`."""
        self.sums.matched = list(self.comparer.book.matched)
        self.sums.notes = self.comparer.notes
        for tally in self.sums.tallies:
            tally.fold()
        return self.sums

    def absorb(self, partial: Partial) -> None:
        """Add what was counted elsewhere, of other exchanges. The order makes no difference."""
        mine = self.partial()
        mine.absorb(partial)
        self.comparer.book.matched = mine.matched

    def add(self, trio: Trio) -> None:
        """Book, compare and count one exchange."""
        baseline, candidate, control = trio
        sums = self.sums
        if self.captured and candidate is None and control is None:
            # A run may be of a part of the capture; what it planned is in it, sent or not.
            sums.left_out += 1
            return
        paired = sums.accounts.enter(baseline, candidate)
        controlled = self.has_control and sums.control_accounts.enter(baseline, control)
        if baseline is None or not (paired or controlled):
            return
        found = self._compare(baseline, candidate) if paired else None
        noise = self._compare(baseline, control) if controlled else None
        lacked = _lacked(baseline, candidate, found) or _lacked(baseline, control, noise)
        if lacked is not None and NOT_SENT in lacked:
            # What was asked depended on what was not sent: these answers say nothing about the builds.
            sums.downstream[lacked] += 1
            return
        self._tally(baseline, found, noise, lacked).add(baseline, found, noise)
        paired = paired and lacked is None
        if paired and candidate is not None and self._latency is not None:
            sums.latencies.add(baseline, candidate, control if controlled else None)

    def _tally(
        self, baseline: Answer, found: Differences | None, noise: Differences | None, lacked: str | None
    ) -> Tally:
        """Where to count an exchange: with all the others, or aside with its cause."""
        sums = self.sums
        if lacked is not None:
            sums.downstream[lacked] += 1
            return sums.lacking.setdefault(makers(lacked), Tally())
        cause = self.ways.cause(*baseline[:4]) if found or noise else None
        return sums.tally if cause is None else sums.aside.setdefault(cause, Tally())

    def _compare(self, left: Answer, right: Answer | None) -> list[Difference]:
        return [] if right is None else self.comparer.differences(left, right)

    @property
    def _latency(self) -> LatencySettings | None:
        return None if self.captured else self.settings.latency

    def report(self, baseline: str, candidate: str, control: str | None) -> Report:
        """Judge what was counted."""
        sums = self.partial()
        tally, aside = self._sorted_out()
        findings = self._findings(tally)
        latency = sums.latencies.rows(self._latency) if self._latency else ()
        invalid = self._invalid()
        judged, reasons = (INVALID, invalid) if invalid else verdict(findings, latency, self.accounts.paired)
        report = Report(
            verdict=judged,
            reasons=reasons,
            baseline=baseline,
            candidate=candidate,
            control=control,
            findings=findings,
            latency=latency,
            endpoints=tally.endpoints(),
            book=self.accounts.close(),
            control_book=self.sums.control_accounts.close() if self.has_control else None,
            rules=tuple(
                RuleUse(rule.text, matched)
                for rule, matched in zip(self.comparer.book.rules, sums.matched, strict=True)
            ),
            notes=self._notes(aside),
        )
        return accept(report, self.settings.accepted, self.settings.today)

    def _findings(self, tally: Tally) -> tuple[Finding, ...]:
        findings = tally.findings(self.settings.judge, self.has_control)
        if self.captured and not self.has_control:
            return tuple(sorted(map(_of_a_capture, findings), key=rank))
        return findings

    def _sorted_out(self) -> tuple[Tally, list[str]]:
        """What counts, and notes on what does not because it follows from what does.

        That is what was set aside with a cause which is a regression itself. Where the cause is none (noise, ignored,
        accepted, nothing that is compared) its consequences must not be lost with it.
        """
        sums = self.sums
        if not sums.lacking and not sums.aside:
            return sums.tally, self._told(sums.downstream)
        accepted = {entry.finding for entry in self.settings.accepted if entry.holds(self.settings.today)}
        causes = [
            finding
            for finding in self._findings(sums.tally)
            if finding.judgement == REGRESSION and finding.id not in accepted
        ]
        broken = {finding.endpoint for finding in causes}
        refused = {finding.endpoint for finding in causes if finding.kind in _OUTCOMES}
        whole = Tally()
        for tally in (
            sums.tally,
            *(sums.lacking[ends] for ends in sorted(sums.lacking) if broken.isdisjoint(ends)),
            *(sums.aside[cause] for cause in sorted(sums.aside) if cause not in refused),
        ):
            whole.absorb(tally)
        lacking = {
            chain: number
            for chain, number in sums.downstream.items()
            if NOT_SENT in chain or not broken.isdisjoint(makers(chain))
        }
        followed = [
            self._followed(cause, sums.aside[cause]) for cause in sorted(sums.aside) if cause in refused
        ]
        return whole, [*self._told(lacking), *filter(None, followed)]

    def _notes(self, aside: Sequence[str]) -> tuple[str, ...]:
        odd = sorted(self.sums.notes.items(), key=lambda item: (-item[1], item[0]))[:MAX_NOTES]
        left_out = count(self.sums.left_out, "exchange")
        return (
            *((CAPTURED,) if self.captured else ()),
            *(() if self.has_control else (NO_CONTROL,)),
            *((f"{left_out} of the capture left out of the run",) if self.sums.left_out else ()),
            *(f"{count(number, 'body', 'bodies')}: {note}" for note, number in odd),
            *aside,
        )

    def _followed(self, cause: str, tally: Tally) -> str:
        """What was not counted, because a write before it in the session fared otherwise; empty where nothing was."""
        found = sorted(self._findings(tally), key=lambda finding: (-finding.differing, *rank(finding)))
        exchanges = sum(row.pairs - row.alike for row in tally.endpoints())
        places = [
            f"{finding.endpoint} {finding.path} {finding.kind} ({finding.differing:,})" for finding in found
        ]
        more = [f"{len(places) - MAX_PLACES:,} more"] if len(places) > MAX_PLACES else []
        if not found:
            return ""
        return (
            f"{count(exchanges, 'exchange')} downstream of {cause}, which fared otherwise before them in their"
            f" sessions, not counted as findings: {', '.join([*places[:MAX_PLACES], *more])}"
        )

    def _told(self, downstream: Mapping[str, int]) -> list[str]:
        """What lacked a live value, and why."""
        most = sorted(downstream.items(), key=lambda item: (-item[1], item[0]))[:MAX_NOTES]
        return [
            f"{count(number, 'exchange')} downstream of an earlier difference, not counted as findings: {cause}"
            for cause, number in most
        ]

    def _invalid(self) -> tuple[str, ...]:
        """Why these runs cannot be judged; empty if they can."""
        accounts = self.accounts
        if not accounts.paired:
            return ("no exchange has an answer in both runs: were they made from the same capture?",)
        reasons = []
        unpaired = sum(accounts.unpaired.values())
        if unpaired > self.settings.max_unpaired * accounts.exchanges:
            reasons.append(
                f"{unpaired:,} of {accounts.exchanges:,} exchanges have no pair "
                f"({unpaired / accounts.exchanges:.1%}; at most {self.settings.max_unpaired:.0%} is judged)"
            )
        failed = accounts.failed["baseline"]
        if failed > self.settings.max_failed * accounts.exchanges:
            reasons.append(
                f"the baseline failed {failed:,} of {accounts.exchanges:,} exchanges "
                f"({failed / accounts.exchanges:.1%}; at most {self.settings.max_failed:.0%} is judged)"
            )
        if self.has_control and not self.sums.control_accounts.paired:
            reasons.append("the control has no exchange of the baseline: was it made from the same capture?")
        return tuple(reasons)


def _lacked(baseline: Answer, other: Answer | None, found: Differences | None) -> str | None:
    """Why one of two answers that differ lacked a live value, where the other did not."""
    return downstream(baseline.unbound, other.unbound) if found and other is not None else None


def _of_a_capture(finding: Finding) -> Finding:
    """Production's values, order and headers may be others by nature: what tells is the outcome and the shape."""
    if finding.judgement != REGRESSION or (
        finding.kind in _TELLING and not finding.path.startswith("headers.")
    ):
        return finding
    return replace(finding, judgement=SUSPECT, reason="production's may be another by nature")
