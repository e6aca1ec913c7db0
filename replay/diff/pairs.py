"""A merge join of two or three runs by exchange and lap, in the memory of one row each.

Every exchange ends up in the books once: paired, or unpaired with the side and the reason. A transport error
is an answer of a kind and pairs like any other, unless neither side answered, which tells nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from replay.diff.answers import Answer
from replay.errors import InputError
from replay.findings import PairBook

Key = tuple[str, int]


class Trio(NamedTuple):
    """The answers to one arrival; a side that has no row is `None`."""

    baseline: Answer | None
    candidate: Answer | None
    control: Answer | None


def join(
    baseline: Iterator[Answer], candidate: Iterator[Answer], control: Iterator[Answer] | None = None
) -> Iterator[Trio]:
    """Trios in key order. Inputs are sorted by (exchange_id, lap), each key once: else `InputError`."""
    sides = [
        _Side("baseline", baseline),
        _Side("candidate", candidate),
        _Side("control", control or iter(())),
    ]
    while True:
        keys = [side.key for side in sides if side.key is not None]
        if not keys:
            return
        lowest = min(keys)
        yield Trio(*(side.take(lowest) for side in sides))


class _Side:
    __slots__ = ("head", "key", "name", "rows")

    def __init__(self, name: str, rows: Iterator[Answer]) -> None:
        self.name = name
        self.rows = rows
        self.key: Key | None = None
        self._advance()

    def take(self, key: Key) -> Answer | None:
        if self.key != key:
            return None
        answer = self.head
        self._advance()
        return answer

    def _advance(self) -> None:
        before = self.key
        self.head = next(self.rows, None)
        self.key = None if self.head is None else self.head[:2]
        if before is not None and self.key is not None and self.key <= before:
            twice = "twice" if self.key == before else "out of order"
            raise InputError(f"the {self.name} holds exchange {self.key[0]} lap {self.key[1]} {twice}")


class Accounts:
    """The books of one pairing, kept as pairs go by."""

    __slots__ = ("_name", "exchanges", "failed", "paired", "unpaired")

    def __init__(self, name: str) -> None:
        self._name = name
        self.exchanges = 0
        self.paired = 0
        self.failed = Counter[str]()
        self.unpaired = Counter[str]()

    def enter(self, baseline: Answer | None, other: Answer | None) -> bool:
        """Book one exchange; whether the two can be compared."""
        self.exchanges += 1
        if baseline is not None and baseline.error is not None:
            self.failed["baseline"] += 1
        if other is not None and other.error is not None:
            self.failed[self._name] += 1
        reason = (
            _unpaired("baseline", baseline) or _unpaired(self._name, other) or _both_failed(baseline, other)
        )
        if reason is None:
            self.paired += 1
            return True
        self.unpaired[reason] += 1
        return False

    def absorb(self, other: Accounts) -> None:
        """Add the books of other exchanges."""
        self.exchanges += other.exchanges
        self.paired += other.paired
        self.failed.update(other.failed)
        self.unpaired.update(other.unpaired)

    def close(self) -> PairBook:
        return PairBook(self.exchanges, self.paired, dict(sorted(self.unpaired.items())))


def _unpaired(name: str, answer: Answer | None) -> str | None:
    if answer is None:
        return f"{name}: missing"
    if answer.skipped is not None:
        return f"{name}: skipped ({answer.skipped})"
    return None


def _both_failed(baseline: Answer | None, other: Answer | None) -> str | None:
    failed = (
        baseline is not None and other is not None and baseline.error is not None and other.error is not None
    )
    return "both: failed" if failed and baseline.status is None else None  # type: ignore[union-attr]
