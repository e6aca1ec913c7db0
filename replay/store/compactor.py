"""The compactor process: turns finished journal segments into Parquet behind a run, and the rest at its end.

`python -m replay.store.compactor DIRECTORY KIND` works until its standard input ends (its parent closed it,
or died), then compacts what is left and exits. It runs at idle priority while the parent works.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from pathlib import Path

from replay.store.compact import compact

_EVERY_S = 0.5


def main() -> None:
    """Entry point of the process."""
    directory, kind = Path(sys.argv[1]), sys.argv[2]
    # Ctrl-C reaches the whole process group; the end of the work is the end of standard input, nothing else.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while not select.select([sys.stdin], [], [], _EVERY_S)[0]:
        if not directory.exists():
            return  # whoever this is done for has gone, and taken it along
        compact(directory, kind)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if directory.exists():
        compact(directory, kind, wait=True)


if __name__ == "__main__":
    main()
