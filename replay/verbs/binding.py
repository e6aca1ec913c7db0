"""`replay inspect --bindings`: what later requests of a capture's sessions carry of earlier answers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from replay.findings import BindingRow
from replay.plan.correlate import Wish
from replay.send.learning import learn
from replay.store.reader import Dataset


def rules_of(capture: Path, wishes: Iterable[Wish] = ()) -> tuple[BindingRow, ...]:
    """The bindings that a replay of this capture uses, the most used first. `InputError` where it is no capture."""
    return tuple(
        BindingRow(rule.maker, rule.user, rule.count, rule.sessions, rule.examples)
        for rule in learn(Dataset.open(capture, "capture"), wishes)
    )
