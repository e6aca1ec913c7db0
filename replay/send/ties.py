"""What ties an arrival to its session: whose answers it awaits, what of them it carries, what of its own is kept."""

from __future__ import annotations

from collections import Counter
from typing import Any

from replay.plan.causal import Causality
from replay.plan.correlate import Binder, Seen, Take
from replay.send.wire import Wire

Tie = tuple[tuple[int, int, tuple[int, ...], bool] | None, Any, tuple[Take, ...]]
"""The fields `causal`, `script` and `takes` of `Planned`."""

FREE: Tie = (None, None, ())
NOT_SENT = -1
"""In place of the number of an arrival."""


class Ties:
    """Ties the arrivals of one lap. `left` counts what each session still has to send; `numbered` sessions came
    in laps before; sessions of `least` arrivals are tied. Ask in order of time."""

    def __init__(self, left: Counter[str], numbered: int, binder: Binder | None, least: int = 2) -> None:
        self._left = left
        self.several = frozenset(session for session, count in left.items() if count >= least)
        """The sessions whose arrivals are tied."""
        self._numbers: dict[str, int] = {}
        self._causality = Causality()
        self._binder = binder
        self.numbered = numbered

    def tie(self, seen: Seen, wire: Wire, body: bytes, text: bytes | None = None) -> Tie:
        """The ties of one arrival of `several`; `body` is the request's body without any framing, `text` that of the
        answer where it was not read in full."""
        session_id = seen.session_id
        self._left[session_id] -= 1
        last = not self._left[session_id]
        # Nobody waits for what is not sent: what it had waited for is waited for instead.
        duration_ns = None if wire.skipped else seen.duration_ns
        number, awaits = self._causality.place(session_id, seen.started_at, duration_ns)
        script: Any = None
        takes: tuple[Take, ...] = ()
        if self._binder is not None:
            if not wire.skipped:
                script = self._binder.script(seen, wire.head, body, wire.body != body)
            takes = self._binder.takes(seen, number, text)
        causal = (self._number(session_id), number, awaits, last)
        if last:
            self._close(session_id)
        return causal, script, takes

    def leave_out(self, seen: Seen, text: bytes | None = None) -> None:
        """An exchange that is not sent: what it handed out will be missed."""
        if self._binder is not None and seen.session_id in self.several and self._left[seen.session_id]:
            self._binder.takes(seen, NOT_SENT, text)

    def _number(self, session_id: str) -> int:
        number = self._numbers.get(session_id)
        if number is None:
            number = self._numbers[session_id] = self.numbered
            self.numbered += 1
        return number

    def _close(self, session_id: str) -> None:
        self._causality.close(session_id)
        self._numbers.pop(session_id)
        if self._binder is not None:
            self._binder.close(session_id)
