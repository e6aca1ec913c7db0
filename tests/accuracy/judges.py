"""Who finds what: this differ, and Diffy's rule on the very same differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from replay.diff.answers import Comparer, CompareSettings
from replay.diff.pairs import Trio
from replay.diff.paths import erase
from replay.diff.session import Comparison
from replay.diff.settings import DiffSettings
from replay.findings import REGRESSION
from tests.accuracy.corpus import Endpoint, answers

Place = tuple[str, str]
"""An endpoint, and a path without indices."""


@dataclass(slots=True)
class Score:
    """Planted regressions found and missed; places called regressions that are none."""

    found: Counter[str]
    missed: Counter[str]
    right: int = 0
    wrong: int = 0

    @property
    def recall(self) -> float:
        found = self.found.total()
        return found / max(1, found + self.missed.total())

    @property
    def precision(self) -> float:
        return self.right / max(1, self.right + self.wrong)

    def add(self, other: Score) -> None:
        """Take in the score of another run."""
        self.found += other.found
        self.missed += other.missed
        self.right += other.right
        self.wrong += other.wrong


def trios(service: Iterable[Endpoint], seed: int) -> Iterable[Trio]:
    """The three builds' answers to every request of the service."""
    for endpoint in service:
        yield from (
            Trio(old, new, again)
            for old, new, again in zip(
                answers(endpoint, 3 * seed, broken=False),
                answers(endpoint, 3 * seed + 1, broken=True),
                answers(endpoint, 3 * seed + 2, broken=False),
                strict=True,
            )
        )


def ours(service: list[Endpoint], seed: int) -> set[Place]:
    """What `replay diff` calls a regression."""
    comparison = Comparison(DiffSettings(), has_control=True)
    for trio in trios(service, seed):
        comparison.add(trio)
    report = comparison.report("old", "new", "again")
    places = {(finding.endpoint, finding.path) for finding in report.judged(REGRESSION)}
    return places | {(row.endpoint, row.path) for row in report.latency if row.judgement == REGRESSION}


def diffys(service: list[Endpoint], seed: int) -> set[Place]:
    """What Diffy's rule flags: raw and noise counted per place, one threshold each on relative and absolute."""
    comparer = Comparer(CompareSettings())
    raw: Counter[Place] = Counter()
    noise: Counter[Place] = Counter()
    total: Counter[str] = Counter()
    for old, new, again in trios(service, seed):
        assert old is not None
        assert new is not None
        assert again is not None
        total[old.endpoint] += 1
        for counts, other in ((raw, new), (noise, again)):
            counts.update({(old.endpoint, erase(found.path)) for found in comparer.differences(old, other)})
    return {
        place
        for place, count in raw.items()
        if count > noise[place]
        and (count - noise[place]) / (count + noise[place]) > 0.2
        and (count - noise[place]) / total[place[0]] > 0.0003
    }


def score(service: Iterable[Endpoint], flagged: set[Place]) -> Score:
    """Hold what was flagged against what was planted."""
    result = Score(Counter(), Counter())
    true = set()
    for endpoint in service:
        if endpoint.planted is None:
            continue
        hits = {
            place
            for place in flagged
            if place[0] == endpoint.name and place[1].startswith(endpoint.planted.shows_at)
        }
        true |= hits
        (result.found if hits else result.missed)[endpoint.planted.name] += 1
    result.right = len(true)
    result.wrong = len(flagged - true)
    return result
