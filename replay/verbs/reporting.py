"""`replay report`: everything there is to say of two or three runs, read anew from disk, in any form.

Runs are read by columns, bodies only for the comparison itself and for the few examples that are shown.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from replay import __version__
from replay.diff.answers import Answer, Comparer
from replay.diff.latency import SAMPLE, interval, value_at
from replay.diff.pairs import join
from replay.diff.paths import erase
from replay.diff.settings import DiffSettings
from replay.errors import UsageError
from replay.findings import NOISE, Example, Fidelity, Finding, Report
from replay.report import annotations as github
from replay.report import json_, junit, markdown, openmetrics
from replay.report.dossier import (
    ALL,
    BASELINE,
    CANDIDATE,
    CONTROL,
    Asking,
    Dossier,
    DriftRow,
    ErrorRow,
    LatencyCurve,
    MixRow,
    Percentile,
    RunFacts,
)
from replay.report.exchange import Answered, Line, Row, curl, rows_of
from replay.report.fidelity import FidelityLimits
from replay.report.gate import invalidated
from replay.store import metadata
from replay.store.reader import Dataset, to_rows
from replay.store.remote import address_of, readable
from replay.verbs.diff import answers, diff_runs
from replay.verbs.fidelity import fidelities_of
from replay.verbs.showing import asked_of, captured_from, shown_answer

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
_LEVEL = 0.05
"""Error of the intervals around the drawn percentiles."""

_DRIFT_PAIRS = 20_000
_MAX_CONTEXTS = 200
_MAX_REQUESTS = 1000
_CONTEXT_LINES = 3
_STATUS_LINES = 6
_SHAPES = frozenset(("type", "missing", "extra"))

RENDERERS: Mapping[str, Callable[[Dossier], str]] = {
    "json": lambda dossier: json_.render(dossier.report, dossier),
    "junit": junit.render,
    "markdown": markdown.render,
    "openmetrics": openmetrics.render,
    "annotations": github.render,
}
"""Name of a form → its renderer."""

FILES = {
    "html": "report.html",
    "json": "report.json",
    "junit": "junit.xml",
    "markdown": "report.md",
    "openmetrics": "metrics.txt",
}
"""The forms that are kept as files, and the names they get in an output directory."""


def renderer(form: str) -> Callable[[Dossier], str]:
    """The renderer of a form; HTML brings its templates along only when asked for."""
    if form == "html":
        from replay.report.html import render

        return render
    return RENDERERS[form]


def files_for(forms: Sequence[str], directory: Path) -> dict[str, Path]:
    """Form → file in `directory`; `UsageError` for a form that is none."""
    for form in forms:
        if form not in FILES:
            raise UsageError(f"--form {form!r}: choose of {', '.join(FILES)}")
    return {form: directory / FILES[form] for form in forms}


def sides_of(runs: Sequence[Path]) -> tuple[Path, Path, Path | None]:
    """Baseline, candidate and control of two or three runs as they are named on a command line."""
    if len(runs) not in (2, 3):
        raise UsageError("name two runs or three: BASELINE CANDIDATE [CONTROL]")
    return runs[0], runs[1], runs[2] if len(runs) == 3 else None


def write_reports(dossier: Dossier, files: Mapping[str, Path]) -> None:
    """Render each form into its file (see `put`)."""
    for form, path in files.items():
        put(renderer(form)(dossier), path)


def put(text: str, path: Path) -> None:
    """Write a rendered text to a file, or `-`: to standard output. `UsageError` where that cannot be."""
    if str(path) == "-":
        sys.stdout.write(text)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def dossier_of(
    baseline: Path,
    candidate: Path,
    control: Path | None = None,
    settings: DiffSettings | None = None,
    *,
    title: str = "Replay report",
    limits: FidelityLimits | None = None,
) -> Dossier:
    """Compare the runs, and gather everything around the comparison. `InputError` where one is no run."""
    fidelities = fidelities_of({BASELINE: baseline, CONTROL: control, CANDIDATE: candidate}, limits)
    report = invalidated(diff_runs(baseline, candidate, control, settings), fidelities.items())
    return around(report, settings, title=title, fidelities=fidelities)


def around(
    report: Report,
    settings: DiffSettings | None = None,
    *,
    title: str = "Replay report",
    fidelities: Mapping[str, Fidelity] | None = None,
) -> Dossier:
    """A report with what the runs it names have to say besides; `fidelities` by role, as far as measured."""
    settings = settings or DiffSettings()
    runs = {BASELINE: report.baseline, CONTROL: report.control, CANDIDATE: report.candidate}
    sides = {role: Dataset.open(readable(path)) for role, path in runs.items() if path is not None}
    datasets = {role: side for role, side in sides.items() if side.kind == "run"}
    measured = fidelities or {}
    capture = captured_from(datasets[BASELINE]) if BASELINE in datasets else sides[BASELINE]
    facts = tuple(_facts(role, run, measured.get(role)) for role, run in datasets.items())
    curves, errors = _times_and_errors(datasets)
    return Dossier(
        report=report,
        title=title,
        made_at=metadata.now(),
        tool=f"staging-replay {__version__}",
        capture=address_of(capture.path) if capture else None,
        seconds=sum(fact.seconds for fact in facts),
        runs=facts,
        curves=curves,
        errors=errors,
        mix=_mix(capture, datasets),
        drift=_drift(capture, datasets[BASELINE], settings) if capture and BASELINE in datasets else (),
        requests=_requests(report, capture, datasets[CANDIDATE]),
        contexts=_contexts(report, sides),
    )


def _facts(role: str, run: Dataset, fidelity: Fidelity | None) -> RunFacts:
    books, meta = run.meta.get("books") or {}, run.meta
    return RunFacts(
        role=role,
        path=str(run.path),
        target=str(meta["source"].get("target") or ""),
        started_at=str(meta["started_at"]),
        seconds=_seconds(meta),
        planned=books.get("planned", 0),
        sent=books.get("sent", 0),
        answered=books.get("answered", 0),
        failed=books.get("failed", {}),
        skipped=books.get("skipped", {}),
        statuses=books.get("statuses", {}),
        fidelity=fidelity,
    )


def _seconds(meta: Mapping[str, Any]) -> float:
    try:
        began, ended = (datetime.fromisoformat(meta[key]) for key in ("started_at", "ended_at"))
    except (TypeError, ValueError):
        return 0.0
    return (ended - began).total_seconds()


# --- times and errors ------------------------------------------------------------------------------


def _times_and_errors(
    runs: Mapping[str, Dataset],
) -> tuple[tuple[LatencyCurve, ...], tuple[ErrorRow, ...]]:
    curves: list[LatencyCurve] = []
    errors: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for role, run in runs.items():
        times: dict[str, _Sample] = defaultdict(_Sample)
        for batch in run.batches(("endpoint", "status", "error", "duration_ns")):
            for endpoint, status, error, duration in to_rows(batch):
                if error is not None:
                    errors[endpoint, error][role] += 1
                elif status is not None and status >= 500:
                    errors[endpoint, str(status)][role] += 1
                if error is None and duration is not None and status is not None and status < 500:
                    times[endpoint].add(duration)
                    times[ALL].add(duration)
        curves += [_curve(endpoint, role, sample) for endpoint, sample in sorted(times.items())]
    rows = tuple(
        ErrorRow(endpoint, kind, dict(counts)) for (endpoint, kind), counts in sorted(errors.items())
    )
    return tuple(curves), rows


def _mix(capture: Dataset | None, runs: Mapping[str, Dataset]) -> tuple[MixRow, ...]:
    captured = _counts(capture.batches(("endpoint",))) if capture else None
    sent = {role: _counts(_sent(run)) for role, run in runs.items()}
    names = sorted(set().union(captured or (), *sent.values()))
    return tuple(
        MixRow(
            name,
            None if captured is None else captured[name],
            {role: counts[name] for role, counts in sent.items()},
        )
        for name in names
    )


def _sent(run: Dataset) -> Iterator[pa.RecordBatch]:
    for batch in run.batches(("endpoint", "sent_ns")):
        yield batch.filter(pc.is_valid(batch["sent_ns"]))


def _counts(batches: Iterable[pa.RecordBatch]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for batch in batches:
        for item in pc.value_counts(batch["endpoint"]).to_pylist():
            counts[item["values"]] += item["counts"]
    return counts


class _Sample:
    """A bounded, even sample of times: when it is full, every other one goes and half as many come in."""

    def __init__(self) -> None:
        self.count = 0
        self.kept: list[int] = []
        self._step = 1

    def add(self, value: int) -> None:
        if self.count % self._step == 0:
            self.kept.append(value)
            if len(self.kept) >= 4 * SAMPLE:
                del self.kept[1::2]
                self._step *= 2
        self.count += 1


def _curve(endpoint: str, role: str, sample: _Sample) -> LatencyCurve:
    ordered = sorted(value / 1e6 for value in sample.kept)
    points = []
    for quantile in QUANTILES:
        low, high = interval(ordered, quantile, _LEVEL)
        points.append(Percentile(quantile, value_at(ordered, quantile), low, high))
    return LatencyCurve(endpoint, role, sample.count, tuple(points))


# --- staging against production --------------------------------------------------------------------


class _Drift:
    """One endpoint's sums."""

    def __init__(self) -> None:
        self.sizes = [0, 0]
        self.times: tuple[list[int], list[int]] = ([], [])
        self.pairs = 0
        self.status = 0
        self.statuses: Counter[str] = Counter()
        self.shape = 0
        self.paths: Counter[str] = Counter()
        self.example: str | None = None

    def rank(self, path: str) -> tuple[bool, int, str]:
        """Fields before headers (a balancer in front of production adds some), then the most frequent."""
        return path.startswith("headers."), -self.paths[path], path


def _drift(capture: Dataset, baseline: Dataset, settings: DiffSettings) -> tuple[DriftRow, ...]:
    """The baseline's answers against the captured ones, by endpoint.

    Values are others by nature (secrets are pseudonyms, time has passed): what counts is whether staging
    answers with the same status, the same fields of the same types, and about as much as fast.
    """
    comparer = Comparer(settings.compare)
    sums: dict[str, _Drift] = defaultdict(_Drift)
    first_lap = (answer for answer in answers(baseline) if answer.lap == 0)
    for old, new, _ in islice(join(answers(capture), first_lap), _DRIFT_PAIRS):
        if old is None or new is None or new.skipped is not None or old.error is not None:
            continue
        _add_drift(sums[old.endpoint], old, new, comparer)
    rows = [_drift_row(endpoint, found) for endpoint, found in sums.items()]
    return tuple(sorted(rows, key=lambda row: (-(row.status + row.shape) / row.pairs, row.endpoint)))


def _add_drift(found: _Drift, old: Answer, new: Answer, comparer: Comparer) -> None:
    found.pairs += 1
    if old.status != new.status:
        found.status += 1
        found.statuses[f"{old.status} → {new.status or new.error}"] += 1
        found.example = found.example or old.exchange_id
        return
    found.sizes[0] += old.response_size
    found.sizes[1] += new.response_size
    for times, answer in zip(found.times, (old, new), strict=True):
        if answer.duration_ns is not None:
            times.append(answer.duration_ns)
    shapes = {
        f"{erase(found_here.path)} {found_here.kind}"
        for found_here in comparer.differences(old, new)
        if found_here.kind in _SHAPES
    }
    if shapes:
        found.shape += 1
        found.paths.update(shapes)
        found.example = found.example or old.exchange_id


def _drift_row(endpoint: str, found: _Drift) -> DriftRow:
    alike = max(1, found.pairs - found.status)
    return DriftRow(
        endpoint=endpoint,
        pairs=found.pairs,
        status=found.status,
        shape=found.shape,
        captured_bytes=found.sizes[0] / alike,
        staged_bytes=found.sizes[1] / alike,
        captured_ms=_median_ms(found.times[0]),
        staged_ms=_median_ms(found.times[1]),
        statuses=", ".join(f"{change} ×{count}" for change, count in found.statuses.most_common(3)),
        paths=tuple(sorted(found.paths, key=found.rank)[:4]),
        example=found.example,
    )


def _median_ms(times: list[int]) -> float | None:
    return value_at(sorted(times), 0.5) / 1e6 if times else None


# --- examples --------------------------------------------------------------------------------------


def _rows_by_id(dataset: Dataset, ids: Iterable[str]) -> dict[str, Any]:
    """Whole rows of a few exchanges (of a run: the first lap's)."""
    wanted = pa.array(sorted(set(ids)), type=pa.string())
    if not len(wanted):
        return {}
    where = ds.field("exchange_id").isin(wanted)
    if dataset.kind == "run":
        where &= pc.equal(ds.field("lap"), 0)
    files = dataset.files()
    from replay.model import Exchange, Result

    noun: Callable[..., Any] = Exchange if dataset.kind == "capture" else Result
    rows = (noun(*values) for batch in files.to_batches(filter=where) for values in to_rows(batch))
    return {row.exchange_id: row for row in rows}


def _shown_first(report: Report) -> list[Finding]:
    return [finding for finding in report.findings if finding.judgement != NOISE]


def _requests(report: Report, capture: Dataset | None, candidate: Dataset) -> dict[str, Asking]:
    """The request of each finding's first example, as a line and as a command."""
    if capture is None:
        return {}
    ids = [finding.examples[0].exchange_id for finding in report.findings if finding.examples]
    target = str(candidate.meta["source"].get("target") or "http://localhost")
    base = target if "//" in target else f"http://{target}"
    found = {}
    for exchange_id, exchange in _rows_by_id(capture, ids[:_MAX_REQUESTS]).items():
        asked = asked_of(exchange, ())
        if asked is not None:
            line = curl(asked, base)
            found[exchange_id] = Asking(asked.head[0][:400], line if len(line) <= 1500 else "")
    return found


def _contexts(report: Report, runs: Mapping[str, Dataset]) -> dict[str, tuple[Row, ...]]:
    """Lines around the change in the first example of each finding that is not noise."""
    findings = [
        finding for finding in _shown_first(report) if finding.examples and finding.examples[0].lap == 0
    ]
    findings = findings[:_MAX_CONTEXTS]
    ids = [finding.examples[0].exchange_id for finding in findings]
    old, new = _rows_by_id(runs[BASELINE], ids), _rows_by_id(runs[CANDIDATE], ids)
    contexts = {}
    for finding in findings:
        example = finding.examples[0]
        if example.exchange_id in old and example.exchange_id in new:
            left, right = (shown_answer(side[example.exchange_id]) for side in (old, new))
            contexts[finding.id] = _context(example, left, right)
    return {finding_id: rows for finding_id, rows in contexts.items() if rows}


def _context(example: Example, left: Answered, right: Answered) -> tuple[Row, ...]:
    if example.path != "status":
        return _window(tuple(rows_of(left, right, (example.path,))))
    # Why the status is another is mostly in how the body begins.
    beginnings = zip_longest(left.body[:_STATUS_LINES], right.body[:_STATUS_LINES])
    return (
        (Line(example.left, "status"), Line(example.right, "status"), True),
        *((old, new, old is None or new is None or old.text != new.text) for old, new in beginnings),
    )


def _window(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The first change with a few lines around it."""
    places = [place for place, row in enumerate(rows) if row[2]]
    if not places:
        return ()
    first = places[0]
    last = first
    while last + 1 in places and last - first < 2 * _CONTEXT_LINES:
        last += 1
    return tuple(rows[max(0, first - _CONTEXT_LINES) : last + 1 + _CONTEXT_LINES])
