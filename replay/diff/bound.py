"""Values that two builds made for the same recorded one are the same value: old `order 812` ≙ new `order 977`.

Each row of a run tells which live values stood for which recorded ones in its answer. A difference between two
texts that are equal once both are told in recorded values is none. And where a request lacked a live value on one
side alone, because an earlier request of its session fared otherwise there, what differs follows from that earlier
difference.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from replay.findings import Difference

Pairs = Sequence[tuple[str, str]]
"""(recorded, live) values of one answer."""


def unexplained(found: list[Difference], left: Pairs, right: Pairs) -> list[Difference]:
    """The differences that remain when bound values are taken for what they stand for."""
    if not left and not right:
        return found
    old, new = _Told(left), _Told(right)
    return [difference for difference in found if not _explained(difference, old, new)]


def downstream(left: str | None, right: str | None) -> str | None:
    """Of what a difference is the consequence, if only one side lacked a live value; else `None`."""
    return None if (left is None) == (right is None) else left or right


_MAKER = re.compile(r" from (\S+ /\S*)")


def makers(cause: str) -> tuple[str, ...]:
    """The endpoints whose answers a chain of causes speaks of; none for a login of the user's own."""
    return tuple(sorted(set(_MAKER.findall(cause))))


class _Told:
    """Tells values of one side by the recorded values they stand for."""

    __slots__ = ("_names", "_pattern")

    def __init__(self, pairs: Pairs) -> None:
        self._names = {live: recorded for recorded, live in pairs if live}
        longest_first = sorted(self._names, key=len, reverse=True)
        # A value is found in a text where it stands by itself: 41 is not in 1415.
        alone = "|".join(map(re.escape, longest_first))
        self._pattern = re.compile(rf"(?<![A-Za-z0-9])(?:{alone})(?![A-Za-z0-9])") if alone else None

    def tell(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self.tell(item) for item in value]
        if isinstance(value, bool) or not isinstance(value, str | int):
            return value
        text = str(value)
        if text in self._names:
            return self._names[text]
        if self._pattern is None or not isinstance(value, str):
            return text
        return self._pattern.sub(lambda found: self._names[found[0]], value)


def _explained(difference: Difference, old: _Told, new: _Told) -> bool:
    if difference.kind not in ("value", "order"):
        return False
    return bool(old.tell(difference.left) == new.tell(difference.right))
