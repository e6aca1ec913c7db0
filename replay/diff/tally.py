"""From single differences to findings: counted per endpoint, erased path and kind, in bounded memory.

An exchange counts once for a finding, however many array items differ in it. With all three answers at hand
each exchange says which build was the odd one out (see `replay.diff.noise`).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from replay.diff.answers import Answer
from replay.diff.compare import identity, show
from replay.diff.noise import Counts, Judgement, JudgeSettings, judge, judge_without_control
from replay.diff.paths import erase
from replay.findings import JUDGEMENTS, KINDS, Difference, EndpointRow, Example, Finding, finding_id

EXAMPLES = 3
MAX_PLACES = 4000
"""Places of one endpoint that are told apart; beyond, differences count at `$..`: data became keys there."""

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
            if len(self.cells) >= MAX_PLACES:
                place = ("$..", place[1])
            cell = self.cells.setdefault(place, Cell())
        return cell


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
    """Keep the first few, and prefer those in which only the candidate differs."""
    full = len(cell.examples) >= EXAMPLES
    if full and (not odd or cell.examples[-1][0]):
        return
    example = Example(
        answer.exchange_id,
        answer.lap,
        difference.path,
        _side(difference, "extra"),
        _side(difference, "missing"),
    )
    if full:
        cell.examples.pop()
    place = sum(kept for kept, _ in cell.examples) if odd else len(cell.examples)
    cell.examples.insert(place, (odd, example))


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
