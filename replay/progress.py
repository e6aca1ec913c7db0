"""How far a run has come: a bar on a terminal, a plain line now and then where nobody watches."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from replay.verbs.run import Progress as Counts

_LINE_EVERY_S = 10.0


class RunBar:
    """Use as a context; give every `Counts` to `update`."""

    def __init__(self, stream: TextIO, label: str = "replay") -> None:
        self._stream = stream
        self._label = label
        self._next_line = time.monotonic() + _LINE_EVERY_S
        self._progress: Progress | None = None
        if stream.isatty():
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(compact=True),
                console=Console(file=stream),
                transient=True,
            )
            self._task = self._progress.add_task(label, total=None, start=True, note="starting", visible=True)

    def __enter__(self) -> RunBar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, counts: Counts) -> None:
        """Show how far it is."""
        note = f"{counts.under_way} under way, {counts.failed} failed"
        if self._progress is not None:
            done = counts.answered + counts.failed + counts.skipped
            self._progress.update(self._task, completed=done, total=counts.planned, note=note)
        elif time.monotonic() >= self._next_line:
            self._next_line += _LINE_EVERY_S
            print(
                f"{self._label}: {counts.started:,} of {counts.planned:,} sent, {note}",
                file=self._stream,
                flush=True,
            )
