"""Gates to run as a user would: a directory with a replay.toml, and `replay` in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.processes import processes_with

CAPTURE = Path(__file__).parents[2] / "captures" / "shop"
SHOP = f"exec {sys.executable} -m replay.demo.shop --port {{port}} --trust-tokens --build"

PATIENT = """[limits.fidelity]
lag_p99_ms = 2000
late_share = 1
rate_error = 10
rate_correlation = 0
gap_distance = 1
"""
"""For tests that are not about fidelity: a machine that other tests keep busy is as good as any."""


def build(command: str, **keys: object) -> str:
    """The body of a build's table."""
    given = {"command": command, "ready": "/health", "timeout": 30, "grace": 5, **keys}
    return "".join(f"{name} = {_toml(value)}\n" for name, value in given.items() if value is not None)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(item)}" for name, item in value.items()) + " }"
    if isinstance(value, bool) or not isinstance(value, str):
        return str(value).lower()
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@dataclass
class Gate:
    """A directory to run `replay` in; every process that comes of it carries `mark` in its environment."""

    directory: Path
    mark: str = field(default_factory=lambda: f"GATE_TEST={uuid.uuid4()}")

    @property
    def out(self) -> Path:
        return self.directory / "gate-out"

    def configure(
        self,
        baseline: str = build(f"{SHOP} old"),
        candidate: str = build(f"{SHOP} new"),
        gate: str = "",
        run: str = "speed = 6",
        rest: str = PATIENT,
    ) -> Gate:
        (self.directory / "replay.toml").write_text(
            f"[gate]\ncapture = {_toml(str(CAPTURE))}\n{gate}\n[baseline]\n{baseline}\n[candidate]\n{candidate}\n"
            f"[run]\nwrites = 'all'\n{run}\n{rest}\n",
            "utf-8",
        )
        return self

    @contextmanager
    def started(self, *arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
        """`replay gate` under way; it and all its processes are ended with the block."""
        name, _, value = self.mark.partition("=")
        process = subprocess.Popen(
            [sys.executable, "-m", "replay", *(arguments or ("gate",))],
            cwd=self.directory,
            env={**os.environ, "COLUMNS": "110", "GITHUB_ACTIONS": "", name: value, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            for left in processes_with(self.mark):
                os.kill(left, signal.SIGKILL)
            process.communicate()

    def run(self, *arguments: str, **env: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of `replay` (by default `replay gate`)."""
        with self.started(*arguments, **env) as process:
            out, err = process.communicate(timeout=100)
            return process.returncode, out, err


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait for what the process does; the test fails where it ends instead."""
    while not condition():
        if process.poll() is not None:
            pytest.fail(f"ended with {process.returncode} instead: {process.communicate()[1]}")
        time.sleep(0.02)
