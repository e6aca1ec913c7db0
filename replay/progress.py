"""How far long work has come: bars on a terminal, a plain line now and then where nobody watches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from replay.verbs.run import Progress as Counts

LINE_EVERY_S = 10.0


class RunBars:
    """A bar for each of the runs that are made together. Use as a context; give `Counts` to `of(label)`."""

    def __init__(self, stream: TextIO, labels: Sequence[str] = ("replay",)) -> None:
        self._stream = stream
        self._next_line = dict.fromkeys(labels, time.monotonic() + LINE_EVERY_S)
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
            add = self._progress.add_task
            self._tasks = {label: add(label, total=None, note="starting") for label in labels}

    def __enter__(self) -> RunBars:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def of(self, label: str) -> Callable[[Counts], None]:
        """What shows how far the run of that label is."""
        return lambda counts: self._update(label, counts)

    def _update(self, label: str, counts: Counts) -> None:
        note = f"{counts.under_way} under way, {counts.failed} failed"
        if self._progress is not None:
            done = counts.answered + counts.failed + counts.skipped
            self._progress.update(self._tasks[label], completed=done, total=counts.planned, note=note)
        elif time.monotonic() >= self._next_line[label]:
            self._next_line[label] += LINE_EVERY_S
            sent = f"{counts.started:,} of {counts.planned:,} sent"
            print(f"{label}: {sent}, {note}", file=self._stream, flush=True)


class Watch:
    """What someone sees of a work in stages: lines, bars of its runs, and that it is waiting for something."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def say(self, text: str) -> None:
        """A line of its own."""
        print(text, file=self._stream, flush=True)

    def bars(self, labels: Sequence[str]) -> RunBars:
        """Bars for runs that are made together."""
        return RunBars(self._stream, labels)

    @contextmanager
    def wait(self, text: str) -> Iterator[None]:
        """Say that it is still at it: a spinner on a terminal, elsewhere a line every ten seconds."""
        if self._stream.isatty():
            with Console(file=self._stream).status(text):
                yield
            return
        over = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(text, over), daemon=True)
        ticker.start()
        try:
            yield
        finally:
            over.set()
            ticker.join()

    def _tick(self, text: str, over: threading.Event) -> None:
        began = time.monotonic()
        while not over.wait(LINE_EVERY_S):
            self.say(f"{text}: {time.monotonic() - began:.0f} s so far")
