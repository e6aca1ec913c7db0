"""Partitions of a comparison on a Dask cluster: `replay diff --dask tcp://…`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from replay import __version__
from replay.diff.partial import Partial
from replay.errors import InputError, ReplayError, UsageError
from replay.verbs.partitions import Partition, compare

_CONNECT_S = 15
_RETRIES = 2
_EACH = 3
"""Partitions that are under way or waiting to be fetched, for each thread of the cluster: nobody holds all of them."""


def compared(tasks: Sequence[Partition], address: str) -> Iterator[Partial]:
    """What each partition adds, in their order. The cluster's workers read the runs at the same paths as here.

    A partition whose worker is lost is tried again on another. `UsageError` where the extra is not installed,
    `InputError` where the cluster cannot be reached, is of another version, or does not see the runs.
    """
    try:
        from distributed import Client
    except ImportError:
        raise UsageError('--dask needs Dask: pip install "staging-replay[dask]"') from None
    try:
        client: Any = Client(address, timeout=_CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"--dask {address}: no scheduler answers there: {str(error).splitlines()[0]}"
        ) from None
    with client:
        _check(client, tasks, address)
        yield from _gathered(client, tasks, address)


def _gathered(client: Any, tasks: Sequence[Partition], address: str) -> Iterator[Partial]:
    ahead = _EACH * max(1, sum(client.nthreads().values()))
    waiting = deque(tasks)
    running: deque[Any] = deque()
    try:
        while waiting or running:
            while waiting and len(running) < ahead:
                running.append(client.submit(compare, waiting.popleft(), retries=_RETRIES, pure=False))
            future = running.popleft()
            try:
                partial = future.result()
            except ReplayError:
                raise
            except Exception as error:  # whatever a task raised, or the cluster did to it
                raise InputError(f"--dask {address}: {type(error).__name__}: {_line(error)}") from None
            yield partial
    finally:
        client.cancel(list(running))


def _check(client: Any, tasks: Sequence[Partition], address: str) -> None:
    """`InputError` where a worker could not do the work, or would do it differently."""
    paths = [str(side.path.resolve()) for side in tasks[0].sources]
    if not client.nthreads():
        raise InputError(f"--dask {address}: the cluster has no workers: start some, then run again")
    try:
        answers = client.run(look, paths)
    except Exception as error:
        raise InputError(
            f"--dask {address}: its workers need staging-replay {__version__} as well: {_line(error)}"
        ) from None
    for worker, (version, missing) in answers.items():
        if version != __version__:
            raise InputError(
                f"--dask {address}: {worker} has staging-replay {version}, here it is {__version__}:"
                " their results may differ"
            )
        if missing:
            raise InputError(
                f"--dask {address}: {worker} does not see {missing[0]}: the runs must be in a directory that all share"
            )


def look(paths: Sequence[str]) -> tuple[str, list[str]]:
    """On a worker: its version, and which of these paths it does not see."""
    from pathlib import Path

    return __version__, [path for path in paths if not Path(path).is_dir()]


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
