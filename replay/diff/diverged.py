"""Sessions that went another way: a write fared otherwise in one build, so what the session sees later may differ too.

Where a create is answered 201 by the old build and 500 by the new one, the list that is asked for afterwards lacks an
item. That is one difference and its consequence, not two. From such a write on the session's differences are set
aside. They are left out of the findings where the write's own difference is a regression, and count as ever where it
is none: noise, or what was accepted, must hide nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

MOST = 20_000
"""Sessions that are remembered, those that went another way first. Runs with more have other troubles."""


class Wrote(NamedTuple):
    """What became of a write; named as on disk."""

    exchange_id: str
    lap: int
    session_id: str
    endpoint: str
    status: int | None
    error: str | None
    skipped: str | None

    @property
    def done(self) -> bool:
        """Whether the build said that it did what it was asked."""
        return self.error is None and self.status is not None and self.status < 400


class Turn(NamedTuple):
    """Where a session went another way: the exchange of the write, and its endpoint."""

    exchange_id: str
    endpoint: str


Turns = Mapping[tuple[str, int], Turn]
"""Session and lap → where it went another way."""


class Ways(NamedTuple):
    """The sessions that went another way than the baseline's: the candidate's, and the control's."""

    candidate: Turns
    control: Turns

    def cause(self, exchange_id: str, lap: int, session_id: str, endpoint: str) -> str | None:
        """The endpoint of the write before this exchange at which its session went another way; `None`: it did not.

        What the same endpoint answers later is no consequence but more of the same.
        """
        for turns in self:
            turn = turns.get((session_id, lap))
            if turn is not None and turn.exchange_id < exchange_id and turn.endpoint != endpoint:
                return turn.endpoint
        return None

    def before(self, high: str | None) -> Ways:
        """What matters to exchanges before `high` (`None`: to all)."""
        if high is None:
            return self
        return Ways(
            *({key: turn for key, turn in turns.items() if turn.exchange_id < high} for turns in self)
        )


NO_WAYS = Ways({}, {})
"""No session went another way, or nobody has looked."""


def turned(baseline: Iterable[Wrote], other: Iterable[Wrote], most: int = MOST) -> Turns:
    """Where the other run's sessions went another way. Both are the writes of a run by exchange and lap."""
    found: dict[tuple[str, int], Turn] = {}
    for left, right in _pairs(iter(baseline), iter(other)):
        session = (left.session_id, left.lap)
        if left.done != right.done and not (left.skipped or right.skipped) and session not in found:
            found[session] = Turn(left.exchange_id, left.endpoint)
            if len(found) == most:
                break
    return found


def _pairs(lefts: Iterator[Wrote], rights: Iterator[Wrote]) -> Iterator[tuple[Wrote, Wrote]]:
    """What is in both."""
    left, right = next(lefts, None), next(rights, None)
    while left is not None and right is not None:
        if left[:2] == right[:2]:
            yield left, right
            left, right = next(lefts, None), next(rights, None)
        elif left[:2] < right[:2]:
            left = next(lefts, None)
        else:
            right = next(rights, None)
