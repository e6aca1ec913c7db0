"""Whenever and however a gate is ended, no process stays behind, and what was recorded is readable."""

from __future__ import annotations

import signal

import pytest

from replay.store.reader import Dataset
from tests.processes import processes_with

from .gates import SHOP, Gate, build, until

NEVER_READY = build("sleep 1000 & echo started > mark; trap '' TERM; wait; sleep 1000", grace=0.2, timeout=90)
LONG_RESET = build(f"{SHOP} old", reset="echo started > mark; sleep 1000", timeout=90)
SHOP_WITH_HELPER = build(f"sleep 1000 & {SHOP} old")

MOMENTS = {
    "a build is awaited": ({"baseline": NEVER_READY}, "mark", signal.SIGINT),
    "a build is awaited, by the CI server": ({"baseline": NEVER_READY}, "mark", signal.SIGTERM),
    "data are reset": ({"baseline": LONG_RESET}, "mark", signal.SIGINT),
    "a run is made": ({"baseline": SHOP_WITH_HELPER}, "gate-out/baseline/journal-*", signal.SIGINT),
    "a run is made, by the CI server": ({}, "gate-out/baseline/journal-*", signal.SIGTERM),
    "the terminal goes": ({}, "gate-out/baseline/journal-*", signal.SIGHUP),
    "all runs are made at once": (
        {"gate": "at_once = true"},
        "gate-out/runs/candidate/journal-*",
        signal.SIGINT,
    ),
    "suspects are asked again": (
        {"gate": "control = false", "run": "speed = 20"},
        "gate-out/confirm/run-*/candidate/journal-*",
        signal.SIGINT,
    ),
}


@pytest.mark.parametrize(("settings", "mark", "number"), MOMENTS.values(), ids=MOMENTS)
def test_interrupted_while(gate: Gate, settings: dict, mark: str, number: signal.Signals) -> None:
    gate.configure(**{"run": "speed = 0.5", **settings})
    with gate.started() as process:
        until(lambda: any(gate.directory.glob(mark)), process)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert err.endswith("\ninterrupted: every build is ended, what was recorded is in gate-out\n")
        assert "Traceback" not in err
        assert processes_with(gate.mark) == []
    for run in gate.out.glob("*/run.json"):
        Dataset.open(run.parent, "run")


def test_a_run_that_cannot_be_made_ends_every_build(gate: Gate) -> None:
    code, _, err = gate.configure(gate="at_once = true", run="include = ['/nowhere']").run()
    assert code == 2
    assert err.splitlines()[-1].startswith("replay: nothing to send")
    assert processes_with(gate.mark) == []
    assert {path.name for path in gate.out.iterdir()} == {"baseline.log", "control.log", "candidate.log"}
