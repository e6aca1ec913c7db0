"""The bindings of a capture: a first look at it, before anything is planned."""

from __future__ import annotations

from collections.abc import Iterable

from replay.plan.correlate import LEARN_FROM, Binding, Learner, Seen, Wish
from replay.plan.dispatch import share_of
from replay.store.reader import Dataset, to_rows


def learn(dataset: Dataset, wishes: Iterable[Wish] = (), most: int = LEARN_FROM) -> tuple[Binding, ...]:
    """The rules that the capture shows. Of one with more than `most` exchanges, whole sessions are read: a share
    that every process chooses alike."""
    learner = Learner(wishes)
    shares = -(-max(1, dataset.count) // most)
    for batch in dataset.batches(Seen._fields):
        for seen in map(Seen._make, to_rows(batch)):
            if shares == 1 or share_of(seen.session_id, shares) == 0:
                learner.add(seen)
    return learner.bindings()
