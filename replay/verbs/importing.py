"""`replay import`: files recorded elsewhere become a capture, redacted and named like one recorded here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from replay import config as configuration
from replay.capture.endpoints import Templater
from replay.capture.importers import Item, Note, NotTaken, digest_of, reader_for
from replay.capture.redact import Policy, Redactor
from replay.capture.sampling import session_id
from replay.errors import InputError, UsageError
from replay.keys import load_key
from replay.model import Exchange
from replay.store.writer import DatasetWriter


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What became of one file's records."""

    path: Path
    taken: int
    not_taken: dict[str, int]
    notes: dict[str, int]


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What became of all files' records. `not_taken` and `notes` count by reason."""

    out: Path
    taken: int
    not_taken: dict[str, int]
    notes: dict[str, int]
    redacted: dict[str, int]
    files: tuple[FileSummary, ...]

    @property
    def books(self) -> dict[str, Any]:
        """Closed accounts, as they stand in capture.json."""
        left = sum(self.not_taken.values())
        return {
            "seen": self.taken + left,
            "written": self.taken,
            "sampled_out": 0,
            "filtered": left,
            "dropped": 0,
            "failed": 0,
            "not_taken": self.not_taken,
            "notes": self.notes,
        }


def import_files(
    files: Sequence[Path],
    out: Path,
    *,
    config: Path | None = None,
    key_file: Path | None = None,
    host: str | None = None,
) -> ImportSummary:
    """Import HAR files, mitmproxy flow dumps, GoReplay files and access logs into a new capture at `out`.

    `host` is who was asked, for access logs that do not say it.

    Every file is read through before anything is written: with one bad file there is an `InputError` that
    names it, and no capture.
    """
    if not files:
        raise UsageError("name at least one file to import")
    configured = configuration.load(config)
    templater = Templater(configured.routes)
    redactor = Redactor(Policy.of(configured.redact), load_key(key_file))
    key = load_key(key_file)
    unique = _without_repeats(files)
    for path in unique:
        for item in _items(path, host):
            if isinstance(item, Exchange):
                redactor.begin()
                templater.observe(item.method, redactor.target(item.target))
    writer = DatasetWriter(
        out,
        "capture",
        source={"tool": "import", "files": [path.name for path in files]},
        settings={
            "redaction": {
                "policy": redactor.policy.fingerprint,
                "key": redactor.key_id,
                "rules": list(configured.redact),
            },
            "sample": 1.0,
        },
    )
    try:
        summaries = tuple(
            _write(_items(path, host), path, writer, templater, redactor, key) for path in unique
        )
        summary = _sum(out, summaries, redactor)
        writer.close(summary.books, redacted=summary.redacted)
    except BaseException:
        writer.abort()
        raise
    return summary


def _without_repeats(files: Sequence[Path]) -> list[Path]:
    """The files in order; one given twice, under whatever name, would give every exchange twice."""
    by_digest: dict[bytes, Path] = {}
    for path in files:
        reader_for(path)
        digest = digest_of(path)
        if digest in by_digest:
            raise UsageError(f"{path} is the same file as {by_digest[digest]}: name it once")
        by_digest[digest] = path
    return list(by_digest.values())


def _items(path: Path, host: str | None) -> Iterator[Item]:
    try:
        yield from reader_for(path, host)(path)
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def _write(
    items: Iterator[Item],
    path: Path,
    writer: DatasetWriter,
    templater: Templater,
    redactor: Redactor,
    key: bytes,
) -> FileSummary:
    taken = 0
    not_taken: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    for item in items:
        if isinstance(item, Exchange):
            taken += 1
            writer.add(_finished(item, templater, redactor, key))
        elif isinstance(item, NotTaken):
            not_taken[item.reason] += 1
        elif isinstance(item, Note):
            notes[item.what] += 1
    return FileSummary(path, taken, dict(not_taken), dict(notes))


def _finished(exchange: Exchange, templater: Templater, redactor: Redactor, key: bytes) -> Exchange:
    exchange = redactor.exchange(exchange)
    return replace(
        exchange,
        endpoint=templater.endpoint(exchange.method, exchange.target),
        # An importer's name for the session is unkeyed: whoever has an address could find it again.
        session_id=session_id(exchange.session_id.encode(), key),
    )


def _sum(out: Path, files: tuple[FileSummary, ...], redactor: Redactor) -> ImportSummary:
    not_taken: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    for file in files:
        not_taken.update(file.not_taken)
        notes.update(file.notes)
    taken = sum(file.taken for file in files)
    return ImportSummary(out, taken, dict(not_taken), dict(notes), dict(redactor.counts), files)
