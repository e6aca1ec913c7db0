"""Progress where nobody watches: a plain line every ten seconds, and none before."""

from __future__ import annotations

import io
import threading

import pytest

from replay import progress
from replay.progress import RunBars, Watch
from replay.verbs.run import Progress

COUNTS = Progress(planned=2000, started=1200, under_way=3, answered=1196, failed=1, skipped=0)


@pytest.mark.parametrize(
    ("every", "told"), [(10.0, ""), (0.0, "old: 1,200 of 2,000 sent, 3 under way, 1 failed\n")]
)
def test_a_line_when_it_is_time(every: float, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", every)
    stream = io.StringIO()
    with RunBars(stream, ("old", "new")) as bars:
        bars.of("old")(COUNTS)
    assert stream.getvalue() == told


class Listening(io.StringIO):
    """A stream that tells when something is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def write(self, text: str) -> int:
        done = super().write(text)
        self.written.set()
        return done


def test_waiting_is_told_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.01)
    stream = Listening()
    with Watch(stream).wait("compare"):
        assert stream.written.wait(10)
    told = stream.getvalue()
    assert told.startswith("compare: 0 s so far\n")


def test_what_is_quick_is_not_told() -> None:
    stream = io.StringIO()
    with Watch(stream).wait("compare"):
        pass
    assert stream.getvalue() == ""
