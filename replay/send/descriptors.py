"""Open files: a connection is one, and a run that runs out of them would blame the build for it.

What is needed is known beforehand: how many connections the recording had open at once.
"""

from __future__ import annotations

import fcntl
import os
import resource
from collections import Counter
from pathlib import Path

from replay.config import RunSettings
from replay.errors import UsageError
from replay.plan.dispatch import Selection
from replay.store.reader import Dataset, to_rows

_OTHERS = 100
"""What a worker has open beside its connections: the interpreter, Locust, the journal, pipes. Generous."""


_ROOM = 1 << 16
"""Open files that the kernel's table has room for from the beginning: 8 bytes each."""


def raise_limit() -> None:
    """Let this process open as many files as the system allows it: shells often allow 1,024 at first.

    The kernel's table of them is made large at once. It would double with the 64th, 128th, 256th … open file,
    and in a process of several threads the one that opens it then waits for an RCU grace period
    (`expand_fdtable` in Linux's fs/file.c): 5 to 25 ms in which nothing is sent.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = _ROOM if hard == resource.RLIM_INFINITY else min(hard, _ROOM)
    descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.close(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, most - 1))
    os.close(descriptor)


def check(capture: Path, settings: RunSettings, shares: int, targets: int = 1) -> None:
    """`UsageError` where a run needs more connections than a process may have files open here.

    Of `targets` that are asked at once each needs as many.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if settings.concurrency is not None:
        wanted, why = settings.concurrency, f"--concurrency {settings.concurrency}"
    elif settings.connections == "pooled":
        return
    else:
        wanted = most_at_once(capture, selection_of(settings))
        why = f"{capture} had {wanted:,} connections open at once"
    needed = (-(-wanted // shares) + _OTHERS) * targets
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise UsageError(
            f"{why}, and a process may open {hard:,} files here: raise that to {needed:,} (ulimit -n),"
            " share the run among more --workers, or use --connections pooled"
        )


def selection_of(settings: RunSettings) -> Selection:
    """What of a capture the settings send."""
    return Selection(settings.include, settings.exclude, settings.writes, settings.deny)


def most_at_once(capture: Path, selection: Selection) -> int:
    """The most connections of a capture that were open at once, from the first to the last request of each."""
    left: Counter[str] = Counter()
    columns = ("connection_id", "endpoint", "method")
    dataset = Dataset.open(capture, "capture")
    for batch in dataset.batches(columns):
        left.update(
            connection for connection, endpoint, method in to_rows(batch) if selection.takes(endpoint, method)
        )
    most, opened = 0, set()
    for batch in dataset.batches(columns):
        for connection, endpoint, method in to_rows(batch):
            if not selection.takes(endpoint, method):
                continue
            opened.add(connection)
            most = max(most, len(opened))
            left[connection] -= 1
            if not left[connection]:
                opened.discard(connection)
    return most
