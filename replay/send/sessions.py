"""The sessions of a run under way: who waits for whose answer, and what this target has handed out.

Each session keeps a table from recorded values and their makers to live ones, and the cookies that the target has set.
Both are of one target and one lap: no build ever sees another's values.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gevent
import msgpack

from replay.model import NOT_SENT
from replay.plan.answers import Answer
from replay.plan.places import Place
from replay.plan.requests import DEFINING, Piece, Script, defined, joined, whole, written
from replay.plan.signing import with_header
from replay.send.connection import Outcome
from replay.send.logins import Login, LoginError
from replay.send.plan_stream import Planned
from replay.store.tables import split_head

Due = tuple[Planned, int, int]
"""An arrival, its due instant, and when the sender first turned to it."""

LOGIN = -2
"""The number of the login among what a session's arrivals wait for."""

MOST_VALUES = 8192
MOST_COOKIES = 200
_LONGEST_CHAIN = 400
_NONE: Mapping[str, str] = {}


@dataclass(slots=True, eq=False)
class _Held:
    due: Due
    awaited: set[int]


@dataclass(slots=True, eq=False)
class Session:
    """One session under way; `replay.plan.requests.Live` for the request being written."""

    unfinished: set[int] = field(default_factory=set)
    held: list[_Held] = field(default_factory=list)
    table: OrderedDict[str, dict[str, str]] = field(default_factory=OrderedDict)
    """Recorded value → by the maker, the live one: order 41 and item 41 need not be one number here."""
    jar: dict[str, str] = field(default_factory=dict)
    fates: dict[int, str] = field(default_factory=dict)
    """What became of arrivals that did not hand out what the recorded ones had: number → why."""
    missing: list[str] = field(default_factory=list)
    bound: int = 0
    blocks: dict[int, tuple[Piece, ...]] = field(default_factory=dict)
    """Header lines that several of its requests share."""
    ready: dict[int, tuple[bytes, bool, int]] = field(default_factory=dict)
    """Blocks written out, whether they differ, and the values bound in them: good until a value changes."""
    last: bool = False
    credential: str | None = None
    login_failed: str | None = None

    def value(self, recorded: str, origin: Any) -> str | None:
        """The live value; where there is none, the chain that led there is noted."""
        target, maker, number = origin
        live = self.table.get(recorded, _NONE).get(maker)
        if live is None:
            _, cookie, name = maker.rpartition(" cookie ")
            live = self.jar.get(name) if cookie else None
        if live is None:
            self.missing.append(f"{target} from {maker}: {self.fates.get(number, NOT_SENT)}")
        else:
            self.bound += 1
        return live

    def cookie(self, name: str) -> str | None:
        """The live cookie of that name."""
        live = self.jar.get(name)
        self.bound += live is not None
        return live

    def follows(self) -> bool:
        """Whether the target has set any cookie."""
        return bool(self.jar)

    def block(self, number: int) -> tuple[bytes, bool]:
        """The block of that number with the values of now."""
        ready = self.ready.get(number)
        if ready is not None:
            self.bound += ready[2]
            return ready[:2]
        before = self.bound
        text, differs = joined(self.blocks[number], self)
        if not self.missing:
            self.ready[number] = (text, differs, self.bound - before)
        return text, differs

    def define(self, script: Script) -> None:
        """Keep the block that a script brings."""
        block = defined(script)
        if block is not None:
            self.blocks[block[0]] = block[1]
            self.ready.pop(block[0], None)

    def keep(self, recorded: str, maker: str, live: str) -> None:
        """Enter a value in the table; the oldest goes where there are too many."""
        self.ready.clear()
        self.table.setdefault(recorded, {})[maker] = live
        self.table.move_to_end(recorded)
        if len(self.table) > MOST_VALUES:
            self.table.popitem(last=False)


class Sessions:
    """All sessions under way. `bound` and `unbound` count values put in place, and arrivals that lacked one."""

    def __init__(
        self, login: Login | None = None, released: Callable[[list[Due]], None] = lambda ready: None
    ) -> None:
        """`login` is run before each session; `released` gets the arrivals that had waited for that."""
        self._login = login
        self._on_released = released
        self.bound = 0
        self.unbound = 0
        self.waited = 0
        """Arrivals that were held for an answer."""
        self._open: dict[int, Session] = {}

    def books(self) -> dict[str, int]:
        """What was done for the sessions: counts of values written in, of arrivals that lacked one, and that waited."""
        return {"values bound": self.bound, "unbound": self.unbound, "waited for an answer": self.waited}

    def admit(self, arrival: Planned, due_at: int, now: int) -> Planned | None:
        """The arrival as it is to be sent now, or `None`: it is held, and `settle` will release it."""
        causal = arrival.causal
        if causal is None:
            return arrival
        session_number, number, awaits, last = causal
        session = self._open.get(session_number) or self._begin(session_number, arrival)
        script = arrival.script
        if script is not None and len(script[0][-1]) == DEFINING:
            session.define(script)
        unfinished = session.unfinished
        awaited = {other for other in awaits if other in unfinished} if unfinished and awaits else None
        if self._login is not None and LOGIN in unfinished:
            awaited = {LOGIN, *(awaited or ())}
        unfinished.add(number)
        if last:
            session.last = True
        if awaited:
            self.waited += 1
            if script is not None:
                arrival = arrival._replace(script=whole(script, session.blocks))
            session.held.append(_Held((arrival, due_at, now), awaited))
            return None
        return self._bind(arrival, session)

    def skip(self, arrival: Planned) -> None:
        """An arrival that is not sent at all."""
        if arrival.causal is None:
            return
        number, _, _, last = arrival.causal
        session = self._open.get(number)
        if last:
            if session is not None:
                session.last = True
                self._close(number, session)
        elif arrival.script is not None and defined(arrival.script):
            # Others will name what this one brings.
            (session or self._begin(number, arrival)).define(arrival.script)

    def settle(self, outcome: Outcome) -> tuple[Outcome, list[Due]]:
        """Take from an answer what later requests need; the arrivals that had waited for it alone."""
        arrival = outcome.arrival
        causal = arrival.causal
        if causal is None:
            return outcome, []
        session = self._open[causal[0]]
        if arrival.takes or b"ookie:" in outcome.head or b"OOKIE:" in outcome.head:
            outcome = outcome._replace(learned=self._learn(session, causal[1], outcome))
        session.unfinished.discard(causal[1])
        released = self._released(session, causal[1]) if session.held else []
        if session.last:
            self._close(causal[0], session)
        return outcome, released

    def held(self) -> list[Due]:
        """Give up waiting: all arrivals that are still held."""
        given_up = [held.due for session in self._open.values() for held in session.held]
        for session in self._open.values():
            session.held.clear()
        return given_up

    def _begin(self, number: int, arrival: Planned) -> Session:
        session = self._open[number] = Session()
        if self._login is not None:
            session.unfinished.add(LOGIN)
            gevent.spawn(self._log_in, self._login, number, session, session_of(arrival))
        return session

    def _close(self, number: int, session: Session) -> None:
        if not session.unfinished and not session.held:
            self._open.pop(number, None)

    def _released(self, session: Session, number: int) -> list[Due]:
        ready = []
        for held in session.held:
            held.awaited.discard(number)
            if not held.awaited:
                ready.append(held)
        if not ready:
            return []
        session.held = [held for held in session.held if held.awaited]
        return [(self._bind(held.due[0], session), *held.due[1:]) for held in ready]

    def _log_in(self, login: Login, number: int, session: Session, session_id: str) -> None:
        try:
            given = login.run(session_id)
            session.credential = given.value
            session.jar.update(given.cookies)
            session.ready.clear()
        except LoginError as error:
            session.login_failed = str(error)
        except Exception as error:
            # Whatever it was: a session that waits for ever would be a run that never ends.
            session.login_failed = f"login failed, {type(error).__name__}: {error}"
        session.unfinished.discard(LOGIN)
        self._on_released(self._released(session, LOGIN))
        if session.last:
            self._close(number, session)

    def _bind(self, arrival: Planned, session: Session) -> Planned:
        """The arrival with the session's live values and its own credential."""
        if arrival.script is not None:
            session.bound = 0
            head, body, differs = written(arrival.script, session)
            self.bound += session.bound
            unbound = self._unbound(session) if session.missing else None
            exact = arrival.exact and not differs
            sent = None if exact else (head, body)
            # Not by `_replace`, which takes several times as long: this is the hot path.
            made = (*arrival[:9], exact, head + body, sent, arrival.skipped, *arrival[13:15], unbound)
            arrival = tuple.__new__(Planned, made)
        return arrival if self._login is None else self._authorise(arrival, session, self._login)

    def _authorise(self, arrival: Planned, session: Session, login: Login) -> Planned:
        """Put the session's credential, if its login gave one, where the user wants it."""
        if session.login_failed is not None:
            self.unbound += arrival.unbound is None
            return arrival._replace(unbound="; ".join(filter(None, (session.login_failed, arrival.unbound))))
        if session.credential is None:
            return arrival
        head, blank, body = arrival.wire.partition(b"\r\n\r\n")
        new = with_header(head + blank, login.header, session.credential, only_there=not login.everywhere)
        if new == head + blank:
            return arrival
        return arrival._replace(wire=new + body, exact=False, changed=(new, body))

    def _unbound(self, session: Session) -> str:
        """Count a request that lacks live values, and tell which."""
        self.unbound += 1
        told = "; ".join(dict.fromkeys(session.missing))[:_LONGEST_CHAIN]
        session.missing.clear()
        return told

    def _learn(self, session: Session, number: int, outcome: Outcome) -> tuple[tuple[str, str], ...]:
        """Enter cookies and values into the session; the pairs (recorded, live) that the answer gave."""
        answer = Answer(split_head(outcome.head), outcome.body)
        for name, value, gone in answer.cookies():
            session.ready.clear()
            if gone:
                session.jar.pop(name, None)
            elif len(session.jar) < MOST_COOKIES or name in session.jar:
                session.jar[name] = value
        learned: dict[tuple[str, str], None] = {}
        missing = 0
        takes, endpoint = outcome.arrival.takes, outcome.arrival.endpoint
        beside = _by_place(takes)
        for packed, recorded in takes:
            if packed is None:
                learned.update(
                    ((recorded, live), None) for live in session.table.get(recorded, _NONE).values()
                )
                continue
            place = Place._make(packed)
            live = answer.find(place, recorded, beside[place.erased])
            if live:
                session.keep(recorded, f"{endpoint} {place.erased}", live)
                learned[recorded, live] = None
            else:
                missing += 1
        if missing:
            session.fates[number] = _fate(outcome)
        return tuple(learned)


def _by_place(takes: Iterable[Any]) -> dict[str, set[str]]:
    """All recorded values of an answer by their places, whatever the index."""
    found: dict[str, set[str]] = {}
    for packed, recorded in takes:
        if packed is not None:
            found.setdefault(Place._make(packed).erased, set()).add(recorded)
    return found


def session_of(arrival: Planned) -> str:
    """The id of an arrival's session, from the columns that the planner packed."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(arrival.identity)
    _, _, session_id = (unpacker.unpack() for _ in range(3))
    return str(session_id)


def _fate(outcome: Outcome) -> str:
    """What became of an arrival, and of the one before it where that is why."""
    told = f"failed, {outcome.error}" if outcome.error else f"answered {outcome.status}"
    if not outcome.error and (outcome.status or 0) < 400:
        told = f"{told} without it"
    unbound = outcome.arrival.unbound
    return f"{told} ({unbound})" if unbound else told
