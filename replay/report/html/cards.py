"""Findings as cards: what a developer asks of one, in the order in which it is asked."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from markupsafe import Markup

from replay.findings import (
    ACCEPTED,
    JUDGEMENTS,
    NOISE,
    REGRESSION,
    SUSPECT,
    Example,
    Finding,
    LatencyRow,
)
from replay.report import words
from replay.report.dossier import Asking, Dossier
from replay.report.exchange import Row

PLACE, _PEEK, TEXT, _CURL = 160, 120, 400, 1500
"""Characters that are shown of an endpoint or path, a value at a glance, a text, a command."""

KIND_WORDS: Mapping[str, str] = {
    "error": "no answer on one side",
    "status": "another status code",
    "missing": "gone in the new build",
    "extra": "only in the new build",
    "type": "another type",
    "order": "another order",
    "value": "another value",
    "unexplained": "different, too large to say where",
    "slower": "takes longer",
}
GROUP_WORDS = {
    REGRESSION: ("Regressions", "The new build does this, and the old one does not."),
    SUSPECT: ("Suspects", "Different, but in too few exchanges to tell. More traffic would decide."),
    ACCEPTED: ("Accepted", "Somebody has accepted this until a day, and said why."),
    NOISE: ("Noise", "The old build differs from itself here as well."),
}

Segment = tuple[str, bool]
"""A piece of text, and whether it is what changed."""


@dataclass(frozen=True, slots=True)
class ContextRow:
    """A line of the old answer and of the new one, in pieces; `None` where a side has no such line."""

    old: tuple[Segment, ...] | None
    new: tuple[Segment, ...] | None
    differs: bool


@dataclass(frozen=True, slots=True)
class ExampleView:
    """One exchange: where, both values in pieces, and the command that shows it."""

    path: str
    old: tuple[Segment, ...]
    new: tuple[Segment, ...]
    command: str


@dataclass(frozen=True, slots=True)
class Card:
    """One finding, or one endpoint that grew slower. `bar` is the share of its exchanges, 0 to 1.

    `ids` are what `replay accept` takes; `peek` the beginnings of both values.
    """

    anchor: str
    ids: tuple[str, ...]
    judgement: str
    kind: str
    says: str
    endpoint: str
    path: str
    bar: float
    share: str
    evidence: str
    peek: tuple[tuple[Segment, ...], tuple[Segment, ...]] | None
    examples: tuple[ExampleView, ...]
    context: tuple[ContextRow, ...] = ()
    asking: Asking | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """The cards of one judgement; `count` tells how many, those that are slower apart."""

    judgement: str
    title: str
    says: str
    count: str
    cards: tuple[Markup, ...]


def ranked(dossier: Dossier) -> list[Card]:
    """By judgement, regressions first; in each what differs, then what grew slower."""
    found = [_card(finding, dossier) for finding in dossier.report.findings]
    slow = [row for row in dossier.report.latency if row.judgement != NOISE]
    found += [
        _slow_card(list(rows)) for _, rows in groupby(slow, key=lambda row: (row.judgement, row.endpoint))
    ]
    cards = sorted(found, key=lambda card: JUDGEMENTS.index(card.judgement))
    anchors: Counter[str] = Counter()
    for place, card in enumerate(cards):
        anchors[card.anchor] += 1
        if anchors[card.anchor] > 1:
            cards[place] = replace(card, anchor=f"{card.anchor}--{anchors[card.anchor]}")
    return cards


def groups(shown: Iterable[tuple[Card, Markup]]) -> list[Group]:
    """Cards by judgement, in the order they came in."""
    made = []
    for judgement, members in groupby(shown, key=lambda pair: pair[0].judgement):
        found = list(members)
        slower = sum(card.kind == "slower" for card, _ in found)
        count = " and ".join(
            part for part in (f"{len(found) - slower:,}", slower and f"{slower:,} slower") if part
        )
        made.append(Group(judgement, *GROUP_WORDS[judgement], count, tuple(markup for _, markup in found)))
    return made


def _card(finding: Finding, dossier: Dossier) -> Card:
    first = finding.examples[0] if finding.examples else None
    return Card(
        anchor=f"f-{finding.id}",
        ids=(finding.id,),
        judgement=finding.judgement,
        kind=finding.kind,
        says=KIND_WORDS[finding.kind],
        endpoint=cut(finding.endpoint, PLACE),
        path=cut(finding.path, PLACE),
        bar=finding.share,
        share=f"{words.percent(finding.differing, finding.pairs)} of {finding.pairs:,}",
        evidence=" · ".join(_evidence(finding)),
        peek=marked(cut(first.left, _PEEK), cut(first.right, _PEEK)) if first else None,
        examples=tuple(_example(example, dossier) for example in finding.examples),
        context=tuple(_context(row) for row in dossier.contexts.get(finding.id, ())),
        asking=_asking(dossier.requests.get(first.exchange_id)) if first else None,
    )


def _evidence(finding: Finding) -> Iterator[str]:
    yield f"{finding.differing:,} of {finding.pairs:,} exchanges"
    if finding.sessions:
        yield f"{finding.sessions:,}{'+' if finding.sessions >= 64 else ''} sessions"
    if finding.control_pairs:
        yield f"old against old: {words.noise(finding)}"
    if finding.q_value is not None:
        yield f"q = {finding.q_value:.2g}"
    if finding.reason:
        yield finding.reason


def _example(example: Example, dossier: Dossier) -> ExampleView:
    old, new = marked(cut(example.left, TEXT), cut(example.right, TEXT))
    return ExampleView(cut(example.path, PLACE), old, new, show_command(example, dossier.paths))


def _asking(asking: Asking | None) -> Asking | None:
    if asking is None:
        return None
    return Asking(cut(asking.line, TEXT), asking.curl if len(asking.curl) <= _CURL else "")


def show_command(example: Example, runs: Sequence[str]) -> str:
    """`replay show ID RUN...`, ready for a shell."""
    lap = ["--lap", str(example.lap)] if example.lap else []
    return shlex.join(["replay", "show", example.exchange_id, *runs, *lap])


def _context(row: Row) -> ContextRow:
    old, new, differs = row
    texts = [None if line is None else cut(line.text, TEXT) for line in (old, new)]
    if differs and texts[0] is not None and texts[1] is not None:
        return ContextRow(*marked(texts[0], texts[1]), differs)
    sides = [None if text is None else ((text, False),) for text in texts]
    return ContextRow(sides[0], sides[1], differs)


def marked(old: str, new: str) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    """Both texts in pieces, what lies between their common beginning and end marked, by whole words."""
    left, right = _WORDS.findall(old), _WORDS.findall(new)
    head = _common(left, right)
    tail = _common(left[head:][::-1], right[head:][::-1])
    return _pieces(left, head, tail), _pieces(right, head, tail)


_WORDS = re.compile(r"[\w.+-]+|\s+|.", re.DOTALL)


def _common(left: Sequence[str], right: Sequence[str]) -> int:
    """How many items both begin with."""
    short = min(len(left), len(right))
    return next((place for place in range(short) if left[place] != right[place]), short)


def _pieces(tokens: Sequence[str], head: int, tail: int) -> tuple[Segment, ...]:
    end = len(tokens) - tail
    pieces = ((tokens[:head], False), (tokens[head:end], True), (tokens[end:], False))
    return tuple(("".join(piece), changed) for piece, changed in pieces if piece)


def _slow_card(rows: Sequence[LatencyRow]) -> Card:
    worst = max(rows, key=lambda row: row.ratio)
    others = [f"{row.path} {words.ratio(row)}" for row in rows if row is not worst]
    times = marked(words.milliseconds(worst.baseline_ms), words.milliseconds(worst.candidate_ms))
    noise = [f"old against old: {worst.noise_ratio:.3g}x"] if worst.noise_ratio else []
    return Card(
        anchor=f"f-{worst.id}",
        ids=tuple(row.id if len(rows) == 1 else f"{row.id} ({row.path})" for row in rows),
        judgement=worst.judgement,
        kind="slower",
        says=KIND_WORDS["slower"],
        endpoint=cut(worst.endpoint, PLACE),
        path=f"time to answer, {worst.path}",
        bar=1.0,
        share=f"{worst.ratio:.3g}× slower",
        evidence=" · ".join(
            [f"{worst.pairs:,} exchanges", f"ratio {words.ratio(worst)}", *others, *noise, worst.reason]
        ),
        peek=times,
        examples=(ExampleView(worst.path, *times, ""),),
    )


def cut(text: str, limit: int) -> str:
    """At most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
