"""Files appear whole or not at all: write beside, flush to disk, rename."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from replay.errors import InputError


def atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary path beside `path`, then make the result appear as `path`.

    The file and its directory entry are on disk when this returns; on any error nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def appear(path: Path, data: bytes) -> None:
    """Write a file of its owner's alone that appears whole; for copies, which need not be on disk for good."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    temporary.replace(path)


def make_directory(path: Path) -> None:
    """Make a dataset directory that only its owner may enter; `InputError` where that cannot be."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"{path} is a file: name a directory for --out") from None
    except OSError as error:
        raise InputError(f"cannot make {path}: {error.strerror}; choose another --out") from None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
