"""The planner process: reads the capture, decides what is due when, and streams ready-made bytes ahead.

It runs beside the sender so that neither Parquet nor serialising ever holds up a send:
`python -m replay.send.planner SETTINGS`, where SETTINGS is JSON (see `Order`), writes the stream described in
`replay.send.plan_stream` to standard output and stops when nobody reads it any more.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from replay.config import Config, RunSettings, from_environment, load
from replay.errors import InputError, ReplayError
from replay.plan import pacing
from replay.plan.correlate import Binder, Binding, Seen
from replay.plan.dispatch import DENIED, EXCLUDED, WRITE, Selection, share_of
from replay.plan.requests import Dropped
from replay.plan.rewrite import Parts
from replay.plan.sessions import Lanes
from replay.plan.times import times_of
from replay.send import answering
from replay.send.laps import MOST_BYTES as LAP_BYTES
from replay.send.laps import Laps
from replay.send.learning import Rule, learn
from replay.send.plan_stream import (
    BLOCK_BYTES,
    END,
    ERROR,
    LENGTH,
    Planned,
    pack_arrival,
    pack_identity,
    pack_last,
)
from replay.send.preparing import rewriter_of
from replay.send.ties import FREE, Ties
from replay.send.wire import Changes, Request, Serialiser, Wire, serialise
from replay.store.reader import Dataset, to_rows

RAMPED = 500.0
"""Requests per second above which a rate grows over the first seconds, unless told otherwise."""

_TOLD = ("session_id", "started_at", "endpoint", "method", "target")
"""What the plan needs of every exchange, whoever sends it."""

_COLUMNS = (
    *_TOLD,
    *("exchange_id", "connection_id", "duration_ns", "host", "http_version"),
    *("request_headers", "request_body", "request_size"),
)
_NO_ANSWER: answering.Read = ((None, (), None), None)
_ANOTHERS = (None, _NO_ANSWER)


@dataclass(frozen=True, slots=True)
class Order:
    """What to plan: a capture, the settings, the target's authority, and which of how many shares of the sessions.

    `holdings` are pairs of a share and the key from which on it is planned (see `replay.plan.shares`); what comes
    before is left to whoever held the share then. `first` is where lanes and sessions are numbered from: a worker may
    have several planners. `rules` are bindings that are known already.
    """

    capture: str
    settings: RunSettings
    authority: str
    holdings: tuple[tuple[int, int], ...] = ((0, 0),)
    shares: int = 1
    first: int = 0
    rules: tuple[Rule, ...] | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Order:
        data = json.loads(text)
        settings = {key: _frozen(value) for key, value in data.pop("settings").items()}
        return cls(settings=RunSettings(**settings), **{key: _frozen(value) for key, value in data.items()})


class Planner:
    """Turns a capture into arrivals in due order. `counts` holds what was left out, and why."""

    def __init__(self, order: Order) -> None:
        self.counts: Counter[str] = Counter()
        self._order = order
        self._settings = order.settings
        settings = order.settings
        self._selection = Selection(settings.include, settings.exclude, settings.writes, settings.deny)
        self._changes = Changes(
            host=order.authority if order.settings.host_header == "target" else None,
            set=from_environment(order.settings.set_headers),
            remove=frozenset(name.lower() for name in order.settings.remove_headers),
        )
        self._serialise = Serialiser(self._changes)
        self._pace = make_pace(order.settings)
        self._limit = None if settings.duration is None else int(settings.duration * pacing.SECOND)
        self._dataset = Dataset.open(Path(order.capture), "capture")
        self._config = load(Path(order.settings.rules)) if order.settings.rules else Config()
        self._rewriter = rewriter_of(self._config)
        self._times = times_of(self._config.rewrite["time"]) if "time" in self._config.rewrite else None
        self._shift = 0
        self._binder = Binder(self._bindings()) if order.settings.sessions == "live" else None
        # What rules of the user's make of a request may be something else next time.
        rewritten = self._rewriter is not None or self._times is not None
        # What is taken over begins somewhere: until then all is planned, and dropped.
        self._dropped = Dropped() if any(since for _, since in order.holdings) else None
        once = rewritten or settings.loop == 1 or self._dropped is not None
        self._laps = Laps(0 if once else LAP_BYTES)
        self._index = 0
        self._mine = dict(order.holdings)
        self._by_place = settings.concurrency is not None
        self._lane_numbers: dict[tuple[str, int], int] = {}
        self._next_lane = order.first

    def _bindings(self) -> tuple[Binding, ...]:
        if self._order.rules is None:
            return learn(self._dataset, self._config.bind)
        return tuple(Binding(*rule) for rule in self._order.rules)

    @property
    def planned_by_all(self) -> int:
        """Arrivals of all shares together, so far."""
        return self._index

    def arrivals(self) -> Iterator[bytes]:
        """All arrivals of this worker's share as rows of the stream, lap after lap, until the laps or the duration are
        over."""
        lap, offset, numbered = 0, 0, self._order.first
        per_connection, per_session = self._exchanges_per()
        while self._settings.loop == 0 or lap < self._settings.loop:
            before = self._index
            if self._laps.whole:
                last = yield from self._again(lap, offset)
            else:
                least = 1 if "login" in self._config.auth else 2
                ties = Ties(Counter(per_session), numbered, self._binder, least)
                last = yield from self._lap(lap, offset, Counter(per_connection), ties)
                numbered = ties.numbered
                if lap == 0:
                    self._laps.end(self._next_lane - self._order.first, numbered - self._order.first)
            if last is None or self._index == before:
                return
            # The next lap begins one mean gap after the last exchange of this one.
            offset = last + max(1, (last - offset) // max(1, self._index - before - 1))
            lap += 1

    def _lap(
        self, lap: int, offset: int, left: Counter[str], ties: Ties
    ) -> Generator[bytes, None, int | None]:
        """One pass over the capture; returns the recorded offset of its last arrival, `None` when over."""
        lanes, limit = Lanes(), self._limit
        first: int | None = None
        recorded = offset
        for started_at, reason, row, (answer, text) in self._rows():
            if reason is not None:
                self.counts[reason] += lap == 0
                if self._binder is not None and row is not None:
                    ties.leave_out(_seen(row, answer), text)
                continue
            if first is None:
                first = started_at
                # Dates are as far from the run as they were from the recording, lap by lap.
                self._shift = ((self._times and self._times.to) or time.time_ns()) - first
            recorded = offset + started_at - first
            due = self._pace(self._index, recorded)
            if limit is not None and due >= limit:
                if lap == 0:
                    self.counts["after the duration"] = (
                        self._dataset.count - self._index - self.counts.total()
                    )
                return None
            index = self._index
            self._index += 1
            if row is None:
                if lap == 0:
                    self._laps.pass_by(recorded)
                continue
            session_id, _, endpoint, method, target, exchange_id, connection_id, duration_ns = row[:8]
            host, version, headers, body, size = row[8:]
            left[connection_id] -= 1
            request = Request(method, target, host, version, headers, body, size)
            wire, request = self._written(exchange_id, session_id, endpoint, started_at, request)
            causal, script, takes = FREE
            if session_id in ties.several:
                causal, script, takes = ties.tie(_seen(row, answer), wire, request.body or b"", text)
            lane = lanes.assign(connection_id, started_at, duration_ns)
            share = share_of(session_id, self._order.shares)
            wanted = (index if self._by_place else due) >= self._mine[share]
            if script is not None and self._dropped is not None:
                if wanted:
                    script = self._dropped.bring(f"{lap} {session_id}", script)
                else:
                    self._dropped.drop(f"{lap} {session_id}", script)
            # In the order of the fields: by name it would take several times as long, and this is done for every row.
            arrival = Planned(
                due,
                index,
                self._lane_number(connection_id, lane),
                self._end(connection_id, lanes) if not left[connection_id] else (),
                pack_identity(exchange_id, lap, session_id, connection_id, endpoint),
                causal,
                share,
                endpoint,
                method,
                wire.exact,
                b"" if script is not None else wire.head + wire.body,
                None if script is not None else _changed(wire),
                wire.skipped,
                script,
                takes,
            )
            packed = pack_arrival(arrival) if lap else self._laps.keep(recorded, exchange_id, arrival)
            if wanted:
                yield packed
        return recorded if first is not None else None

    def _again(self, lap: int, offset: int) -> Generator[bytes, None, int | None]:
        """Another pass, from memory; returns what `_lap` does."""
        recorded = offset
        for at, kept in self._laps:
            recorded = offset + at
            due = self._pace(self._index, recorded)
            if self._limit is not None and due >= self._limit:
                return None
            index = self._index
            self._index += 1
            if kept is not None and (index if self._by_place else due) >= self._mine[kept.share]:
                yield self._laps.pack(lap, due, index, kept)
        return recorded

    def _tagged(self, exchange_id: str) -> Changes:
        assert self._settings.tag is not None
        return replace(self._changes, set=(*self._changes.set, (self._settings.tag, exchange_id)))

    def _written(
        self, exchange_id: str, session_id: str, endpoint: str, started_at: int, request: Request
    ) -> tuple[Wire, Request]:
        """The request as it is to be sent, and what the user's rules have made of it."""
        changed = self._rewritten(session_id, endpoint, started_at, request)
        tagged = self._settings.tag is not None
        wire = serialise(changed, self._tagged(exchange_id)) if tagged else self._serialise(changed)
        return (wire if changed is request else wire._replace(exact=False)), changed

    def _rewritten(self, session_id: str, endpoint: str, started_at: int, request: Request) -> Request:
        """The request as the user's rules want it; one that was not captured whole is not sent anyway."""
        if not (self._rewriter or self._times) or len(request.body or b"") != request.size:
            return request
        new = parts = Parts(request.target, request.headers, request.body)
        if self._times is not None:
            new = self._times.apply(new, started_at, self._shift)
        if self._rewriter is not None:
            new = self._rewriter.apply(session_id, share_of, endpoint, new)
        if new == parts:
            return request
        return request._replace(
            target=new.target, headers=tuple(new.headers), body=new.body, size=len(new.body or b"")
        )

    def _rows(self) -> Iterator[tuple[int, str | None, tuple[Any, ...] | None, answering.Read]]:
        """Of every exchange when it began and why it is left out, if it is; of my sessions' exchanges all the columns
        and what is read of their answers."""
        columns = _COLUMNS if self._binder is None else _COLUMNS + answering.COLUMNS
        if self._order.shares == 1:
            for batch in self._dataset.batches(columns):
                for row, answer in self._read(batch):
                    yield row[1], self._left_out(*row[2:5]), row, answer
            return
        for some in self._dataset.shared(columns, _TOLD, self._is_mine):
            own = self._read(some.mine)
            starts = some.told.column("started_at").cast(pa.int64()).to_pylist()
            for is_mine, started_at, reason in zip(
                some.mask.to_pylist(), starts, self._reasons(some.told), strict=False
            ):
                yield started_at, reason, *(next(own) if is_mine else _ANOTHERS)

    def _read(self, batch: pa.RecordBatch) -> Iterator[tuple[tuple[Any, ...], answering.Read]]:
        if self._binder is None:
            return zip(to_rows(batch), repeat(_NO_ANSWER), strict=False)
        answers = answering.answers(batch, self._binder.makers)
        return zip(to_rows(batch.select(_COLUMNS)), answers, strict=True)

    def _reasons(self, told: pa.RecordBatch) -> Iterable[str | None]:
        """Why each exchange is left out, asked once for each endpoint and method."""
        if self._settings.deny:
            return [self._left_out(*row) for row in to_rows(told.select(_TOLD[2:]))]
        endpoint, method = (told.column(name).dictionary_encode() for name in ("endpoint", "method"))
        methods = method.dictionary.to_pylist()
        reasons = [
            self._left_out(each, other, "") for each in endpoint.dictionary.to_pylist() for other in methods
        ]
        if not any(reasons):
            return repeat(None)
        place = pc.add(pc.multiply(endpoint.indices, pa.scalar(len(methods), pa.int32())), method.indices)
        return list(pa.array(reasons, pa.string()).take(place).to_pylist())

    def _is_mine(self, session_id: str) -> bool:
        return share_of(session_id, self._order.shares) in self._mine

    def _exchanges_per(self) -> tuple[Counter[str], Counter[str]]:
        """How many arrivals of this share each connection and each session has, so that the last one can be told when
        it comes."""
        connections: Counter[str] = Counter()
        sessions: Counter[str] = Counter()
        columns = ("connection_id", "session_id", "endpoint", "method", "target")
        for some in self._dataset.shared(columns, ("session_id",), self._is_mine):
            for connection_id, session_id, endpoint, method, target in to_rows(some.mine):
                if not self._left_out(endpoint, method, target):
                    connections[connection_id] += 1
                    sessions[session_id] += 1
        return connections, sessions if self._settings.sessions != "off" else Counter()

    def _left_out(self, endpoint: str, method: str, target: str) -> str | None:
        """Why an exchange is not sent. What is denied is denied by its real path too, however it is templated."""
        reason = self._selection.left_out(endpoint, method)
        if reason is None and self._settings.deny:
            path = target.partition("?")[0]
            reason = DENIED if self._selection.denies(f"{method} {path}") else None
        return reason

    def _lane_number(self, connection_id: str, lane: int) -> int:
        key = (connection_id, lane)
        if key not in self._lane_numbers:
            self._lane_numbers[key] = self._next_lane
            self._next_lane += 1
        return self._lane_numbers[key]

    def _end(self, connection_id: str, lanes: Lanes) -> tuple[int, ...]:
        lanes.close(connection_id)
        numbers: list[int] = []
        while (number := self._lane_numbers.pop((connection_id, len(numbers)), None)) is not None:
            numbers.append(number)
        return tuple(numbers)


def make_pace(settings: RunSettings) -> pacing.Pace:
    """The pace that the settings ask for. In the closed loop arrivals are due at once, in order."""
    if settings.concurrency is not None:
        return lambda index, offset: 0
    if settings.ramp is not None:
        return pacing.ramp(pacing.parse_ramp(settings.ramp))
    if settings.rate is not None:
        steady = (
            pacing.poisson(settings.rate, settings.seed)
            if settings.poisson
            else pacing.constant(settings.rate)
        )
        # Recorded times are the truth and stay as they are; a rate made up here may begin gently.
        return pacing.warmed_up(steady, settings.ramp_up) if settings.rate > RAMPED else steady
    return pacing.recorded(settings.speed)


def stream(order: Order, out: BinaryIO) -> None:
    """Write the whole stream to `out`."""
    gathered: list[bytes] = []
    size = 0
    planned = 0
    try:
        planner = Planner(order)
        for row in planner.arrivals():
            gathered.append(row)
            size += len(row)
            planned += 1
            if size >= BLOCK_BYTES:
                _write(out, gathered)
                gathered, size = [], 0
        if not planned and order.shares == 1:
            raise InputError(_nothing_planned(order, planner.counts))
        last = pack_last(
            END, {"planned": planned, "planned_by_all": planner.planned_by_all, **planner.counts}
        )
    except ReplayError as error:
        last = pack_last(ERROR, str(error))
    _write(out, [*gathered, last])


def main() -> None:
    """Entry point of the process."""
    order = Order.from_json(sys.stdin.read())
    try:
        stream(order, sys.stdout.buffer)
        sys.stdout.flush()
    except BrokenPipeError:
        # The sender is gone; there is nobody to tell.
        sys.stderr.close()


def _write(out: BinaryIO, rows: list[bytes]) -> None:
    payload = b"".join(rows)
    out.write(LENGTH.pack(len(payload)) + payload)
    out.flush()


def _nothing_planned(order: Order, counts: Counter[str]) -> str:
    if counts[WRITE]:
        return (
            f"nothing to send: {counts[WRITE]} of the capture's {counts.total()} exchanges are writes, which are"
            " only sent where --writes allows them: --writes 'POST /search', or --writes all"
        )
    if counts[EXCLUDED] or counts[DENIED]:
        return (
            "nothing to send: --include, --exclude and --deny leave none of the capture's"
            f" {counts.total()} exchanges"
        )
    return f"nothing to send: {order.capture} holds no exchanges"


def _seen(row: tuple[Any, ...], answer: tuple[Any, ...]) -> Seen:
    """What correlation reads of a row of `_COLUMNS`, as it was recorded."""
    session_id, started_at, endpoint, _, target, exchange_id, _, duration_ns, _, _, headers, body, _ = row
    known = (exchange_id, session_id, started_at, duration_ns, endpoint, target, headers, body)
    # Not by its own constructor, which takes several times as long: this is done for every row.
    return tuple.__new__(Seen, known + answer)


def _changed(wire: Wire) -> tuple[bytes, bytes] | None:
    return None if wire.exact or wire.skipped else (wire.head, wire.body)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


if __name__ == "__main__":
    main()
