"""The recorder: the process behind the proxy that samples, redacts and writes. Nothing else touches a disk.

It reads frames (`replay.capture.frames`) from its standard input until the end of it, and keeps the books:
seen = written + sampled out + filtered + dropped + failed. Rows go to a journal first and on to Parquet, in a
thread, when a segment is full; a crash loses at most the last second.

Run by the addon as `python -m replay.capture.recorder SETTINGS`, where SETTINGS is JSON for `Settings`. It
says `{"ready": true}`, or `{"error": ...}`, on a line of its standard output, and at the end its books.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from replay import config
from replay.capture import books, frames
from replay.capture.endpoints import Templater
from replay.capture.filters import Filters, Seen
from replay.capture.options import parse_session_key
from replay.capture.redact import Policy, Redactor
from replay.capture.sampling import Floor, included, keep, session_id, session_key, weight
from replay.errors import InputError, ReplayError
from replay.keys import load_key
from replay.model import Header, exchange_id
from replay.store import metadata
from replay.store.compact import compact
from replay.store.journal import SEGMENT_BYTES, Journal
from replay.store.uploader import FULL_FILE

_FLUSH_EVERY = 0.5
_BOOKS_EVERY = 5.0
_READ_BYTES = 1 << 20
# After a signal the proxy may still be closing: its last frames are waited for, within reason.
_IDLE_AFTER_SIGNAL = 2.0
_LONGEST_AFTER_SIGNAL = 15.0
_RESERVE = 256 << 10
_MOST_PLACES = 2000
_SHARED = ("sample", "sample_by", "session_key", "floor", "max_body")
"""Settings that all writers of one capture must have in common."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the addon hands over."""

    out: str
    sample: float = 1.0
    key_file: str | None = None
    config: str | None = None
    max_body: int = 1 << 20
    rotate_bytes: int = SEGMENT_BYTES
    rotate_seconds: float = 300.0
    sample_by: str = "session"
    session_key: str = ""
    floor: float = 0.0
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    sync: str = "segment"
    metrics: str = ""
    sink: bool = False
    source: dict[str, Any] = field(default_factory=dict)


class Naming:
    """Endpoint names, learnt from all rows, given when written and once more when compacted."""

    def __init__(self, routes: tuple[tuple[str, str], ...]) -> None:
        self._templater = Templater(routes)
        self._lock = threading.Lock()  # compaction runs in a thread of its own

    def learn(self, method: str, target: str, *, known: bool = False) -> str:
        """The endpoint's name; `known` tells that this very request was learnt from before."""
        with self._lock:
            if not known:
                self._templater.observe(method, target)
            return self._templater.endpoint(method, target)

    def refine(self, rows: list[list[Any]]) -> list[list[Any]]:
        """Name the rows anew, now that more was seen than when each was written."""
        for row in rows:
            with self._lock:
                row[frames.ENDPOINT] = self._templater.endpoint(row[frames.METHOD], row[frames.TARGET])
        return rows

    def rename(self, places: Mapping[str, int]) -> dict[str, int]:
        """Counts by `endpoint · place · detector`, under the names that endpoints have by now."""
        renamed: Counter[str] = Counter()
        for name, count in places.items():
            endpoint, _, rest = name.partition(" · ")
            method, space, path = endpoint.partition(" ")
            with self._lock:
                known = self._templater.endpoint(method, path) if space and path.startswith("/") else endpoint
            renamed[f"{known} · {rest}"] += count
        return dict(renamed)


class Recorder:
    """Turns frames into rows of a dataset."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._directory = Path(settings.out)
        self._key = load_key(Path(settings.key_file) if settings.key_file else None)
        configured = config.load(Path(settings.config) if settings.config else None)
        self._rules = list(configured.redact)
        self._redactor = Redactor(Policy.of(configured.redact), self._key)
        self._naming = Naming(configured.routes)
        self._books = books.Books()
        self._writer = f"{time.time_ns():x}-{os.getpid():x}"
        self._pack = msgpack.Packer().pack
        self._count = int.from_bytes(os.urandom(6))
        self._filters = Filters(settings.only, settings.skip)
        self._session_by = parse_session_key(settings.session_key)
        self._floor = Floor(settings.floor) if settings.floor else None
        self._places: Counter[str] = Counter()
        self._unwritten = 0
        self.problem = ""
        self._full = False
        self._compaction: threading.Thread | None = None
        self._segment_since = time.monotonic()
        self._account = books.new_account(settings.source)
        self._next_flush = self._next_books = time.monotonic()
        self._open_dataset()
        self._journal = Journal(
            self._directory, self._writer, segment_bytes=settings.rotate_bytes, sync=settings.sync == "always"
        )
        if settings.metrics:
            from replay.capture.metrics import BooksCollector, serve

            serve(settings.metrics, BooksCollector(self._books.totals, lambda: dict(self._redactor.counts)))

    # --- frames

    def take(self, frame: Any) -> None:
        """One object from the pipe: an exchange, or totals for the books."""
        if isinstance(frame, dict):
            self._books.hear(frame)
            return
        if self.problem:
            self._books.failed[self.problem] += 1
            return
        if self._full:
            self._books.failed["the store is away, and what waits for it has reached its bound"] += 1
            return
        try:
            row = self._row(frame)
        except Exception as error:
            # One exchange that breaks us is a bug, and no reason to lose the rest. Its content is not shown.
            if not self._books.failed:
                _complain(f"an exchange could not be recorded ({type(error).__name__}); such are counted")
            self._books.failed[f"cannot be recorded: {type(error).__name__}"] += 1
            return
        if row is not None:
            self._unwritten += 1
            self._guarded(lambda: self._journal.append(row))

    def _guarded(self, write: Callable[[], None]) -> None:
        """Do what may meet a full or broken disk. After one failure nothing more is recorded, only counted."""
        if self.problem:
            return
        try:
            write()
        except OSError as error:
            self._give_up(error.strerror or str(error))
            return
        # A row counts as written when it has left for the disk.
        self._books.written += self._unwritten - self._journal.waiting
        self._unwritten = self._journal.waiting

    def _give_up(self, why: str) -> None:
        self.problem = why
        self._books.failed[why] += self._unwritten
        self._unwritten = 0
        self._reserve.unlink(missing_ok=True)
        _complain(f"recording stopped: {why}; traffic goes on and is counted as failed")
        _say({"failed": why})

    def _row(self, frame: list[Any]) -> bytes | None:
        """The packed row, or `None` where the exchange is filtered or not in the sample."""
        request_headers = _texts(frame[frames.REQUEST_HEADERS])
        for place in frames.TEXTS:
            value = frame[place]
            if isinstance(value, bytes):
                frame[place] = value.decode("latin-1")
        reason = self._filtered(frame, request_headers)
        if reason is not None:
            self._books.filtered[reason] += 1
            return None
        session = session_key(
            frame[frames.SESSION_ID],
            request_headers,
            target=frame[frames.TARGET],
            connection=frame[frames.CONNECTION_ID],
            by=self._session_by,
        )
        probability = self._probability(frame, session)
        if probability is None:
            self._books.sampled_out += 1
            return None
        self._books.truncated += frame[frames.TRUNCATED]
        self._count += 1
        places = self._redact(frame, request_headers)
        frame[frames.EXCHANGE_ID] = exchange_id(frame[frames.STARTED_AT], self._count)
        frame[frames.SESSION_ID] = session_id(session, self._key)
        frame[frames.ENDPOINT] = self._naming.learn(
            frame[frames.METHOD], frame[frames.TARGET], known=self._floor is not None
        )
        frame[frames.SAMPLE_WEIGHT] = weight(probability)
        self._count_places(frame[frames.ENDPOINT], places)
        return bytes(self._pack(frame))

    def _filtered(self, frame: list[Any], headers: list[Header]) -> str | None:
        if not self._filters:
            return None
        method, host, target = frame[frames.METHOD], frame[frames.HOST], frame[frames.TARGET]
        return self._filters.reason(Seen(method, host, target, frame[frames.STATUS], headers))

    def _probability(self, frame: list[Any], session: bytes) -> float | None:
        """With what probability the exchange came into the sample, or `None` where it did not."""
        share = self._settings.sample
        itself = f"{frame[frames.CONNECTION_ID]}\0{frame[frames.STARTED_AT]}".encode()
        kept = keep(itself if self._settings.sample_by == "request" else session, share, self._key)
        if self._floor is None or share == 1:
            return share if kept else None
        # Named without its secrets, like what is written.
        self._redactor.begin()
        target = self._redactor.target(frame[frames.TARGET])
        endpoint = self._naming.learn(frame[frames.METHOD], target)
        chance = self._floor.chance(endpoint, frame[frames.STARTED_AT])
        if kept or keep(b"floor\0" + itself, chance, self._key):
            return included(share, chance)
        return None

    def _redact(self, frame: list[Any], request_headers: list[Header]) -> list[str]:
        """Replace the secrets in the frame; returns where they stood."""
        redactor = self._redactor
        redactor.begin()
        frame[frames.TARGET], frame[frames.REQUEST_HEADERS], frame[frames.REQUEST_BODY] = redactor.message(
            frame[frames.TARGET],
            request_headers,
            frame[frames.REQUEST_BODY],
            whole=_is_whole(frame[frames.REQUEST_BODY], frame[frames.REQUEST_SIZE]),
        )
        places = [f"request {place} · {detector}" for detector, place in redactor.take_found()]
        response_headers = _texts(frame[frames.RESPONSE_HEADERS])
        self._count_stream(frame[frames.STATUS], response_headers)
        _, frame[frames.RESPONSE_HEADERS], frame[frames.RESPONSE_BODY] = redactor.message(
            "",
            response_headers,
            frame[frames.RESPONSE_BODY],
            whole=_is_whole(frame[frames.RESPONSE_BODY], frame[frames.RESPONSE_SIZE]),
        )
        return places + [f"response {place} · {detector}" for detector, place in redactor.take_found()]

    def _count_places(self, endpoint: str, places: list[str]) -> None:
        for place in places:
            name = f"{endpoint} · {place}"
            if name not in self._places and len(self._places) >= _MOST_PLACES:
                name = f"other endpoints · {place.split(' ')[0]} · {place.rpartition(' · ')[2]}"
            self._places[name] += 1

    def _count_stream(self, status: int | None, headers: list[Header]) -> None:
        kind = next((value for name, value in headers if name.lower() == "content-type"), "").lower()
        if status == 101:
            self._books.kinds["upgrade"] += 1
        elif kind.startswith("text/event-stream"):
            self._books.kinds["server-sent events"] += 1
        elif kind.startswith("application/grpc"):
            self._books.kinds["grpc"] += 1

    # --- time

    def tend(self) -> None:
        """What is due now and then: flush, rotate, compact, keep the books on disk."""
        now = time.monotonic()
        if now >= self._next_flush:
            self._guarded(self._flush)
            self._next_flush = now + _FLUSH_EVERY
        if self._journal.size == 0:
            self._segment_since = now
        elif now - self._segment_since >= self._settings.rotate_seconds:
            self._guarded(self._journal.rotate)
        self._compact_behind()
        self._full = (self._directory / FULL_FILE).exists()
        if now >= self._next_books:
            self._keep_books("open", self._books.totals())
            self._next_books = now + _BOOKS_EVERY

    def tell(self) -> None:
        """Say the books as they are, on request."""
        totals = self._books.totals()
        _complain(f"books so far: {json.dumps(totals)}")
        self._keep_books("open", totals)

    def close(self) -> dict[str, Any]:
        """Write what is left, make it Parquet, close the books; returns them."""
        self._guarded(self._journal.close)
        if self._compaction is not None:
            self._compaction.join()
        self._compact()
        totals = self._books.close()
        self._reserve.unlink(missing_ok=True)
        self._keep_books("closed", totals)
        return totals

    def _flush(self) -> None:
        self._journal.flush()
        if self._settings.sync == "second":
            self._journal.force()

    def _compact_behind(self) -> None:
        running = self._compaction is not None and self._compaction.is_alive()
        if running or self.problem or not any(self._directory.glob(f"journal-{self._writer}-*.done")):
            return
        self._compaction = threading.Thread(target=self._compact, name="replay-compact", daemon=True)
        self._compaction.start()

    def _compact(self) -> None:
        try:
            compact(self._directory, books.KIND, refine=self._naming.refine)
        except OSError as error:
            # The journal keeps the rows; they are compacted when there is room, or by whoever reads them.
            _complain(f"cannot write Parquet yet: {error.strerror}")

    # --- the dataset

    def _open_dataset(self) -> None:
        """Begin the dataset, or join the one that others write with the same settings."""
        shared = {name: getattr(self._settings, name) for name in _SHARED}
        shared["redaction"] = {
            "policy": self._redactor.policy.fingerprint,
            "key": self._redactor.key_id,
            "rules": self._rules,
        }
        with _alone(self._directory):
            if (self._directory / f"{books.KIND}.json").exists():
                _check_joining(self._directory, shared)
            else:
                _check_empty(self._directory)
                metadata.create(self._directory, books.KIND, source=self._settings.source, settings=shared)
        books.settle(self._directory)
        books.keep(self._directory, self._writer, self._account)
        # Room for the last books, given free when the disk is full.
        self._reserve = self._directory / f".reserve-{self._writer}"
        with self._reserve.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, _RESERVE)

    def _keep_books(self, state: str, totals: dict[str, Any]) -> None:
        redacted = {"redacted": dict(self._redactor.counts), "places": self._naming.rename(self._places)}
        account = {**self._account, "state": state, "books": totals, **redacted}
        if account == self._account:
            return
        try:
            books.keep(self._directory, self._writer, account)
            self._account = account
        except OSError as error:
            _complain(f"cannot write the books: {error.strerror}")


def _is_whole(body: bytes | None, size: int) -> bool:
    return body is not None and len(body) == size


def _texts(fields: list[list[bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One process at a time decides whether a dataset begins here."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _check_joining(directory: Path, shared: dict[str, Any]) -> None:
    meta = metadata.load(directory, books.KIND)
    for name, value in shared.items():
        if meta["settings"].get(name) != value:
            raise InputError(
                f"{directory} holds a capture made with another {name} ({meta['settings'].get(name)},"
                f" here {value}): choose another --out"
            )


def _check_empty(directory: Path) -> None:
    if directory.is_dir() and any(directory.iterdir()):
        raise InputError(f"{directory} is not empty and holds no capture: choose another --out")


# --- the process


class Stop:
    """Signals only ask: what is on the way is still taken."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.told = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)
        signal.signal(signal.SIGUSR1, self._ask_books)

    def _ask_books(self, *_: object) -> None:
        self.told = False

    def _ask(self, *_: object) -> None:
        self.since = self.since or time.monotonic()

    def due(self, last_data: float) -> bool:
        if self.since is None:
            return False
        now = time.monotonic()
        idle = now - max(last_data, self.since) >= _IDLE_AFTER_SIGNAL
        return idle or now - self.since >= _LONGEST_AFTER_SIGNAL


def record(recorder: Recorder, descriptor: int, stop: Stop) -> None:
    """Feed the recorder until the pipe's end."""
    unpacker = msgpack.Unpacker(max_buffer_size=1 << 31, strict_map_key=False)
    last_data = time.monotonic()
    while not stop.due(last_data):
        if select.select([descriptor], [], [], _FLUSH_EVERY)[0]:
            data = os.read(descriptor, _READ_BYTES)
            if not data:
                return
            last_data = time.monotonic()
            unpacker.feed(data)
            for frame in unpacker:
                recorder.take(frame)
        recorder.tend()
        if not stop.told:
            stop.told = True
            recorder.tell()


def main(arguments: list[str]) -> int:
    """The process: settings in, dataset out. Exit status 0, or 2 where it could not record."""
    stop = Stop()
    try:
        settings = Settings(**json.loads(arguments[0]))
        recorder = Recorder(settings)
    except ReplayError as error:
        _say({"error": str(error)})
        return error.exit_code
    except OSError as error:
        _say({"error": f"cannot record to {settings.out}: {error.strerror}; choose another --out"})
        return 2
    _say({"ready": True})
    try:
        record(recorder, sys.stdin.fileno(), stop)
        totals = recorder.close()
        _say({**totals, "problem": recorder.problem} if recorder.problem else totals)
    except OSError as error:
        _complain(f"recording stopped: {error.strerror}; what was written so far is in {settings.out}")
        return 2
    return 0


def as_json(settings: Settings) -> str:
    """`Settings` as the process takes it."""
    return json.dumps(asdict(settings))


def _say(status: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(status), flush=True)


def _complain(what: str) -> None:
    print(f"replay: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
