"""One comparison as it goes by: trios in, a report out."""

from __future__ import annotations

from replay.diff.accepted import accept
from replay.diff.answers import Answer, Comparer
from replay.diff.latency import Latencies
from replay.diff.pairs import Accounts, Trio
from replay.diff.settings import DiffSettings
from replay.diff.tally import Tally
from replay.diff.verdict import count, verdict
from replay.findings import INVALID, Difference, Report, RuleUse

NO_CONTROL = "no control run: noise is not known, so every difference counts as the build's"

MAX_NOTES = 8


class Comparison:
    """Adds up what trios of answers say. Memory grows with endpoints and fields, not with exchanges."""

    def __init__(self, settings: DiffSettings, has_control: bool) -> None:
        self.settings = settings
        self.has_control = has_control
        self.comparer = Comparer(settings.compare)
        self.tally = Tally()
        self.latencies = Latencies()
        self.accounts = Accounts("candidate")
        self.control_accounts = Accounts("control")

    def add(self, trio: Trio) -> None:
        """Book, compare and count one exchange."""
        baseline, candidate, control = trio
        paired = self.accounts.enter(baseline, candidate)
        controlled = self.has_control and self.control_accounts.enter(baseline, control)
        if baseline is None or not (paired or controlled):
            return
        self.tally.add(
            baseline,
            self._compare(baseline, candidate) if paired else None,
            self._compare(baseline, control) if controlled else None,
        )
        if paired and candidate is not None and self.settings.latency is not None:
            self.latencies.add(baseline, candidate, control if controlled else None)

    def _compare(self, left: Answer, right: Answer | None) -> list[Difference]:
        return [] if right is None else self.comparer.differences(left, right)

    def report(self, baseline: str, candidate: str, control: str | None) -> Report:
        """Judge what was counted."""
        findings = self.tally.findings(self.settings.judge, self.has_control)
        latency = self.latencies.rows(self.settings.latency) if self.settings.latency else ()
        invalid = self._invalid()
        judged, reasons = (INVALID, invalid) if invalid else verdict(findings, latency, self.accounts.paired)
        book = self.comparer.book
        report = Report(
            verdict=judged,
            reasons=reasons,
            baseline=baseline,
            candidate=candidate,
            control=control,
            findings=findings,
            latency=latency,
            endpoints=self.tally.endpoints(),
            book=self.accounts.close(),
            control_book=self.control_accounts.close() if self.has_control else None,
            rules=tuple(
                RuleUse(rule.text, count) for rule, count in zip(book.rules, book.matched, strict=True)
            ),
            notes=self._notes(),
        )
        return accept(report, self.settings.accepted, self.settings.today)

    def _notes(self) -> tuple[str, ...]:
        odd = self.comparer.notes.most_common(MAX_NOTES)
        return (
            *(() if self.has_control else (NO_CONTROL,)),
            *(f"{count(number, 'body', 'bodies')}: {note}" for note, number in odd),
        )

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
        if self.has_control and not self.control_accounts.paired:
            reasons.append("the control has no exchange of the baseline: was it made from the same capture?")
        return tuple(reasons)
