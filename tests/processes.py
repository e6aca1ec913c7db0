"""Processes that a test started, and theirs: found by an entry of the environment that they inherit."""

from __future__ import annotations

import os
import select
from pathlib import Path


def processes_with(mark: str) -> list[int]:
    """The processes that inherited this entry (`NAME=value`) of the environment."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                environment = (process / "environ").read_bytes()
            except OSError:
                continue  # gone, or somebody else's
            if mark.encode() in environment.split(b"\0"):
                found.append(int(process.name))
    return found


def ends(process: int) -> bool:
    """Whether the process ends within a while: the end of its standard input reaches it after our exit."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 20)[0])
    finally:
        os.close(descriptor)
