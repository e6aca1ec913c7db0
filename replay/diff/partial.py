"""What one partition of the exchanges adds to a comparison: counts that merge in any order to the same sum.

Everything in here is a sum, a union or the lowest few of a fixed order, so `absorb` is commutative and
associative: any number of processes, threads or machines may share the partitions.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from replay.diff.latency import Latencies
from replay.diff.pairs import Accounts
from replay.diff.tally import Tally


@dataclass(slots=True)
class Partial:
    """The tallies of some exchanges. `matched` counts by rule; `left_out` those of a capture nobody asked."""

    matched: list[int]
    tally: Tally = field(default_factory=Tally)
    latencies: Latencies = field(default_factory=Latencies)
    accounts: Accounts = field(default_factory=lambda: Accounts("candidate"))
    control_accounts: Accounts = field(default_factory=lambda: Accounts("control"))
    notes: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    downstream: Counter[str] = field(default_factory=Counter)
    """Exchanges that differ and lacked a live value on one side alone, by the chain of causes."""
    lacking: dict[tuple[str, ...], Tally] = field(default_factory=dict)
    """The same exchanges, by the endpoints that the chain speaks of."""
    aside: dict[str, Tally] = field(default_factory=dict)
    """Exchanges that differ after a write at which their session went another way, by that write's endpoint."""

    def absorb(self, other: Partial) -> None:
        """Add the tallies of other exchanges to these."""
        self.matched = [a + b for a, b in zip(self.matched, other.matched, strict=True)]
        self.tally.absorb(other.tally)
        self.latencies.absorb(other.latencies)
        self.accounts.absorb(other.accounts)
        self.control_accounts.absorb(other.control_accounts)
        self.notes.update(other.notes)
        self.left_out += other.left_out
        self.downstream.update(other.downstream)
        for makers, tally in other.lacking.items():
            self.lacking.setdefault(makers, Tally()).absorb(tally)
        for cause, tally in other.aside.items():
            self.aside.setdefault(cause, Tally()).absorb(tally)

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """All of them."""
        return (self.tally, *self.lacking.values(), *self.aside.values())
