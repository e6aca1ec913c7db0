"""The bindings of a capture: a first look at it, before anything is planned.

Several workers are told what one has learned: `python -m replay.send.learning CAPTURE [REPLAY.TOML]` writes the rules
as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from replay.config import Config, load
from replay.errors import ReplayError
from replay.plan.correlate import LEARN_FROM, Binding, Learner, Seen, Wish
from replay.plan.dispatch import share_of
from replay.store.reader import Dataset, to_rows

Rule = tuple[str, str, str, str]
"""A binding as processes tell each other of it: the answer's endpoint and place, the request's endpoint and place."""


def learn(dataset: Dataset, wishes: Iterable[Wish] = (), most: int = LEARN_FROM) -> tuple[Binding, ...]:
    """The rules that the capture shows. Of one with more than `most` exchanges a share of the sessions is read, which
    every process chooses alike; where that holds too little, having few sessions or a giant one, the beginning."""
    shares = -(-max(1, dataset.count) // most)
    if shares == 1:
        return _learned(dataset.batches(Seen._fields), wishes, most)[0]
    shared = dataset.shared(Seen._fields, ("session_id",), lambda session: share_of(session, shares) == 0)
    found, count = _learned((some.mine for some in shared), wishes, 2 * most)
    if most // 4 <= count < 2 * most:
        return found
    return _learned(dataset.batches(Seen._fields), wishes, most)[0]


def _learned(batches: Iterable[Any], wishes: Iterable[Wish], most: int) -> tuple[tuple[Binding, ...], int]:
    """What at most so many exchanges show, and how many they were."""
    learner, count = Learner(wishes), 0
    for seen in islice((Seen._make(row) for batch in batches for row in to_rows(batch)), most):
        learner.add(seen)
        count += 1
    return learner.bindings(), count


def main() -> None:
    """Entry point of the process."""
    capture, *files = sys.argv[1:]
    try:
        config = load(Path(files[0])) if files else Config()
        found = learn(Dataset.open(Path(capture), "capture"), config.bind)
    except ReplayError as error:
        print(f"replay: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(json.dumps([(rule.source, rule.place, rule.endpoint, rule.target) for rule in found]))


if __name__ == "__main__":
    main()
