"""replay diff: two or three runs in, one report out. The baseline may be a capture: what production answered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from replay.diff.answers import Answer
from replay.diff.settings import DiffSettings
from replay.findings import Report
from replay.report.overview import left_out
from replay.store.reader import Dataset
from replay.verbs.partitions import Source, compare_all


def diff_runs(
    baseline: Path,
    candidate: Path,
    control: Path | None = None,
    settings: DiffSettings | None = None,
    jobs: int | None = None,
) -> Report:
    """Compare the candidate's run with the baseline's, the control's telling what is noise.

    `jobs` processes share the work (`None`: two, where there is enough to do); the report does
    not depend on it. `InputError` where a directory is no run.
    """
    runs = [Dataset.open(path, "run") for path in (candidate, *([control] if control else []))]
    sides = [Dataset.open(baseline), *runs]
    comparison = compare_all(
        [Source(side.path, side.kind) for side in sides], settings or DiffSettings(), jobs
    )
    report = comparison.report(str(baseline), str(candidate), str(control) if control else None)
    notes = dict.fromkeys(told for run in sides if run.kind == "run" and (told := left_out(run.meta)))
    return replace(report, notes=(*notes, *report.notes))


def answers(run: Dataset) -> Iterator[Answer]:
    """The rows of a run, or of a capture, as the differ takes them: by exchange and lap."""
    return Source(run.path, run.kind).answers()
