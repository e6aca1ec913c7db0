"""A dataset that is written here and belongs elsewhere: the uploader beside it, and the end of it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from replay.errors import InputError
from replay.store.files import make_directory
from replay.store.remote import METADATA, Store, shown, whole_address_of


@contextmanager
def delivered(directory: Path, keep: bool = True) -> Iterator[None]:
    """While a dataset is written to `directory`, upload it, where it stands for an address; nothing where it does not.

    `keep`: finished parts stay until the end, because they are read again. `InputError` where the address has a
    dataset already, something is left here of an earlier one, or the end could not be uploaded: it stays here then.
    """
    address = whole_address_of(directory)
    if address is None:
        yield
        return
    with _alone(directory, address):
        if any(name in METADATA for name in Store(address).names()):
            raise InputError(f"{shown(address)} holds a dataset already: choose another address")
        uploader = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "replay.store.uploader",
                str(directory),
                address,
                *(["--keep"] if keep else []),
            ],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            yield
        finally:
            assert uploader.stdin is not None
            uploader.stdin.close()
            code = uploader.wait()
            if not directory.exists() or not any((directory / name).exists() for name in METADATA):
                shutil.rmtree(directory.parent, ignore_errors=True)  # nothing was written at all
                _take_back(address)
        if code:
            raise InputError(f"{shown(address)} is not complete: see above")
        shutil.rmtree(directory.parent, ignore_errors=True)


def _take_back(address: str) -> None:
    """The metadata of what never began may have been sent already."""
    store = Store(address, patience=5)
    with suppress(InputError):
        for name in METADATA:
            if name in store.names():
                store.delete(name)


@contextmanager
def _alone(directory: Path, address: str) -> Iterator[None]:
    """One writer for an address at a time; none where something was left unsent."""
    make_directory(directory)
    lock = os.open(directory.parent / ".lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is writing to {shown(address)}") from None
        if any(directory.glob("part-*")) or any(directory.glob("journal-*")):
            raise InputError(
                f"{directory} holds what an earlier run or capture could not send to {shown(address)}: send it with"
                f" `python -m replay.store.uploader {directory} {shown(address)} < /dev/null`, or remove it"
            )
        for name in METADATA:
            (directory / name).unlink(missing_ok=True)
        yield
    finally:
        os.close(lock)
