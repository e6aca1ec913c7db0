"""Datasets in object stores: `s3://bucket/name`, `gs://…`, whatever pyarrow has a file system for.

Nothing in the product works on a store directly. What is read is fetched first, whole objects, into a directory that
goes at the end; what is written is written to a directory, and an uploader beside it (`replay.store.uploader`) sends
finished files as whole objects. So a store that is slow or away holds up nobody, and a crash leaves in the store a
dataset that can be read, and on the disk what has not been sent.

Paths of such directories are remembered with their addresses (`address_of`), to be told instead of them.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from replay.errors import InputError
from replay.store.files import appear, make_directory
from replay.store.schema import KINDS

PATIENCE_S = float(os.environ.get("REPLAY_STORE_PATIENCE", "60"))
"""How long a store may be away before reading, or the end of writing, gives up."""

METADATA = tuple(f"{kind}.json" for kind in KINDS)
STOP_OBJECT = "stop"
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://")
_SECRETS = frozenset({"access_key", "secret_key", "session_token", "password"})
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_known: dict[Path, str] = {}

T = TypeVar("T")


def is_remote(text: str) -> bool:
    """Whether this is an address of a store, not a path."""
    return _SCHEME.match(text) is not None


def shown(address: str) -> str:
    """The address as it may be told: without what is secret in it."""
    parts = urlsplit(address)
    query = urlencode([(k, v) for k, v in parse_qsl(parts.query) if k not in _SECRETS], safe=":/")
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def address_of(path: Path) -> str:
    """The address that a local directory stands for; of others, their own path."""
    found = _known.get(path)
    return str(path) if found is None else shown(found)


def whole_address_of(path: Path) -> str | None:
    """The address with all that is needed to use it; `None` of an ordinary directory."""
    return _known.get(path)


class Store:
    """The objects under one address. Each call is tried again while the store fails, for `patience` seconds."""

    def __init__(self, address: str, patience: float = PATIENCE_S) -> None:
        self.address = address
        self._patience = patience
        self._system, self._base = _opened(address)

    def names(self) -> dict[str, int]:
        """The objects' names and sizes in bytes; empty where there are none."""
        from pyarrow.fs import FileSelector, FileType

        def ask() -> Any:
            return self._system.get_file_info(FileSelector(self._base, allow_not_found=True))

        found = self._retried("listed", ask)
        return {info.base_name: info.size for info in found if info.type == FileType.File}

    def get(self, name: str) -> bytes:
        """A whole object."""

        def ask() -> bytes:
            with self._system.open_input_file(f"{self._base}/{name}") as file:
                return bytes(file.readall())

        return self._retried("read", ask)

    def read(self, name: str, start: int, length: int) -> bytes:
        """Some bytes of an object."""

        def ask() -> bytes:
            with self._system.open_input_file(f"{self._base}/{name}") as file:
                return bytes(file.read_at(length, start))

        return self._retried("read", ask)

    def put(self, name: str, data: bytes) -> None:
        """Write an object: it is there whole, or not at all."""

        def send() -> None:
            # One write and one close: an upload of parts that fails in between is never completed.
            self._make_base()
            stream = self._system.open_output_stream(f"{self._base}/{name}")
            stream.write(data)
            stream.close()

        self._retried("written", send)

    def delete(self, name: str) -> None:
        """Remove an object."""
        self._retried("written", lambda: self._system.delete_file(f"{self._base}/{name}"))

    def _make_base(self) -> None:
        if self._system.type_name == "local":
            self._system.create_dir(self._base, recursive=True)

    def _retried(self, what: str, call: Callable[[], T]) -> T:
        """Exponential backoff with full jitter, so that many clients do not come back all at once."""
        until = time.monotonic() + self._patience
        pause, told = _FIRST_PAUSE_S, False
        while True:
            try:
                return call()
            except FileNotFoundError:
                raise
            except OSError as error:
                if time.monotonic() >= until or _is_final(error):
                    raise InputError(f"{shown(self.address)} cannot be {what}: {_line(error)}") from None
                if not told:
                    told = True
                    print(f"replay: {shown(self.address)}: {_line(error)}; trying again", file=sys.stderr)
                time.sleep(min(random.uniform(0, pause), max(0.0, until - time.monotonic())))
                pause = min(2 * pause, _LONGEST_PAUSE_S)


def readable(text: str) -> Path:
    """A dataset to be read: of an address a local copy, which goes when this process ends."""
    if not is_remote(text):
        return Path(text)
    for directory, address in _known.items():
        if shown(address) == text or address == text:
            return directory  # fetched already, or being written here
    directory = Path(tempfile.mkdtemp(prefix="replay-")) / (Path(urlsplit(text).path).name or "dataset")
    atexit.register(shutil.rmtree, directory.parent, ignore_errors=True)
    _known[directory] = text
    fetch(text, directory)
    return directory


def fetch(
    address: str, directory: Path, patience: float = PATIENCE_S, *, metadata: bool = True, parts: bool = True
) -> None:
    """Copy a dataset's objects that are not there yet. `InputError` where there is no dataset, or no store."""
    store = Store(address, patience)
    names = store.names()
    if not any(name in names for name in METADATA):
        raise InputError(f"{shown(address)} is neither a capture nor a run: no {' or '.join(METADATA)} there")
    make_directory(directory)
    # The metadata first: parts that come after it has been read are not told of in it.
    for name in sorted(names, key=lambda name: (name not in METADATA, name)):
        target = directory / name
        is_part = name.startswith("part-") and name.endswith(".parquet")
        wanted = metadata if name in METADATA else parts and is_part
        if not wanted or (name not in METADATA and target.exists() and target.stat().st_size == names[name]):
            continue
        appear(target, store.get(name))


def writable(text: str) -> Path:
    """Where a new dataset is to be written: of an address a directory of its own, from which it is uploaded."""
    if not is_remote(text):
        return Path(text)
    directory = outbox(text)
    _known[directory] = text
    return directory


def outbox(address: str) -> Path:
    """The directory in which what goes to an address is kept until it is there: always the same one."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    mark = hashlib.sha256(address.encode()).hexdigest()[:16]
    return cache / "staging-replay" / "outbox" / mark / (Path(urlsplit(address).path).name or "dataset")


def _opened(address: str) -> tuple[Any, str]:
    from pyarrow import ArrowException
    from pyarrow.fs import FileSystem

    try:
        system, base = FileSystem.from_uri(_with_endpoint(address))
    except (ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{shown(address)} is no address of a store: {_line(error)}; write s3://bucket/name, gs://…"
        ) from None
    return system, base.rstrip("/")


def _with_endpoint(address: str) -> str:
    """S3 elsewhere than at Amazon's, as AWS's own tools are told of it."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not address.startswith("s3://") or not endpoint or "endpoint_override=" in address:
        return address
    scheme, _, host = endpoint.rpartition("://")
    joint = "&" if "?" in address else "?"
    return f"{address}{joint}endpoint_override={quote(host.rstrip('/'), safe=':')}&scheme={scheme or 'https'}"


def _is_final(error: OSError) -> bool:
    """What trying again does not mend: no such bucket, no right to it, no credentials."""
    text = str(error)
    return isinstance(error, PermissionError) or any(
        sign in text
        for sign in ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY", "SIGNATURE", "HTTP status 403")
    )


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]


def main() -> None:
    """`python -m replay.store.remote ADDRESS DIRECTORY [--metadata|--parts]`: fetch, for processes that may not."""
    address, directory, *flags = sys.argv[1:]
    try:
        fetch(address, Path(directory), metadata="--parts" not in flags, parts="--metadata" not in flags)
    except InputError as error:
        sys.exit(f"replay: {error}")


if __name__ == "__main__":
    main()
