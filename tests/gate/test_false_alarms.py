"""Twenty gates of a build against itself, noise and all: none may raise an alarm."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from replay.config import load
from replay.progress import Watch
from replay.verbs.gate import run_gate

from .gates import SHOP, Gate, build

GATES = 20


@pytest.mark.real
@pytest.mark.timeout(420)
def test_twenty_gates_of_an_unchanged_build_pass(tmp_path: Path) -> None:
    # Two at a time: most of a gate is waiting for programs to start and for what is due.
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda number: verdict_of(tmp_path / str(number)), range(GATES)))
    assert outcomes == [(0, ("no regression in 584 exchanges",))] * GATES


def verdict_of(directory: Path) -> tuple[int, tuple[str, ...]]:
    directory.mkdir()
    Gate(directory).configure(candidate=build(f"{SHOP} old"), run="speed = 10")
    outcome = run_gate(load(directory / "replay.toml"), Watch(io.StringIO()))
    return outcome.exit_code, outcome.dossier.report.reasons
