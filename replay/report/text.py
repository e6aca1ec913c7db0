"""The report for a terminal: the verdict and its reason first, then what to look at, the worst first."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from itertools import pairwise

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from replay.findings import (
    ACCEPTED,
    FAIL,
    INVALID,
    NOISE,
    PASS,
    REGRESSION,
    SUSPECT,
    Check,
    Fidelity,
    Finding,
    LatencyRow,
    Report,
)
from replay.report import words
from replay.report.dossier import RunFacts
from replay.report.screen import sparkline

NARROW = 100
"""Columns below which findings are written below each other, not side by side."""

MAX_ROWS = 40

_STYLES = {PASS: "bold green", FAIL: "bold red", INVALID: "bold yellow"}
_COLOURS = {REGRESSION: "red", SUSPECT: "yellow", ACCEPTED: "dim", NOISE: "dim"}
_TITLES = {
    REGRESSION: "Regressions",
    SUSPECT: "Suspects: different, but too few to tell",
    ACCEPTED: "Accepted",
    NOISE: "Noise: the old build does it too",
}


def render(
    report: Report,
    width: int = 100,
    color: bool = False,
    runs: Sequence[RunFacts] = (),
    limits: Sequence[Check] = (),
) -> str:
    """The report as text, at most `width` columns wide; with terminal colours only where `color` says so.

    `runs` are told of where they are known: the load of each, and how faithful it was; so are `limits`.
    """
    out = io.StringIO()
    console = Console(
        file=out,
        width=max(20, width),
        force_terminal=color,
        no_color=not color,
        color_system="standard" if color else None,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
        _environ={},
    )
    console.print(Group(*_parts(report, width, runs, limits)))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _parts(
    report: Report, width: int, runs: Sequence[RunFacts], limits: Sequence[Check]
) -> Iterable[RenderableType]:
    yield _verdict(report)
    yield Text(words.alike(report))
    for note in report.notes:
        yield Text(f"note: {words.clean(note)}", style="yellow")
    for judgement in (REGRESSION, SUSPECT):
        yield from _findings(report.judged(judgement), judgement, width)
    yield from _latency(report.latency, width)
    yield from _limits(limits)
    yield from _load(runs, width)
    yield from _accepted(report)
    yield from _noise(report.judged(NOISE))
    yield from _books(report)


def _verdict(report: Report) -> Text:
    line = Text(report.verdict.upper(), style=_STYLES[report.verdict])
    line.append("  " + "; ".join(map(words.clean, report.reasons)), style="default")
    suspects = len(report.judged(SUSPECT))
    if suspects and report.verdict != INVALID:
        line.append(f" ({suspects:,} more {'is' if suspects == 1 else 'are'} suspect)", style="default")
    return line


def _findings(findings: Sequence[Finding], judgement: str, width: int) -> Iterable[RenderableType]:
    if not findings:
        return
    yield Text(f"\n{_TITLES[judgement]} ({len(findings):,})", style=f"bold {_COLOURS[judgement]}")
    shown = findings[:MAX_ROWS]
    yield _stacked(shown) if width < NARROW else _table(shown, width)
    if len(findings) > len(shown):
        yield Text(f"  and {len(findings) - len(shown):,} more: --json lists all", style="dim")


def _table(findings: Sequence[Finding], width: int) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, expand=True, show_edge=False)
    table.add_column("id", no_wrap=True)
    table.add_column("endpoint", ratio=5, overflow="fold")
    table.add_column("where", ratio=5, overflow="fold")
    table.add_column("kind", no_wrap=True)
    table.add_column("share", no_wrap=True, justify="right")
    table.add_column("noise", no_wrap=True, justify="right")
    table.add_column("old → new", ratio=5, overflow="fold")
    for finding in findings:
        table.add_row(
            Text(finding.id, style="dim"),
            Text(words.clean(finding.endpoint)),
            Text(words.clean(finding.path)),
            Text(finding.kind),
            Text(words.share(finding.differing, finding.pairs)),
            Text(words.noise(finding)),
            _example(finding, 120, with_id=width >= 120),
        )
    return table


def _stacked(findings: Sequence[Finding]) -> Group:
    rows: list[RenderableType] = []
    for finding in findings:
        head = f"{finding.kind} at {words.clean(finding.path)} on {words.clean(finding.endpoint)}"
        share = words.share(finding.differing, finding.pairs)
        measure = f"{finding.id}: {share}, noise {words.noise(finding)}: {finding.reason}"
        rows += [Text(head), Padding(Text(measure, style="dim"), (0, 0, 0, 2))]
        rows.append(Padding(_example(finding, 200), (0, 0, 0, 2)))
    return Group(*rows)


def _example(finding: Finding, width: int, with_id: bool = True) -> Text:
    if not finding.examples:
        return Text("")
    example = finding.examples[0]
    half = width // 2
    text = Text(_cut(example.left, half), style="green")
    text.append(" → ", style="default")
    text.append(_cut(example.right, half), style="red")
    if with_id:
        text.append(f"\n{example.exchange_id}", style="dim")
    return text


def _cut(text: str, width: int) -> str:
    text = words.clean(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def _latency(rows: Sequence[LatencyRow], width: int) -> Iterable[RenderableType]:
    if not rows:
        return
    loud = [row for row in rows if row.judgement in (REGRESSION, SUSPECT)]
    calm = len(rows) - len(loud)
    shown = loud if loud or len(rows) > 12 else list(rows)
    yield Text("\nTime to answer", style="bold")
    if shown:
        yield _latency_table(shown[:MAX_ROWS], width)
    if shown is loud and calm:
        endpoints = len({row.endpoint for row in rows} - {row.endpoint for row in loud})
        others = "1 other endpoint" if endpoints == 1 else f"{endpoints:,} other endpoints"
        yield Text(f"  {others} within tolerance" if loud else "  all within tolerance")


def _latency_table(rows: Sequence[LatencyRow], width: int) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=width >= NARROW)
    table.add_column("endpoint", overflow="fold", ratio=4 if width >= NARROW else None)
    table.add_column("at", no_wrap=True)
    table.add_column("old → new", justify="right", overflow="fold")
    table.add_column("ratio", justify="right", overflow="fold")
    if width >= NARROW:
        table.add_column("old/old", justify="right", no_wrap=True)
        table.add_column("judgement", overflow="fold", ratio=5)
    for row in rows:
        cells = [
            Text(words.clean(row.endpoint)),
            Text(f"p{100 * row.quantile:g}"),
            Text(f"{words.milliseconds(row.baseline_ms)} → {words.milliseconds(row.candidate_ms)}"),
            Text(words.ratio(row), style=_COLOURS[row.judgement]),
        ]
        if width >= NARROW:
            again = "?" if row.noise_ratio is None else f"{row.noise_ratio:.3g}x"
            cells += [Text(again), Text(_why(row), style=_COLOURS[row.judgement])]
        table.add_row(*cells)
    return table


def _why(row: LatencyRow) -> str:
    return row.reason if row.judgement == NOISE else f"{row.reason} ({row.id})"


def _limits(limits: Sequence[Check]) -> Iterable[RenderableType]:
    if not limits:
        return
    yield Text("\nLimits", style="bold")
    for check in limits:
        found, limit = words.measure(check.value, check.unit), words.measure(check.limit, check.unit)
        text = f"{' ' if check.held else '✗'} {words.clean(check.name)}: {found}, at most {limit}"
        yield Text(text, style="" if check.held else "red")


def _load(runs: Sequence[RunFacts], width: int) -> Iterable[RenderableType]:
    """What each run sent, when, and whether that was faithful."""
    if not runs:
        return
    yield Text("\nLoad", style="bold")
    for run in runs:
        failed, skipped = sum(run.failed.values()), sum(run.skipped.values())
        line = f"  {run.role}: {run.sent:,} sent, {run.answered:,} answered"
        line += f", {failed:,} failed ({words.counted(run.failed)})" if failed else ""
        line += f", {skipped:,} skipped ({words.counted(run.skipped)})" if skipped else ""
        text = Text(line)
        if run.fidelity is not None:
            text.append(
                "; faithful" if run.fidelity.faithful else "; NOT FAITHFUL", style=_faith(run.fidelity)
            )
        yield text
        curve = [sent for _, _, sent in run.fidelity.curve] if run.fidelity else []
        if len(curve) > 1:
            peak = max(curve)
            yield Text(f"    {sparkline(_fitted(curve, max(4, min(60, width - 20))))} up to {peak:,.0f}/s")


def _faith(fidelity: Fidelity) -> str:
    return "green" if fidelity.faithful else "bold red"


def _fitted(values: Sequence[float], columns: int) -> list[float]:
    """At most so many values: the mean of each stretch of the whole."""
    if len(values) <= columns:
        return list(values)
    edges = [place * len(values) // columns for place in range(columns + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


def _accepted(report: Report) -> Iterable[RenderableType]:
    """A line each: what a person has accepted, until when and why."""
    accepted = [(f.id, f.endpoint, f.path, f.kind, f.reason) for f in report.judged(ACCEPTED)]
    accepted += [
        (row.id, row.endpoint, row.path, "slower", row.reason)
        for row in report.latency
        if row.judgement == ACCEPTED
    ]
    if accepted:
        yield Text(f"\n{_TITLES[ACCEPTED]} ({len(accepted):,})", style="bold dim")
    for identity, endpoint, path, kind, reason in accepted[:MAX_ROWS]:
        yield Text(f"  {identity} {words.clean(f'{endpoint}: {path} {kind}, {reason}')}", style="dim")
    if len(accepted) > MAX_ROWS:
        yield Text(f"  and {len(accepted) - MAX_ROWS:,} more: --json lists all", style="dim")


def _noise(findings: Sequence[Finding]) -> Iterable[RenderableType]:
    """One line for each endpoint: noise is listed, so that nothing is hidden, and takes little room."""
    if not findings:
        return
    yield Text(f"\n{_TITLES[NOISE]} ({len(findings):,})", style="bold dim")
    by_endpoint: dict[str, list[str]] = {}
    for finding in findings:
        place = f"{finding.path} {finding.kind} {words.percent(finding.differing, finding.pairs)}"
        by_endpoint.setdefault(finding.endpoint, []).append(f"{place} (old build {words.noise(finding)})")
    for endpoint, places in list(by_endpoint.items())[:MAX_ROWS]:
        yield Text(f"  {words.clean(endpoint)}: {words.clean(', '.join(places[:6]))}", style="dim")
    if len(by_endpoint) > MAX_ROWS:
        yield Text(f"  and {len(by_endpoint) - MAX_ROWS:,} endpoints more: --json lists all", style="dim")


def _books(report: Report) -> Iterable[RenderableType]:
    yield Text("\nBooks", style="bold")
    yield Text("  " + words.books("candidate", report.book))
    if report.control_book is not None:
        yield Text("  " + words.books("control", report.control_book))
    for use in report.rules:
        never = not use.matched
        text = "never matched: is it still needed?" if never else f"{use.matched:,} taken away"
        yield Text(f"  rule {words.clean(use.rule)}: {text}", style="yellow" if never else "")
    for name, path in words.sides(report).items():
        yield Text(f"  {name}: {path}", style="dim")
    loud = (finding for finding in report.findings if finding.judgement != NOISE)
    shown = next((finding.examples[0] for finding in loud if finding.examples), None)
    if shown is not None:
        yield Text(
            f"\nSee one side by side: replay show {shown.exchange_id} {' '.join(words.sides(report).values())}"
        )
