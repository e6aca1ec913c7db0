"""Which answers of its session a request had waited for: causal order, read off the recording.

B waits for A where A's answer had ended before B began. Only the last such answers are named: what they had
waited for themselves is implied. Requests that overlapped in the recording may overlap again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

NEVER = 1 << 62


_Ended = list[int]
"""An answer that later requests of the session may have to wait for: its request's number, its end, and from when on
whoever waits for a later answer has waited for this one too."""


@dataclass(slots=True)
class _Session:
    count: int = 0
    ended: list[_Ended] = field(default_factory=list)


class Causality:
    """Numbers the requests of each session and tells what each awaits. Ask in order of time."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}

    def place(self, session_id: str, started_at: int, duration_ns: int | None) -> tuple[int, tuple[int, ...]]:
        """The request's number in its session, and the numbers of those whose answers it awaits.

        A request whose end was not seen is awaited by nobody.
        """
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = _Session()
        number = session.count
        session.count += 1
        end = NEVER if duration_ns is None else started_at + duration_ns
        kept: list[_Ended] = []
        awaited: tuple[int, ...] = ()
        for other in session.ended:
            known, other_end, implied_from = other
            if implied_from > started_at:
                kept.append(other)
                if other_end <= started_at:
                    awaited = (*awaited, known)
                    if end < implied_from:
                        other[2] = end
        if duration_ns is not None:
            kept.append([number, end, NEVER])
        session.ended = kept
        return number, awaited

    def close(self, session_id: str) -> None:
        """Forget a session that has no more requests."""
        self._sessions.pop(session_id, None)
