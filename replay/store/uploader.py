"""The uploader process: sends a dataset's finished files to its store while it is written, and the rest at the end.

`python -m replay.store.uploader DIRECTORY ADDRESS [--keep] [--parts-only]` works until its standard input ends (its
parent closed it, or died), then sends what is left. Parts go before the metadata that was there when they were looked
for, so a dataset that says it is closed is whole. A part is removed here once it is there, unless `--keep`. Run by
hand, with standard input closed, it sends what an earlier failure has left.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import orjson

from replay.errors import InputError
from replay.plan.breaker import STOP_FILE
from replay.store.reader import Dataset
from replay.store.remote import METADATA, STOP_OBJECT, Store, shown

FULL_FILE = ".full"
"""There while the store is away and the directory has reached its bound: nothing more is to be recorded."""

BOUND_BYTES = int(os.environ.get("REPLAY_OUTBOX_BYTES", str(4 << 30)))
_EVERY_S = 0.5
_BRIEF_S = 1.0


class Uploader:
    """Sends one directory. `step` once; what could not be sent is tried again at the next one."""

    def __init__(self, directory: Path, address: str, keep: bool, parts_only: bool) -> None:
        self._directory = directory
        self._address = address
        self._keep = keep
        self._parts_only = parts_only
        self._sent: dict[str, tuple[int, int]] = {}

    def step(self, patience: float) -> None:
        """Send what is new. `InputError` where the store could not be reached for so many seconds."""
        store = Store(self._address, patience)
        there = store.names()
        metadata = {} if self._parts_only else self._metadata()
        parts = sorted(self._directory.glob("part-*.parquet"))
        if parts and self._parts_only and orjson.loads(store.get("run.json"))["state"] == "closed":
            return  # it was closed without this worker: these rows are booked as lost
        for path in parts:
            if self._is_new(path) and there.get(path.name) != path.stat().st_size:
                store.put(path.name, path.read_bytes())
            self._sent[path.name] = _state(path)
            if not self._keep:
                path.unlink()
        for name, data in metadata.items():
            store.put(name, data)
            self._sent[name] = _state(self._directory / name)
        if not self._parts_only and STOP_OBJECT in there:
            (self._directory / STOP_FILE).touch(mode=0o600)
            store.delete(STOP_OBJECT)

    def watch_bound(self) -> None:
        """Tell the recorder to record no more while what waits here takes more than the bound."""
        waiting = sum(path.stat().st_size for path in self._directory.iterdir() if path.is_file())
        full = self._directory / FULL_FILE
        if waiting > BOUND_BYTES:
            full.touch(mode=0o600)
        elif waiting < 0.9 * BOUND_BYTES:
            full.unlink(missing_ok=True)

    def _metadata(self) -> dict[str, bytes]:
        paths = [self._directory / name for name in METADATA]
        return {path.name: path.read_bytes() for path in paths if path.exists() and self._is_new(path)}

    def _is_new(self, path: Path) -> bool:
        return self._sent.get(path.name) != _state(path)


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def main() -> None:
    """Entry point of the process."""
    directory, address, *flags = sys.argv[1:]
    uploader = Uploader(Path(directory), address, "--keep" in flags, "--parts-only" in flags)
    # Ctrl-C reaches the whole process group; the end of the work is the end of standard input, nothing else.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = False
    if select.select([sys.stdin], [], [], 0)[0] and any(
        (Path(directory) / name).exists() for name in METADATA
    ):
        # By hand, after a crash: what is in journals still is to come along.
        Dataset.open(Path(directory))
    while not select.select([sys.stdin], [], [], _EVERY_S)[0]:
        try:
            uploader.step(_BRIEF_S)
            told = False
        except (InputError, OSError) as error:
            if not told:
                print(f"replay: {error}; what is recorded waits in {directory}", file=sys.stderr)
            told = True
            time.sleep(_EVERY_S)
        # Files go while they are counted, and the whole directory where nothing came of it.
        with suppress(FileNotFoundError):
            uploader.watch_bound()
    try:
        uploader.step(float(os.environ.get("REPLAY_STORE_PATIENCE", "60")))
    except (InputError, OSError) as error:
        sys.exit(
            f"replay: {error}; what was not sent is in {directory}: send it with"
            f" `python -m replay.store.uploader {directory} {shown(address)} < /dev/null`"
        )


if __name__ == "__main__":
    main()
