"""Where the capture and the runs are for workers on other machines: at the same paths, or at addresses of a store.

The replayer is told the addresses in its environment, which only its user may read: they may hold credentials.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gevent
from gevent import subprocess

from replay.errors import InputError, ReplayError
from replay.send.lean import environment, waited_for
from replay.store.remote import shown, whole_address_of

PLACES = "REPLAY_PLACES"
_METADATA_S = 30


def to_environment(capture: Path, outs: Sequence[Path]) -> dict[str, str]:
    """What tells a replayer of the addresses that these directories stand for."""
    known = {str(path.resolve()): whole_address_of(path) for path in (capture, *outs)}
    return {PLACES: json.dumps({path: address for path, address in known.items() if address})}


def address(path: Path) -> str | None:
    """The address that a directory stands for, if any."""
    found = json.loads(os.environ.get(PLACES) or "{}").get(str(path.resolve()))
    return None if found is None else str(found)


def told(path: Path) -> str:
    """The directory as others may be told of it."""
    found = address(path)
    return str(path.resolve()) if found is None else shown(found)


class Capture:
    """A capture as this worker has it: at the master's own path, or as a copy of the worker's portion of it."""

    def __init__(self, path: str, at: str | None = None) -> None:
        self.path = path
        self._at = at

    def bring(self, shares: int, mine: Collection[int]) -> None:
        """Have these of all shares of the sessions at hand as well; `InputError` where they are not to be had."""
        if self._at is not None:
            portion = json.dumps({"shares": shares, "mine": sorted(mine)})
            helped("replay.store.portion", self._at, self.path, told=portion)


@contextmanager
def brought(
    capture: tuple[str, str | None], outs: Sequence[tuple[str, str | None]]
) -> Iterator[tuple[Capture, list[Path]]]:
    """On a worker: the capture, and where results are to be written. Pairs are the master's path and the address it
    stands for.

    What is not at its path here is fetched from its address as far as it is needed, and results go there when it is
    left. `InputError` where neither is to be had.
    """
    with ExitStack() as undo:
        directories = [undo.enter_context(_out(path, at)) for path, at in outs]
        yield _capture(*capture, undo), directories


def _capture(path: str, at: str | None, undo: ExitStack) -> Capture:
    if (Path(path) / "capture.json").exists():
        return Capture(path)
    if at is None:
        raise InputError(_unseen(path))
    scratch = undo.enter_context(tempfile.TemporaryDirectory(prefix="replay-"))
    return Capture(f"{scratch}/capture", at)


@contextmanager
def _out(path: str, at: str | None) -> Iterator[Path]:
    if (Path(path) / "run.json").exists():
        yield Path(path)
        return
    if at is None:
        raise InputError(_unseen(path))
    with tempfile.TemporaryDirectory(prefix="replay-") as scratch:
        directory = Path(scratch) / "run"
        _wait_for_metadata(at, directory)
        command = [sys.executable, "-m", "replay.store.uploader", str(directory), at, "--parts-only"]
        uploader = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment())
        try:
            yield directory
        finally:
            uploader.stdin.close()
            code = waited_for(uploader)
        if code:
            raise ReplayError(f"this worker's results did not reach {shown(at)}")


def _wait_for_metadata(at: str, directory: Path) -> None:
    """The master's own uploader sends the run's metadata as soon as it has begun."""
    with gevent.Timeout(_METADATA_S, InputError(f"the master has not begun a run at {shown(at)}")):
        while True:
            try:
                helped("replay.store.remote", at, str(directory), "--metadata")
                return
            except ReplayError:
                gevent.sleep(0.5)


def gather(path: Path) -> None:
    """On the master: fetch the results that workers have sent to the run's address."""
    if at := address(path):
        helped("replay.store.remote", at, str(path), "--parts")


def helped(module: str, *arguments: str, told: str = "") -> bytes:
    """What a helper process says; `InputError` with its last line where it fails. Not in this one: pyarrow would hold
    up the event loop, and has threads."""
    done: Any = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        input=told.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        check=False,
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise InputError(lines[-1].removeprefix("replay: "))
    return bytes(done.stdout)


def _unseen(path: str) -> str:
    return (
        f"{path} is not to be seen from this worker: workers on other machines need the capture and the run where the"
        " master has them, on a shared disk, or at addresses of an object store"
    )
