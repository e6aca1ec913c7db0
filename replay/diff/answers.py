"""Two answers to one request, compared from the outside in: did it answer, how, with what headers and body.

What differs further out explains what differs further in: where one side did not answer, or answered in
another class of status, that is the one difference. A 500's page in place of a product is not forty fields.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from replay.diff.bound import unexplained
from replay.diff.compare import body_differences
from replay.diff.headers import FRAMING, VALUE_IGNORED, header_differences
from replay.diff.lift import Lifted, lift
from replay.diff.rules import Rule, RuleBook
from replay.findings import Difference
from replay.model import Header


class Answer(NamedTuple):
    """The columns of a result that a comparison needs; named as on disk (see `replay.model.Result`)."""

    exchange_id: str
    lap: int
    session_id: str
    endpoint: str
    status: int | None
    response_headers: tuple[Header, ...]
    response_body: bytes | None
    response_size: int
    truncated: bool
    error: str | None
    skipped: str | None
    due_ns: int
    sent_ns: int | None
    duration_ns: int | None
    learned: tuple[Header, ...] | None = ()
    unbound: str | None = None


@dataclass(frozen=True, slots=True)
class CompareSettings:
    """How answers are compared. Header names are in lower case."""

    rules: tuple[Rule, ...] = ()
    headers_ignored: frozenset[str] = FRAMING
    header_values_ignored: frozenset[str] = VALUE_IGNORED
    header_order: bool = False


@dataclass(slots=True)
class Comparer:
    """Compares answers under settings and counts what the rules took away."""

    settings: CompareSettings
    book: RuleBook = field(init=False)
    notes: Counter[str] = field(init=False, default_factory=Counter)
    """What bodies were not, though they claimed it: a reason → how many."""
    _last: tuple[Any, Lifted] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.book = RuleBook(self.settings.rules)

    def differences(self, left: Answer, right: Answer) -> list[Difference]:
        """Where the right answer differs from the left, rules applied. Transport errors are differences."""
        found = self._outer(left, right)
        if found is None:
            found = header_differences(
                left.response_headers,
                right.response_headers,
                self.settings.headers_ignored,
                self.settings.header_values_ignored,
                self.settings.header_order,
            )
            if left.status != right.status:
                found.append(Difference("status", "status", left.status, right.status))
            found += self._bodies(left, right)
            if found and (left.learned or right.learned):
                found = unexplained(found, left.learned or (), right.learned or ())
        if found and self.book.rules:
            return self.book.keep(left.endpoint, found)
        return found

    def _outer(self, left: Answer, right: Answer) -> list[Difference] | None:
        if left.error != right.error:
            return [Difference("error", "error", left.error or left.status, right.error or right.status)]
        if left.status != right.status and (left.status or 0) // 100 != (right.status or 0) // 100:
            return [Difference("status", "status", left.status, right.status)]
        return None

    def _bodies(self, left: Answer, right: Answer) -> list[Difference]:
        old, new = left.response_body, right.response_body
        if old is None or new is None:
            # Not stored, by choice or for size: the true size is all there is to compare.
            if left.response_size == right.response_size:
                return []
            return [Difference("$", "value", f"{left.response_size} bytes", f"{right.response_size} bytes")]
        if left.truncated or right.truncated:
            return _cut(left, right, old, new)
        if old == new and _same_encoding(left.response_headers, right.response_headers):
            return []
        lists = self.book.lists(left.endpoint) if self.book.rules else None
        return body_differences(self._baseline(left, old), self._lift(right, new), lists)

    def _baseline(self, answer: Answer, body: bytes) -> Lifted:
        # The baseline's answer is compared with the candidate's and the control's: lift it once.
        if self._last is None or self._last[0] is not answer:
            self._last = (answer, self._lift(answer, body))
        return self._last[1]

    def _lift(self, answer: Answer, body: bytes) -> Lifted:
        lifted = lift(body, answer.response_headers)
        for note in lifted.notes:
            self.notes[note.partition(":")[0]] += 1
        return lifted


def _cut(left: Answer, right: Answer, old: bytes, new: bytes) -> list[Difference]:
    """Bodies of which one was cut compare up to the cut, as bytes, for a cut tree is none; then by true size."""
    size = min(len(old), len(new))
    if old[:size] != new[:size]:
        return [Difference("$", "unexplained", f"cut at {len(old)} bytes", f"cut at {len(new)} bytes")]
    if left.response_size != right.response_size:
        return [Difference("$", "value", f"{left.response_size} bytes", f"{right.response_size} bytes")]
    return []


def _same_encoding(left: Sequence[Header], right: Sequence[Header]) -> bool:
    """Equal bytes are equal bodies only if both sides say the same of how to read them."""
    return left == right or _reading(left) == _reading(right)


def _reading(headers: Sequence[Header]) -> list[str]:
    return [value for name, value in headers if name.lower() in ("content-type", "content-encoding")]
