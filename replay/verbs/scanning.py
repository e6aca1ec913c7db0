"""`replay inspect --scan`: secrets that were left in a capture or a run, by endpoint, place and detector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from replay.capture.audit import Suspect, suspects
from replay.capture.redact import Policy
from replay.config import Config
from replay.model import Exchange
from replay.store.reader import Dataset


@dataclass(frozen=True, slots=True)
class Leak:
    """A place where secrets seem to be left: how often, and one exchange to look at."""

    endpoint: str
    place: str
    detector: str
    count: int
    example: str


def scan(path: Path, config: Config) -> list[Leak]:
    """Look through every message of a dataset; most frequent first. `InputError` where it is none."""
    policy = Policy.of(config.redact)
    counts: Counter[tuple[str, str, str]] = Counter()
    examples: dict[tuple[str, str, str], str] = {}
    for row in Dataset.open(path).rows():
        for side, suspect in _suspects(row, policy):
            where = (row.endpoint, f"{side} {suspect.place}", suspect.detector)
            counts[where] += 1
            examples.setdefault(where, row.exchange_id)
    return [Leak(*where, count, examples[where]) for where, count in counts.most_common()]


def _suspects(row: object, policy: Policy) -> Iterator[tuple[str, Suspect]]:
    if isinstance(row, Exchange):
        for suspect in suspects(policy, row.target, list(row.request_headers), row.request_body):
            yield "request", suspect
    headers, body = list(row.response_headers), row.response_body  # type: ignore[attr-defined]
    for suspect in suspects(policy, "", headers, body):
        yield "response", suspect


def to_text(leaks: list[Leak]) -> str:
    """A line for each place."""
    if not leaks:
        return "no suspected secrets"
    lines = [
        f"{leak.endpoint}: {leak.place}: {leak.detector}, {leak.count} times, such as {leak.example}"
        for leak in leaks
    ]
    return "\n".join(
        [*lines, f"{len(leaks)} places with suspected secrets: add a [[redact]] rule, or keep, for each"]
    )
