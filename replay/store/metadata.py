"""`capture.json` and `run.json`: what a dataset is, where it came from, and its books.

Changes are read-modify-write under a lock and appear by rename, so that several processes may keep their
accounts in one dataset and a reader never sees half a file.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from replay import __version__
from replay.errors import InputError
from replay.store import sealing
from replay.store.files import atomically, make_directory
from replay.store.schema import KINDS, SCHEMA_VERSION

Metadata = dict[str, Any]


def create(directory: Path, kind: str, *, source: Mapping[str, Any], settings: Mapping[str, Any]) -> Metadata:
    """Begin a dataset: make its directory and its metadata, state `open`."""
    make_directory(directory)
    meta: Metadata = {
        "format": f"staging-replay/{kind}",
        "schema_version": SCHEMA_VERSION,
        "tool_version": __version__,
        "state": "open",
        "started_at": now(),
        "ended_at": None,
        "source": dict(source),
        "settings": dict(settings),
        "books": {},
    }
    if encryption := sealing.begin():
        meta["encryption"] = encryption
    _write(directory / f"{kind}.json", meta)
    return meta


def close(directory: Path, kind: str, books: Mapping[str, Any], **more: Any) -> Metadata:
    """End a dataset: state `closed`, with its books and whatever else there is to tell."""

    def change(meta: Metadata) -> None:
        meta.update(state="closed", ended_at=now(), books=dict(books), **more)

    return update(directory, kind, change)


def update(directory: Path, kind: str, change: Callable[[Metadata], None]) -> Metadata:
    """Read the metadata, let `change` alter it, write it back; one process at a time. Returns the new one."""
    with _locked(directory):
        meta = load(directory, kind)
        change(meta)
        _write(directory / f"{kind}.json", meta)
    return meta


def load(directory: Path, kind: str) -> Metadata:
    """The metadata of a dataset; `InputError` when it is not one, is damaged, or is from a newer version."""
    path = directory / f"{kind}.json"
    try:
        meta = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{directory} is not a {kind}: there is no {path.name} in it") from None
    except NotADirectoryError:
        raise InputError(f"{directory} is a file, not a {kind}: name the directory") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except orjson.JSONDecodeError:
        raise InputError(f"{path} is damaged: it is not JSON; restore it or record again") from None
    return _checked(meta, path)


def kind_of(directory: Path) -> str:
    """`capture` or `run`; `InputError` when the directory is neither."""
    if not directory.exists():
        raise InputError(f"{directory} does not exist: name a capture or run directory")
    if not directory.is_dir():
        raise InputError(
            f"{directory} is a file: name a capture or run directory (to read HAR, use `replay import`)"
        )
    for kind in KINDS:
        if (directory / f"{kind}.json").exists():
            return kind
    raise InputError(f"{directory} is neither a capture nor a run: no capture.json or run.json in it")


def now() -> str:
    """The wall clock in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _checked(meta: Any, path: Path) -> Metadata:
    version = meta.get("schema_version") if isinstance(meta, dict) else None
    if not isinstance(version, int):
        raise InputError(f"{path} is damaged: it names no schema_version; restore it or record again")
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path} was written by a newer version (schema {version}, this one reads {SCHEMA_VERSION}):"
            " upgrade staging-replay"
        )
    for name in ("source", "settings", "books"):
        if not isinstance(meta.get(name), dict):
            raise InputError(f"{path} is damaged: its {name} are not there; restore it or record again")
    return dict(meta)


def _write(path: Path, meta: Metadata) -> None:
    data = orjson.dumps(meta, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def write(temporary: Path) -> None:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)

    atomically(path, write)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"cannot open {directory}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        # Not left to the closing: in a process that gevent has patched, that comes some time later.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
