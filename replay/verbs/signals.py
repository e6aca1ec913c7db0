"""Ctrl-C and its kin while child processes run: every end is one that cleans up.

Python raises `KeyboardInterrupt` between any two instructions, so also between the start of a child and the
line that takes note of it; `uninterrupted` puts that off.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP are a Ctrl-C meanwhile, so that they too leave no child behind."""
    with _handled((signal.SIGTERM, signal.SIGHUP), signal.default_int_handler):
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Whatever would end us waits for the end of the block: for the few lines that start a child."""
    came: list[int] = []
    try:
        with _handled(_ENDS, lambda number, frame: came.append(number)):
            yield
    finally:
        if came:
            signal.raise_signal(came[0])


@contextmanager
def _handled(numbers: tuple[signal.Signals, ...], handler: Callable[[int, Any], Any]) -> Iterator[None]:
    """Another handler meanwhile, where handlers can be set (the main thread) and the signal is not ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: was for number, was in before.items() if was is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)
