"""replay diff: two or three runs in, one report out. The baseline may be a capture: what production answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from replay.diff.answers import Answer
from replay.diff.settings import DiffSettings
from replay.errors import InputError
from replay.findings import Report
from replay.report.overview import left_out
from replay.store.reader import Dataset
from replay.store.remote import address_of
from replay.store.sealing import redaction_of
from replay.verbs.partitions import Source, compare_all


def diff_runs(
    baseline: Path,
    candidate: Path,
    control: Path | None = None,
    settings: DiffSettings | None = None,
    jobs: int | None = None,
    dask: str | None = None,
) -> Report:
    """Compare the candidate's run with the baseline's, the control's telling what is noise.

    `jobs` processes share the work (`None`: two, where there is enough to do), or
    the Dask cluster at `dask`; the report does
    not depend on it. `InputError` where a directory is no run.
    """
    runs = [Dataset.open(path, "run") for path in (candidate, *([control] if control else []))]
    sides = [Dataset.open(baseline), *runs]
    _check_keys(runs)
    comparison = compare_all(
        [Source(side.path, side.kind) for side in sides], settings or DiffSettings(), jobs, dask
    )
    report = comparison.report(
        address_of(baseline), address_of(candidate), address_of(control) if control else None
    )
    notes = dict.fromkeys(told for run in sides if run.kind == "run" and (told := left_out(run.meta)))
    return replace(report, notes=(*notes, *report.notes))


def _check_keys(runs: Sequence[Dataset]) -> None:
    """`InputError` where equal secrets of two runs became different pseudonyms: all of them would differ."""
    found = {redaction["key"] for run in runs if (redaction := redaction_of(run.meta))}
    if len(found) > 1:
        raise InputError(
            f"the runs were redacted with different keys ({', '.join(sorted(found))}): replay again with the"
            " same $REPLAY_KEY, or the same --key-file"
        )


def answers(run: Dataset) -> Iterator[Answer]:
    """The rows of a run, or of a capture, as the differ takes them: by exchange and lap."""
    return Source(run.path, run.kind).answers()
