"""The demonstration's shops as child processes: ended by their own id, and never left behind.

A Ctrl-C reaches the whole foreground group at once; children in a session of their own are ended by us, when
it is their turn. Should we be gone ourselves (kill -9, or an interrupt at the very instant of starting one),
the end of their standard input tells them to go.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from replay.errors import ReplayError

_GRACE_SECONDS = 10.0


@contextmanager
def shop(build: str, *, trust_tokens: bool = False) -> Iterator[str]:
    """A freshly started shop of one build; gives its URL. Ended when the block is left, however that is."""
    command = [sys.executable, "-m", "replay.demo.shop", "--port", "0", "--build", build, "--until-eof"]
    process = subprocess.Popen(
        [*command, "--trust-tokens"] if trust_tokens else command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            raise ReplayError(
                f"the demonstration's shop ({build} build) did not start: exit {process.wait()}"
            )
        yield f"http://127.0.0.1:{port}"
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Ask the process to end; where it does not within the grace, end it."""
    process.terminate()
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
