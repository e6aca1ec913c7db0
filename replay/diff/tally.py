"""From single differences to findings: counted per endpoint, erased path and kind, in bounded memory.

An exchange counts once for a finding, however many array items differ in it. With all three answers at hand
each exchange says which build was the odd one out (see `replay.diff.noise`).
"""

from __future__ import annotations

import zlib
from bisect import insort
from collections.abc import Sequence

from replay.diff.answers import Answer
from replay.diff.compare import identity, show
from replay.diff.noise import Counts, Judgement, JudgeSettings, judge, judge_without_control
from replay.diff.paths import erase
from replay.findings import JUDGEMENTS, KINDS, Difference, EndpointRow, Example, Finding, finding_id

EXAMPLES = 3
MAX_PLACES = 4000
"""Places of one endpoint that are told apart, those with the shortest paths; the others count at `$..`: data
became keys there."""
_ANYWHERE = "$.."

Place = tuple[str, str]
Differences = Sequence[Difference]

_MIRROR = {"missing": "extra", "extra": "missing"}


class Cell:
    """Counts of one endpoint × path × kind."""

    __slots__ = (
        "control_differing",
        "differing",
        "examples",
        "odd_baseline",
        "odd_candidate",
        "odd_control",
        "sessions",
    )

    def __init__(self) -> None:
        self.differing = 0
        self.control_differing = 0
        self.odd_candidate = 0
        self.odd_control = 0
        self.odd_baseline = 0
        self.sessions = 0
        self.examples: list[tuple[bool, Example]] = []

    def wants(self, odd: bool, answer: Answer) -> bool:
        """Whether an example of this exchange would be kept: most would not, and need not be written."""
        if len(self.examples) < EXAMPLES:
            return True
        last_odd, last = self.examples[-1]
        return (not odd, answer.exchange_id, answer.lap) < (not last_odd, last.exchange_id, last.lap)

    def keep(self, odd: bool, example: Example) -> None:
        """Keep the first few in the order of exchanges, those before all in which only the candidate differs."""
        insort(self.examples, (odd, example), key=_first)
        del self.examples[EXAMPLES:]

    def absorb(self, other: Cell) -> None:
        self.differing += other.differing
        self.control_differing += other.control_differing
        self.odd_candidate += other.odd_candidate
        self.odd_control += other.odd_control
        self.odd_baseline += other.odd_baseline
        self.sessions |= other.sessions
        for odd, example in other.examples:
            self.keep(odd, example)


def _first(kept: tuple[bool, Example]) -> tuple[bool, str, int, str, str, str]:
    odd, example = kept
    return (not odd, example.exchange_id, example.lap, example.path, example.left, example.right)


class _Endpoint:
    __slots__ = ("alike", "cells", "control_pairs", "pairs", "sessions", "trios")

    def __init__(self) -> None:
        self.pairs = 0
        self.control_pairs = 0
        self.trios = 0
        self.alike = 0
        self.sessions = 0
        self.cells: dict[Place, Cell] = {}

    def cell(self, place: Place) -> Cell:
        cell = self.cells.get(place)
        if cell is None:
            if len(self.cells) >= 2 * MAX_PLACES:
                self.fold()
            cell = self.cells[place] = Cell()
        return cell

    def fold(self) -> None:
        """Leave the places with the shortest paths, the rest being one for each kind.

        Which they are does not depend on when this is done, nor on how exchanges are shared out: a place
        that is among the shortest of all is so among any part of them.
        """
        places = sorted((place for place in self.cells if place[0] != _ANYWHERE), key=_shortest)
        for place in places[MAX_PLACES:]:
            cell = self.cells.pop(place)
            self.cells.setdefault((_ANYWHERE, place[1]), Cell()).absorb(cell)

    def absorb(self, other: _Endpoint) -> None:
        self.pairs += other.pairs
        self.control_pairs += other.control_pairs
        self.trios += other.trios
        self.alike += other.alike
        self.sessions |= other.sessions
        for place, cell in other.cells.items():
            self.cell(place).absorb(cell)


def _shortest(place: Place) -> tuple[int, Place]:
    return len(place[0]), place


class Tally:
    """Takes the differences of one exchange after the other; `findings` judges what came together."""

    def __init__(self) -> None:
        self._endpoints: dict[str, _Endpoint] = {}

    def add(self, answer: Answer, candidate: Differences | None, control: Differences | None) -> None:
        """One exchange: the baseline's answer, differences to the candidate's and the control's.

        `None` where there is no such pair; an empty sequence where they are alike.
        """
        endpoint = self._endpoints.get(answer.endpoint)
        if endpoint is None:
            endpoint = self._endpoints[answer.endpoint] = _Endpoint()
        session = 1 << (zlib.crc32(answer.session_id.encode()) & 63)
        endpoint.sessions |= session
        if candidate is not None:
            endpoint.pairs += 1
            endpoint.alike += not candidate
        if control is not None:
            endpoint.control_pairs += 1
            endpoint.trios += candidate is not None
        if candidate or control:
            self._count(endpoint, answer, session, candidate, control)

    def _count(
        self,
        endpoint: _Endpoint,
        answer: Answer,
        session: int,
        candidate: Differences | None,
        control: Differences | None,
    ) -> None:
        new, old = _places(candidate), _places(control)
        for place, differences in new.items():
            cell = endpoint.cell(place)
            cell.differing += 1
            odd = control is not None and place not in old
            if odd:
                cell.odd_candidate += 1
                cell.sessions |= session
            _keep_example(cell, answer, differences[0], odd)
        for place, differences in old.items():
            endpoint.cell(place).control_differing += 1
            if candidate is None:
                continue
            if place not in new:
                endpoint.cell(place).odd_control += 1
            elif _same(differences, new[place]):
                # Only the baseline has it otherwise. What is extra to it would be missing to the others.
                endpoint.cell((place[0], _MIRROR.get(place[1], place[1]))).odd_baseline += 1

    def absorb(self, other: Tally) -> None:
        """Add what was counted of other exchanges."""
        for name, entry in other._endpoints.items():
            self._endpoints.setdefault(name, _Endpoint()).absorb(entry)

    def fold(self) -> None:
        """Bound the places of every endpoint: see `MAX_PLACES`."""
        for entry in self._endpoints.values():
            entry.fold()

    @property
    def trios(self) -> int:
        return sum(endpoint.trios for endpoint in self._endpoints.values())

    @property
    def pairs(self) -> int:
        return sum(endpoint.pairs for endpoint in self._endpoints.values())

    def endpoints(self) -> tuple[EndpointRow, ...]:
        """Every endpoint that was compared, by name."""
        return tuple(
            EndpointRow(name, entry.pairs, entry.alike)
            for name, entry in sorted(self._endpoints.items())
            if entry.pairs
        )

    def findings(self, settings: JudgeSettings, has_control: bool) -> tuple[Finding, ...]:
        """All findings judged, the ones to look at first in front."""
        self.fold()
        cells = [
            (name, place, entry, cell)
            for name, entry in sorted(self._endpoints.items())
            for place, cell in sorted(entry.cells.items())
        ]
        counts = [_counts(place, entry, cell) for _, place, entry, cell in cells]
        judged = judge(counts, self.trios, settings) if has_control else judge_without_control(counts)
        findings = [
            _finding(name, place, entry, cell, judgement)
            for (name, place, entry, cell), judgement in zip(cells, judged, strict=True)
            if cell.differing
        ]
        return tuple(sorted(findings, key=rank))


def _places(differences: Differences | None) -> dict[Place, list[Difference]]:
    found: dict[Place, list[Difference]] = {}
    for difference in differences or ():
        found.setdefault((erase(difference.path), difference.kind), []).append(difference)
    return found


def _same(left: list[Difference], right: list[Difference]) -> bool:
    """Whether candidate and control say the same here, where both differ from the baseline."""
    if len(left) != len(right):
        return False
    return all(
        a.path == b.path and identity(a.right) == identity(b.right) for a, b in zip(left, right, strict=True)
    )


def _keep_example(cell: Cell, answer: Answer, difference: Difference, odd: bool) -> None:
    if not cell.wants(odd, answer):
        return
    example = Example(
        answer.exchange_id,
        answer.lap,
        difference.path,
        _side(difference, "extra"),
        _side(difference, "missing"),
    )
    cell.keep(odd, example)


def _side(difference: Difference, absent: str) -> str:
    if difference.kind == absent:
        return "(absent)"
    value = difference.left if absent == "extra" else difference.right
    plain = not difference.path.startswith("$") and isinstance(value, str)
    return show(value)[1:-1] if plain else show(value)


def _counts(place: Place, entry: _Endpoint, cell: Cell) -> Counts:
    return Counts(
        kind=place[1],
        pairs=entry.pairs,
        differing=cell.differing,
        control_differing=cell.control_differing,
        trios=entry.trios,
        odd_candidate=cell.odd_candidate,
        odd_control=cell.odd_control,
        odd_baseline=cell.odd_baseline,
        sessions=cell.sessions.bit_count(),
        endpoint_sessions=entry.sessions.bit_count(),
    )


def _finding(name: str, place: Place, entry: _Endpoint, cell: Cell, judgement: Judgement) -> Finding:
    return Finding(
        id=finding_id(name, *place),
        endpoint=name,
        path=place[0],
        kind=place[1],
        pairs=entry.pairs,
        differing=cell.differing,
        control_pairs=entry.control_pairs,
        control_differing=cell.control_differing,
        odd_candidate=cell.odd_candidate,
        odd_control=cell.odd_control,
        odd_baseline=cell.odd_baseline,
        sessions=cell.sessions.bit_count(),
        p_value=judgement.p,
        q_value=judgement.q,
        judgement=judgement.judgement,
        reason=judgement.reason,
        examples=tuple(example for _, example in cell.examples),
    )


def rank(finding: Finding) -> tuple[int, int, float, str, str]:
    """Regressions, suspects, noise; within them errors and statuses first; within those the widest first."""
    return (
        JUDGEMENTS.index(finding.judgement),
        KINDS.index(finding.kind),
        -finding.share,
        finding.endpoint,
        finding.path,
    )
