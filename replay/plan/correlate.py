"""Which requests carry what earlier answers of their session handed out: bindings, found in the recording alone.

A value binds where an answer was the first to speak of it and a later request of the same session, begun after that
answer had ended, carries it. Three guards keep chance out. The value must be telling (`places.strength`): small
numbers and short codes bind only where position or name agree, and only where they mostly do. It must not have been
there before: a value that the session had sent already, or that the very request asked for, was not made by the
answer. And it must not be common: what other sessions are handed at the same place, or ask for at the same place, is
data that staging has too.

`Learner` finds the rules in one pass; `Binder` applies them in the next, row by row, in order of time.
"""

from __future__ import annotations

import re
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from replay.errors import ConfigError
from replay.model import Header
from replay.plan.answers import Answer, text_of
from replay.plan.causal import NEVER
from replay.plan.places import LONGEST, NOTHING, STRONG, WEAK, Place, agree, strength
from replay.plan.requests import Kept, Script, consumed, script

LEARN_FROM = 50_000
"""Exchanges that the rules are learned from; of longer captures, a share of the sessions."""

MIN_PRIVATE = 0.5
"""The share of a rule's matches whose value no other session is handed, or asks for."""

MIN_HITS = 0.5
"""The share of the requests that could carry a weak value and do."""

_SESSIONS, _VALUES, _EXAMPLES, _MATCHES, _TAKES, _OWNERS = 20_000, 4096, 3, 1000, 256, 2_000_000
_LATEST, _EACH, _MAKERS, _AGREEMENTS = 64, 8, 4096, 200_000
_ANSWERS = 4
_MANY = -1

_COME_AGAIN = frozenset({400, 401, 403, 409, 412, 422, 428})
"""Refusals after which a client mends its request and tries again."""

ANY = "*"
"""In place of an endpoint: every one."""

End = tuple[str, str]
"""An endpoint and an erased place: one end of a rule."""

_ANYWHERE: End = (ANY, "")
"""Any place of any request: what only a wish for all of them matches."""


class Seen(NamedTuple):
    """The columns of an exchange that correlation reads; named as on disk."""

    exchange_id: str
    session_id: str
    started_at: int
    duration_ns: int | None
    endpoint: str
    target: str
    request_headers: tuple[Header, ...]
    request_body: bytes | None
    status: int | None
    response_headers: tuple[Header, ...]
    response_body: bytes | None


@dataclass(frozen=True, slots=True)
class Binding:
    """A rule: what `source` answers at `place` is what `endpoint` asks for at `target`.

    `count` and `sessions` say how often it was seen; `examples` are (value, exchange of the answer, exchange of
    the request). A rule of the user's own has none.
    """

    source: str
    place: str
    endpoint: str
    target: str
    count: int = 0
    sessions: int = 0
    examples: tuple[tuple[str, str, str], ...] = ()

    @property
    def maker(self) -> str:
        """`POST /orders $.id`."""
        return f"{self.source} {self.place}"

    @property
    def user(self) -> str:
        """`GET /orders/{id} path[1]`."""
        return f"{self.endpoint} {self.target}"


@dataclass(frozen=True, slots=True)
class Wish:
    """A `[[bind]]` of the user's: `add` a rule, `forbid` those that match, `pin` a place to one maker.

    `maker` and `user` are written as `--bindings` prints them; `*` stands for anything where rules are matched.
    """

    action: str
    maker: str
    user: str


class _Made(NamedTuple):
    """Where a session's answer speaks of a value of its own making."""

    source: str
    place: Place
    exchange_id: str
    end: int


@dataclass(slots=True)
class _Session:
    number: int
    made: OrderedDict[str, list[_Made]] = field(default_factory=OrderedDict)
    sent: set[str] = field(default_factory=set)
    sent_at: set[tuple[str, str, str]] = field(default_factory=set)
    makers: dict[End, int] = field(default_factory=dict)
    """Places that have made a weak value, and when the first was there."""


@dataclass(slots=True)
class _Evidence:
    count: int = 0
    strong: bool = False
    values: list[tuple[int, int]] = field(default_factory=list)
    sessions: set[int] = field(default_factory=set)
    examples: list[tuple[str, str, str]] = field(default_factory=list)


class Learner:
    """Reads exchanges in order of time; then `bindings` are what they show, and what the user wishes.

    What a wish forbids is left out from the start, so that another maker of the value is found in its place.
    """

    def __init__(self, wishes: Iterable[Wish] = ()) -> None:
        self._wishes = tuple(wishes)
        forbidden = [wish for wish in self._wishes if wish.action == "forbid"]
        self._forbidden = [(_pattern(wish.maker), _pattern(wish.user)) for wish in forbidden]
        self._barred: dict[tuple[End, End], bool] = {}
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._evidence: dict[tuple[End, End], _Evidence] = {}
        self._chances: defaultdict[tuple[End, End], int] = defaultdict(int)
        self._owners: dict[int, int] = {}
        self._agree: dict[tuple[End, End], bool] = {}
        self._makers: dict[End, Place] = {}
        self._agreeing_with: dict[End, tuple[int, list[End]]] = {}
        self._begun = 0

    def add(self, seen: Seen) -> None:
        """Take in one exchange."""
        session = self._session(seen.session_id)
        values = [
            (place, value) for place, value in consumed(seen.target, seen.request_headers, seen.request_body)
        ]
        for place, value in values:
            self._carried(session, seen, place, value)
        for place, value in values:
            if strength(value) != NOTHING:
                session.sent.add(value)
                session.sent_at.add((*_user(seen.endpoint, place), value))
        if seen.duration_ns is not None and _hands_out(seen.status):
            self._answered(session, seen, {value for _, value in values})

    def bindings(self) -> tuple[Binding, ...]:
        """The rules that stand up to the guards, the most used first, and what the user wishes."""
        found = [
            Binding(*maker, *user, evidence.count, len(evidence.sessions), tuple(evidence.examples))
            for (maker, user), evidence in self._evidence.items()
            if self._stands(maker, user, evidence)
        ]
        return tuple(
            sorted(wished(found, self._wishes), key=lambda rule: (-rule.count, rule.maker, rule.user))
        )

    def _session(self, session_id: str) -> _Session:
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = _Session(self._begun)
            self._begun += 1
            if len(self._sessions) > _SESSIONS:
                self._sessions.popitem(last=False)
        else:
            self._sessions.move_to_end(session_id)
        return session

    def _carried(self, session: _Session, seen: Seen, place: Place, value: str) -> None:
        """One value of a request: who made it, and who might have."""
        telling = strength(value)
        user = _user(seen.endpoint, place)
        if telling != NOTHING:
            self._own(user, value, session)
        if telling != STRONG:
            for end in self._agreeing(user, place):
                if session.makers.get(end, NEVER) <= seen.started_at:
                    self._chances[end, user] += 1
        made = session.made.get(value, ()) if telling != NOTHING else ()
        made = [maker for maker in made if maker.end <= seen.started_at]
        if not made:
            return
        if telling == WEAK and (*user, value) in session.sent_at and not self._was_bound(made, user, value):
            return
        makers = [maker for maker in made if not self._is_barred(maker, user)]
        agreeing = [
            maker for maker in makers if self._agrees(maker.source, maker.place, seen.endpoint, place)
        ]
        if agreeing or (makers and telling == STRONG):
            self._match(session, seen, (agreeing or makers)[0], user, value, telling)

    def _was_bound(self, made: Iterable[_Made], user: End, value: str) -> bool:
        """Whether an earlier request with this value at this place was one of the rule's matches itself."""
        key = hash((user, value))
        return any(
            any(pair[1] == key for pair in evidence.values)
            for maker in made
            if (evidence := self._evidence.get(((maker.source, maker.place.erased), user))) is not None
        )

    def _match(self, session: _Session, seen: Seen, made: _Made, user: End, value: str, telling: int) -> None:
        made_at = (made.source, made.place.erased)
        evidence = self._evidence.setdefault((made_at, user), _Evidence())
        evidence.count += 1
        evidence.strong = evidence.strong or telling == STRONG
        evidence.sessions.add(session.number)
        if len(evidence.values) < _MATCHES:
            evidence.values.append((hash((made_at, value)), hash((user, value))))
        if len(evidence.examples) < _EXAMPLES and all(e[0] != value for e in evidence.examples):
            evidence.examples.append((value, made.exchange_id, seen.exchange_id))

    def _answered(self, session: _Session, seen: Seen, asked: set[str]) -> None:
        """What an answer is the first to speak of is its own making."""
        if _is_public(seen.response_headers):
            return
        end = seen.started_at + (seen.duration_ns or 0)
        for place, value in Answer(seen.response_headers, seen.response_body).produced():
            telling = strength(value)
            if telling == NOTHING:
                continue
            self._own((seen.endpoint, place.erased), value, session)
            if value in asked or (telling == STRONG and value in session.sent):
                continue
            found = _Made(seen.endpoint, place, seen.exchange_id, end)
            if self._is_barred(found, _ANYWHERE):
                continue
            if telling == WEAK:
                maker = (seen.endpoint, place.erased)
                if maker in self._makers or len(self._makers) < _MAKERS:
                    session.makers.setdefault(maker, end)
                    self._makers.setdefault(maker, place)
            self._made(session, value, found, telling)

    def _made(self, session: _Session, value: str, made: _Made, telling: int) -> None:
        """Keep who made a value: of a telling one the first, which is meant whoever repeats it; of a small number,
        which is made again and again, the latest of each kind, and the latest of all in front."""
        known = session.made.get(value)
        if known is None:
            session.made[value] = [made]
            if len(session.made) > _VALUES:
                session.made.popitem(last=False)
        elif telling == WEAK:
            same = (made.source, made.place.erased)
            others = [maker for maker in known if (maker.source, maker.place.erased) != same]
            latest = made.exchange_id != others[0].exchange_id if others else True
            session.made[value] = ([made, *others] if latest else [*others, made])[:_EACH]
            session.made.move_to_end(value)
        elif known[0].exchange_id == made.exchange_id and len(known) < _EACH:
            known.append(made)

    def _is_barred(self, maker: _Made, user: End) -> bool:
        """Whether the user forbids that this place of this answer makes what stands there in requests."""
        if not self._forbidden:
            return False
        made_at = (maker.source, maker.place.erased)
        known = self._barred.get((made_at, user))
        if known is None:
            source, target = " ".join(made_at), " ".join(user)
            known = self._barred[made_at, user] = any(
                made.fullmatch(source) and used.fullmatch(target) for made, used in self._forbidden
            )
        return known

    def _own(self, end: End, value: str, session: _Session) -> None:
        key = hash((end, value))
        if len(self._owners) >= _OWNERS and key not in self._owners:
            return
        if self._owners.setdefault(key, session.number) != session.number:
            self._owners[key] = _MANY

    def _agrees(self, source: str, made_at: Place, endpoint: str, place: Place) -> bool:
        key = ((source, made_at.erased), (endpoint, place.erased))
        known = self._agree.get(key)
        if known is None:
            if len(self._agree) >= _AGREEMENTS:
                self._agree.clear()
            known = self._agree[key] = agree(source, made_at, endpoint, place)
        return known

    def _agreeing(self, user: End, place: Place) -> list[End]:
        """The makers of weak values, in any session so far, that agree with this place of a request."""
        checked, found = self._agreeing_with.get(user, (0, []))
        if checked < len(self._makers):
            fresh = islice(self._makers.items(), checked, None)
            found = found + [maker for maker, at in fresh if self._agrees(maker[0], at, user[0], place)]
            self._agreeing_with[user] = (len(self._makers), found)
        return found

    def _stands(self, maker: End, user: End, evidence: _Evidence) -> bool:
        if maker[1].startswith("cookie ") and user[1].startswith("cookie "):
            return maker[1] == user[1]
        values = set(evidence.values)
        private = sum(_MANY not in (self._owners.get(made), self._owners.get(used)) for made, used in values)
        if private < MIN_PRIVATE * len(values):
            return False
        return evidence.strong or evidence.count >= MIN_HITS * self._chances[maker, user]


def _user(endpoint: str, place: Place) -> End:
    """Headers and cookies are sent to every endpoint alike: what binds one of them binds all."""
    return (ANY if place.kind in ("header", "cookie") else endpoint, place.erased)


def _hands_out(status: int | None) -> bool:
    """Whether an answer makes values. A form that is shown again has a fresh token, what is broken or gone has none."""
    return status is not None and (status < 400 or status in _COME_AGAIN)


def _is_public(headers: tuple[Header, ...]) -> bool:
    """Whether an answer is for everybody, and so makes nothing for this session."""
    public = any(name.lower() == "cache-control" and "public" in value.lower() for name, value in headers)
    return public and not any(name.lower() == "set-cookie" for name, _ in headers)


def wished(found: Iterable[Binding], wishes: Iterable[Wish]) -> list[Binding]:
    """The rules found, without those forbidden, those of a pinned place only from its maker, and those added."""
    rules = list(found)
    for wish in wishes:
        maker, user = _pattern(wish.maker), _pattern(wish.user)
        if wish.action == "forbid":
            rules = [
                rule for rule in rules if not (maker.fullmatch(rule.maker) and user.fullmatch(rule.user))
            ]
            continue
        if wish.action == "pin":
            rules = [rule for rule in rules if rule.user != wish.user or rule.maker == wish.maker]
        if not any(rule.maker == wish.maker and rule.user == wish.user for rule in rules):
            rules.append(Binding(*ends(wish.maker), *ends(wish.user)))
    return rules


def wishes(tables: Iterable[Mapping[str, Any]]) -> tuple[Wish, ...]:
    """`[[bind]]` tables: `add`, `forbid` or `pin` names the maker, `to` the place. `ConfigError` where they do not."""
    made = []
    for number, table in enumerate(tables, 1):
        actions = [key for key in ("add", "forbid", "pin") if key in table]
        if (
            len(actions) != 1
            or set(table) - {*actions, "to"}
            or not all(isinstance(v, str) for v in table.values())
        ):
            raise ConfigError(
                f"[[bind]] {number}: write one of add, forbid and pin, and to:"
                ' add = "POST /orders $.id", to = "GET /orders/{id} path[1]"'
            )
        wish = Wish(actions[0], table[actions[0]], table.get("to", "*"))
        ready = _END.fullmatch(wish.maker) and _END.fullmatch(wish.user)
        if wish.action != "forbid" and (not ready or wish.maker.startswith(ANY)):
            raise ConfigError(
                f"[[bind]] {number}: {wish.action} needs both ends as `replay inspect --bindings` prints them:"
                ' "POST /orders $.id" and "GET /orders/{id} path[1]"'
            )
        made.append(wish)
    return tuple(made)


_END = re.compile(r"(?:\* |\S+ /\S* )(?:\$[.\[].+|path\[\d+\].*|(?:header|cookie|query|form|meta|link) \S.*)")


def ends(text: str) -> End:
    """`POST /orders $.id` → (`POST /orders`, `$.id`); `* cookie sid` → (`*`, `cookie sid`)."""
    if text.startswith(f"{ANY} "):
        return ANY, text[2:]
    method, route, place = text.split(" ", 2)
    return f"{method} {route}", place


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, text.split("*"))))


@dataclass(slots=True)
class _Handed:
    """A value that a session has been handed in the recording: by which makers, and of each the numbers and ends of its
    last answers. Order 41 and item 41 are two things of one name."""

    makers: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def add(self, maker: str, number: int, end: int) -> None:
        """An answer that hands it out (again)."""
        answers = self.makers.setdefault(maker, [])
        if not answers or answers[-1][0] != number:
            answers.append((number, end))
            del answers[:-_ANSWERS]

    def by(self, makers: Collection[str], before: int) -> tuple[str, int] | None:
        """Which of these had handed it out last, and the number of that answer, which had ended before an instant."""
        found: tuple[int, str, int] | None = None
        for maker, answers in self.makers.items():
            if maker in makers:
                ended = next((answer for answer in reversed(answers) if answer[1] <= before), None)
                if ended is not None and (found is None or ended[1] > found[0]):
                    found = (ended[1], maker, ended[0])
        return None if found is None else found[1:]


class _Table(OrderedDict[str, _Handed]):
    """What a session has been handed. `kept` is from requests scripted since the last value came, which was there when
    it was `ready`. `latest` are the last values, by what is looked for in texts."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = 0
        self.kept = Kept()
        self.latest: dict[bytes, str] = {}

    def changed(self, ready: int) -> None:
        """An answer that ended then has handed out something."""
        self.ready = max(self.ready, ready)
        self.kept.clear()
        self.latest = {value.encode(): value for value in islice(reversed(self), _LATEST)}


Take = tuple[Place | None, str]
"""Where a live answer holds what the recorded one held there. No place: the recorded answer repeats a value that is
known already."""


class Binder:
    """Tells, exchange by exchange in order of time, what to write into the request and what to take from the answer."""

    def __init__(self, rules: Iterable[Binding]) -> None:
        self._makers: dict[str, set[str]] = defaultdict(set)
        self._users: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for rule in rules:
            self._makers[rule.source].add(rule.place)
            self._users[rule.endpoint][rule.target].add(rule.maker)
        self._known: dict[str, tuple[dict[str, set[str]], frozenset[str], bool]] = {}
        self._handed: dict[str, _Table] = {}

    def _users_of(self, endpoint: str) -> tuple[dict[str, set[str]], frozenset[str], bool]:
        """The places of this endpoint's requests that are bound, each with its makers; their kinds; and whether header
        lines are bound like those of any other endpoint."""
        own = self._users.get(endpoint, {})
        users = {**self._users.get(ANY, {}), **own}
        kinds = frozenset(re.split(r"[ .\[]", place, maxsplit=1)[0] for place in users)
        alike = not any(place.startswith(("header ", "cookie ")) for place in own)
        known = self._known[endpoint] = (users, kinds, alike)
        return known

    def script(self, seen: Seen, head: bytes, body: bytes, chunked: bool) -> Script | None:
        """The request as a script, `None` where it carries nothing that is bound and no cookie."""
        users, kinds, alike = self._known.get(seen.endpoint) or self._users_of(seen.endpoint)
        handed = self._handed.get(seen.session_id)
        cookies = b"ookie: " in head or b"OOKIE: " in head
        if not cookies and (not users or handed is None):
            return None

        def want(place: Place, value: str) -> Any:
            found = handed.get(value) if handed is not None else None
            makers = users.get(place.erased) if found is not None else None
            if found is None or makers is None:
                return None
            made = found.by(makers, seen.started_at)
            return None if made is None else (place.erased, *made)

        if handed is None:
            return script(head, body, chunked, want, frozenset())
        kept = handed.kept if alike and seen.started_at >= handed.ready else None
        known = handed.latest if len(handed) <= _LATEST else None
        return script(head, body, chunked, want, kinds, known, kept)

    def takes(self, seen: Seen, number: int, text: bytes | None = None) -> tuple[Take, ...]:
        """What to take from the live answer to the session's request of that number.

        `text` is what the recorded answer says (see `text_of`), if whoever asks has it at hand: then of answers that
        make nothing no header and no body is looked at.
        """
        places = self._makers.get(seen.endpoint)
        known = self._handed.get(seen.session_id)
        if seen.duration_ns is None or not _hands_out(seen.status) or not (places or known):
            return ()
        found: list[Take] = []
        if known:
            if text is None:
                text = text_of(seen.response_headers, seen.response_body)
            # Of the latest only: short values may be there by accident.
            found = [(None, value) for written, value in known.latest.items() if written in text]
        if not places:
            return tuple(found)
        answer = Answer(seen.response_headers, seen.response_body)
        handed = known if known is not None else self._handed.setdefault(seen.session_id, _Table())
        end = seen.started_at + seen.duration_ns
        for place, value in answer.produced():
            # The rule stands: a value that looks like nothing by chance is bound like the others.
            if place.erased in places and len(value) <= LONGEST and len(found) < _TAKES:
                found.append((place, value))
                if value not in handed:
                    handed[value] = _Handed()
                    if len(handed) > _VALUES:
                        handed.popitem(last=False)
                handed[value].add(f"{seen.endpoint} {place.erased}", number, end)
                handed.move_to_end(value)
        handed.changed(end)
        return tuple(found)

    @property
    def makers(self) -> frozenset[str]:
        """The endpoints whose answers hand out what is bound."""
        return frozenset(self._makers)

    def close(self, session_id: str) -> None:
        """Forget a session that has no more requests."""
        self._handed.pop(session_id, None)
