"""What the page shows, as plain values in the order in which a reader wants them; templates only lay it out."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from replay.findings import (
    ACCEPTED,
    FAIL,
    INVALID,
    JUDGEMENTS,
    NOISE,
    PASS,
    REGRESSION,
    Check,
    Fidelity,
    LatencyRow,
)
from replay.report import words
from replay.report.dossier import ALL, BASELINE, CANDIDATE, Dossier, DriftRow, LatencyCurve, RunFacts
from replay.report.fidelity import shown as measured
from replay.report.html.cards import KIND_WORDS, PLACE, TEXT, Card, cut
from replay.report.screen import size

MAX_ROWS = 150
"""Rows of any table, the ones to look at first; the JSON report has the others."""

MAX_CHARTS, MAX_FIGURES = 24, 60
"""Endpoints whose times are drawn, and those whose times are told."""

_LIKE_SIZE, _LIKE_TIME = 1.25, 2.0
"""Sizes and times up to this many times another are like it; beyond, staging is not like production."""

VERDICT_WORDS = {PASS: "Pass", FAIL: "Fail", INVALID: "Invalid"}


@dataclass(frozen=True, slots=True)
class LatencyView:
    """The times of one endpoint: its curves (old, control, new) and the judged row that says most of it."""

    name: str
    curves: tuple[LatencyCurve, ...]
    row: LatencyRow | None
    charted: bool


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts under headings; `left_out` counts those for which there was no room."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class DriftView:
    """One endpoint, staging against production; `odd` names what is not alike, by column."""

    row: DriftRow
    status: str
    shape: str
    size: str
    time: str
    odd: frozenset[str]
    command: str


@dataclass(frozen=True, slots=True)
class CheckView:
    """One measure of fidelity over the runs: value and whether it held, for each."""

    name: str
    limit: str
    cells: tuple[tuple[str, bool], ...]
    advice: str


@dataclass(frozen=True, slots=True)
class Page:
    """Everything of the page but findings and charts."""

    dossier: Dossier
    verdict: str
    word: str
    why: str
    figures: tuple[tuple[str, str, str], ...]
    meta: tuple[tuple[str, str], ...]
    endpoints: tuple[str, ...]
    kinds: tuple[str, ...]
    checks: tuple[CheckView, ...]
    lag: Table
    mix: Table
    errors: Table
    drift: tuple[DriftView, ...]
    drift_left_out: int
    drift_says: str
    books: Table
    pairs: tuple[str, ...]
    rules: Table


def page(dossier: Dossier, cards: Sequence[Card]) -> Page:
    """All that is not a finding or a chart."""
    report, runs = dossier.report, dossier.runs
    drift = sorted((_drift(row, dossier) for row in dossier.drift), key=lambda view: -len(view.odd))
    return Page(
        dossier=dossier,
        verdict=report.verdict,
        word=VERDICT_WORDS[report.verdict],
        why="; ".join(cut(reason, TEXT) for reason in report.reasons[:8]),
        figures=tuple(_figures(dossier)),
        meta=tuple(_meta(dossier)),
        endpoints=tuple(sorted({card.endpoint for card in cards}))[: 2 * MAX_ROWS],
        kinds=tuple(kind for kind in KIND_WORDS if any(card.kind == kind for card in cards)),
        checks=tuple(_checks(dossier.fidelities())),
        lag=_lag(dossier.fidelities()),
        mix=_mix(dossier),
        errors=_errors(dossier),
        drift=tuple(drift[:MAX_ROWS]),
        drift_left_out=max(0, len(drift) - MAX_ROWS),
        drift_says=_drift_says(drift),
        books=_table(("", *(run.role for run in runs)), list(_books(runs))) if runs else _table((), []),
        pairs=tuple(
            words.books(name, book)
            for name, book in ((CANDIDATE, report.book), ("control", report.control_book))
            if book is not None
        ),
        rules=_table(
            ("rule", "differences taken away"),
            [
                (cut(use.rule, TEXT), f"{use.matched:,}" if use.matched else "matched nothing")
                for use in report.rules
            ],
        ),
    )


def _figures(dossier: Dossier) -> Iterator[tuple[str, str, str]]:
    """Figure, what it counts, and a class: the strip under the verdict."""
    report = dossier.report
    pairs, alike = (sum(getattr(row, name) for row in report.endpoints) for name in ("pairs", "alike"))
    slower = len({row.endpoint for row in report.latency if row.judgement == REGRESSION})
    for judgement in JUDGEMENTS:
        count = len(report.judged(judgement))
        name = judgement if judgement in (ACCEPTED, NOISE) or count == 1 else f"{judgement}s"
        if count or judgement != ACCEPTED:
            yield f"{count:,}", name, judgement if count else ""
        if judgement == REGRESSION and slower:
            yield f"{slower:,}", "slower", REGRESSION
    yield f"{pairs:,}", "exchanges compared", ""
    yield words.percent(alike, pairs), "answered alike", ""
    found = dossier.fidelities()
    if found:
        faithful = sum(fidelity.faithful for _, fidelity in found)
        yield f"{faithful} of {len(found)}", "runs faithful", "" if faithful == len(found) else "regression"


def _meta(dossier: Dossier) -> Iterator[tuple[str, str]]:
    for role, path in words.sides(dossier.report).items():
        target = next((run.target for run in dossier.runs if run.role == role and run.target), "")
        yield role, cut(f"{path} ({target})" if target else path, TEXT)
    if dossier.capture:
        yield "capture", cut(dossier.capture, TEXT)
    if dossier.made_at:
        yield "made", dossier.made_at[:19].replace("T", " ") + " UTC"
    if dossier.seconds:
        yield "took", f"{dossier.seconds:,.0f} s"


def latency(dossier: Dossier) -> list[LatencyView]:
    """Endpoints with times, all together first, then the slowed, then by how much they changed."""
    curves: dict[str, list[LatencyCurve]] = {}
    for curve in dossier.curves:
        curves.setdefault(curve.endpoint, []).append(curve)
    rows: dict[str, list[LatencyRow]] = {}
    for row in dossier.report.latency:
        rows.setdefault(row.endpoint, []).append(row)

    def told(endpoint: str) -> LatencyRow | None:
        return min(
            rows.get(endpoint, ()),
            key=lambda row: (JUDGEMENTS.index(row.judgement), -row.ratio),
            default=None,
        )

    def rank(endpoint: str) -> tuple[bool, int, float, str]:
        row = told(endpoint)
        judged = (JUDGEMENTS.index(row.judgement), -row.ratio) if row else (len(JUDGEMENTS), 0.0)
        return (endpoint != ALL, *judged, endpoint)

    ordered = sorted({*curves, *rows}, key=rank)[:MAX_FIGURES]
    return [
        LatencyView(
            cut(endpoint, PLACE), tuple(curves.get(endpoint, ())), told(endpoint),
            place < MAX_CHARTS,
        )
        for place, endpoint in enumerate(ordered)
    ]  # fmt: skip


def _checks(found: Sequence[tuple[str, Fidelity]]) -> Iterator[CheckView]:
    """Checks by name, a cell for each run."""
    named: dict[str, dict[str, Check]] = {}
    for role, fidelity in found:
        for check in fidelity.checks:
            named.setdefault(check.name, {})[role] = check
    for name, checks in named.items():
        one = next(iter(checks.values()))
        cells = (checks.get(role) for role, _ in found)
        broken = [check for check in checks.values() if not check.held]
        yield CheckView(
            name=name,
            limit="" if one.limit == float("inf") else _figure(one.limit, one.unit),
            cells=tuple(("-", True) if c is None else (_figure(c.value, c.unit), c.held) for c in cells),
            advice=broken[0].advice if broken else "",
        )


def _figure(value: float | None, unit: str) -> str:
    return words.measure(value, unit) if unit == "share" and value is not None else measured(value, unit)


def _lag(found: Sequence[tuple[str, Fidelity]]) -> Table:
    names = list(dict.fromkeys(name for _, fidelity in found for name in fidelity.lag_ns))
    rows = [
        (
            role,
            *(
                words.milliseconds(fidelity.lag_ns[name] / 1e6) if name in fidelity.lag_ns else "-"
                for name in names
            ),
        )
        for role, fidelity in found
        if fidelity.lag_ns
    ]
    return _table(("run", *names), rows)


def _mix(dossier: Dossier) -> Table:
    """Shares of the requests by endpoint: as captured, and as each run sent them."""
    roles = [run.role for run in dossier.runs]
    captured = sum(row.captured or 0 for row in dossier.mix)
    sent = {role: sum(row.sent.get(role, 0) for row in dossier.mix) for role in roles}
    rows = [
        (
            cut(row.endpoint, PLACE),
            words.percent(row.captured or 0, captured),
            *(words.percent(row.sent.get(role, 0), sent[role]) for role in roles),
        )
        for row in sorted(dossier.mix, key=lambda row: (-(row.captured or 0), row.endpoint))
    ]
    return _table(("endpoint", "captured", *roles), rows)


def _errors(dossier: Dossier) -> Table:
    roles = [run.role for run in dossier.runs] or [BASELINE, CANDIDATE]
    rows = sorted(dossier.errors, key=lambda row: -max(row.counts.values(), default=0))
    return _table(
        ("endpoint", "error", *roles),
        [
            (cut(row.endpoint, PLACE), row.kind, *(f"{row.counts.get(role, 0):,}" for role in roles))
            for row in rows
        ],
    )


def _drift(row: DriftRow, dossier: Dossier) -> DriftView:
    odd = {
        "status": row.status > 0,
        "shape": row.shape > 0,
        "size": _unlike(row.captured_bytes, row.staged_bytes, _LIKE_SIZE),
        "time": _unlike(row.captured_ms, row.staged_ms, _LIKE_TIME),
    }
    times = (row.captured_ms, row.staged_ms)
    return DriftView(
        row=row,
        status=words.percent(row.status, row.pairs) if row.status else "alike",
        shape=words.percent(row.shape, row.pairs) if row.shape else "alike",
        size=f"{size(row.captured_bytes)} → {size(row.staged_bytes)}",
        time=" → ".join("-" if ms is None else words.milliseconds(ms) for ms in times),
        odd=frozenset(name for name, found in odd.items() if found),
        command=shlex.join(["replay", "show", row.example, dossier.report.baseline]) if row.example else "",
    )


def _unlike(left: float | None, right: float | None, factor: float) -> bool:
    if not left or not right:
        return bool(left) != bool(right) and left is not None and right is not None
    return not 1 / factor <= right / left <= factor


def _drift_says(drift: Sequence[DriftView]) -> str:
    answers = [view for view in drift if view.odd & {"status", "shape"}]
    others = [view for view in drift if view.odd and view not in answers]
    if not drift:
        return ""
    if not answers and not others:
        return f"Staging answered like production on all {len(drift):,} endpoints."
    told = []
    if answers:
        told.append(f"other statuses or fields on {len(answers):,}")
    if others:
        told.append(f"another size or time on {len(others):,}")
    return f"Where staging is not like production, of {len(drift):,} endpoints: {', and '.join(told)}."


def _books(runs: Sequence[RunFacts]) -> Iterator[tuple[str, ...]]:
    yield ("planned", *(f"{run.planned:,}" for run in runs))
    yield ("= sent", *(f"{run.sent:,}" for run in runs))
    yield ("+ skipped", *(_counted(run.skipped) for run in runs))
    yield ("sent = answered", *(f"{run.answered:,}" for run in runs))
    yield ("+ failed", *(_counted(run.failed) for run in runs))
    yield ("books", *("balance" if _balances(run) else "do NOT balance" for run in runs))
    yield (
        "statuses",
        *(", ".join(f"{s} × {n:,}" for s, n in sorted(run.statuses.items())[:20]) for run in runs),
    )
    yield ("began", *(run.started_at[:19].replace("T", " ") for run in runs))
    yield ("lasted", *(f"{run.seconds:,.1f} s" for run in runs))


def _counted(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    return f"{total:,} ({words.counted(counts)})" if total else "0"


def _balances(run: RunFacts) -> bool:
    skipped, failed = sum(run.skipped.values()), sum(run.failed.values())
    return run.planned == run.sent + skipped and run.sent == run.answered + failed


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    return Table(head, tuple(rows[:MAX_ROWS]), max(0, len(rows) - MAX_ROWS))
