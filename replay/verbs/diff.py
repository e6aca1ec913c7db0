"""replay diff: two or three runs in, one report out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from replay.diff.answers import Answer
from replay.diff.pairs import join
from replay.diff.session import Comparison
from replay.diff.settings import DiffSettings
from replay.findings import Report
from replay.report.overview import left_out
from replay.store.reader import Dataset, to_rows

_COLUMNS = Answer._fields
_ORDER = ("exchange_id", "lap")


def diff_runs(
    baseline: Path, candidate: Path, control: Path | None = None, settings: DiffSettings | None = None
) -> Report:
    """Compare the candidate's run with the baseline's, the control's telling what is noise.

    `InputError` where a directory is no run.
    """
    runs = [Dataset.open(path, "run") for path in (baseline, candidate, *([control] if control else []))]
    comparison = Comparison(settings or DiffSettings(), has_control=control is not None)
    for trio in join(*(answers(run) for run in runs)):
        comparison.add(trio)
    report = comparison.report(str(baseline), str(candidate), str(control) if control else None)
    notes = dict.fromkeys(told for run in runs if (told := left_out(run.meta)))
    return replace(report, notes=(*notes, *report.notes))


def answers(run: Dataset) -> Iterator[Answer]:
    """The rows of a run as the differ takes them, by exchange and lap."""
    for batch in run.batches(columns=_COLUMNS, order_by=_ORDER):
        yield from map(Answer._make, to_rows(batch))
