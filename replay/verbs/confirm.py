"""`replay confirm`: ask the suspects again, both builds at once, and settle each as reproducible or flaky.

For whoever has a report and both builds still up (the gate has):

    confirm(report, {"baseline": URL, "candidate": URL}, out,
            settings=DiffSettings, running=RunSettings, times=5, capture=None, progress=None) -> Report

`report` is what `diff_runs` made; `out` a directory that is new or empty, where the requests to ask (`capture`)
and the runs (`run-1` and so on) are kept. The report comes back as it is where there is nothing to ask again. What
is asked are the exchanges that show the suspects (`replay.diff.confirm.suspects`), each after all that its session
did before it, so that the builds are in the state they were in. Each asking is a run of its own: no session meets
the one of another asking.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from replay.config import Config, RunSettings
from replay.diff.answers import Answer, Comparer
from replay.diff.confirm import Asked, seen, settle, suspects
from replay.diff.settings import DiffSettings
from replay.errors import InputError, UsageError
from replay.findings import Report
from replay.model import Exchange
from replay.report.dossier import BASELINE, CANDIDATE, CONTROL, Dossier
from replay.report.gate import invalidated
from replay.store.reader import Dataset
from replay.store.remote import readable
from replay.store.writer import DatasetWriter
from replay.verbs.diff import answers, diff_runs
from replay.verbs.fidelity import fidelities_of
from replay.verbs.gate_settings import fidelity_limits
from replay.verbs.reporting import around
from replay.verbs.run import Progress, replay_abreast
from replay.verbs.showing import captured_from

_MS = 1_000_000
_GAP_NS = 2 * _MS
_BETWEEN_SESSIONS_NS = 10 * _MS


def confirm(
    report: Report,
    targets: Mapping[str, str],
    out: Path,
    *,
    settings: DiffSettings,
    running: RunSettings,
    times: int = 5,
    capture: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """The report with its suspects asked again `times` times and judged by that.

    `targets` has the URLs of `baseline` and `candidate`; `running` is how the runs were made (what may be sent,
    headers, rules, timeouts: its pace and workers do not matter). `capture` is where the requests are, if not
    where the baseline had them from. Raises as `replay_abreast` does; `KeyboardInterrupt` when interrupted.
    """
    if sorted(targets) != [BASELINE, CANDIDATE]:
        raise UsageError("confirm needs two targets: --target baseline=URL --target candidate=URL")
    if times < 1:
        raise UsageError(f"--times {times} must be at least 1")
    findings = suspects(report)
    if not findings:
        return report
    source = _capture_of(report, capture)
    wanted = {example.exchange_id for finding in findings for example in finding.examples}
    _write(out / "capture", source, askings(_sessions(source, wanted), wanted))
    pairs: dict[str, list[Asked]] = {name: [] for name in wanted}
    for turn in range(1, times + 1):
        runs = out / f"run-{turn}"
        both = {role: targets[role] for role in (BASELINE, CANDIDATE)}
        drawn = replace(_calm(running), seed=running.seed + turn)
        summaries = replay_abreast(out / "capture", both, runs, drawn, progress)
        if any(summary.interrupted for summary in summaries.values()):
            raise KeyboardInterrupt
        old, new = (_answers(runs / role, wanted) for role in both)
        for name, asked in pairs.items():
            asked.append((old.get(name), new.get(name)))
    return settle(report, seen(findings, pairs, Comparer(settings.compare)))


def confirm_runs(
    runs: Mapping[str, Path | None],
    targets: Mapping[str, str],
    config: Config,
    *,
    times: int = 5,
    capture: Path | None = None,
    out: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Dossier:
    """Compare the runs (by role), confirm, and gather everything around that. Without `out` nothing is kept."""
    baseline, candidate, control = runs[BASELINE], runs[CANDIDATE], runs.get(CONTROL)
    assert baseline is not None
    assert candidate is not None
    settings = config.diff_settings()
    fidelities = fidelities_of(runs, fidelity_limits(config))
    report = invalidated(diff_runs(baseline, candidate, control, settings), fidelities.items())
    with tempfile.TemporaryDirectory(prefix="replay-confirm-") as made:
        report = confirm(
            report, targets, out or Path(made), settings=settings, running=config.run_settings(), times=times,
            capture=capture, progress=progress,
        )  # fmt: skip
    return around(report, settings, fidelities=fidelities)


def askings(sessions: Iterable[Sequence[Exchange]], wanted: frozenset[str] | set[str]) -> Iterator[Exchange]:
    """What to send: each session up to its last wanted exchange, one request after the other on one connection.

    Recorded times are replaced: a request is due when the one before took as long as in the recording, and its
    connection makes it wait where that takes longer here.
    """
    for place, session in enumerate(sessions):
        at = session[0].started_at + place * _BETWEEN_SESSIONS_NS
        last = max((i for i, exchange in enumerate(session) if exchange.exchange_id in wanted), default=-1)
        for exchange in session[: last + 1]:
            took = max(exchange.duration_ns or 0, _MS)
            yield replace(exchange, connection_id=exchange.session_id, started_at=at, duration_ns=took)
            at += took + _GAP_NS


def _capture_of(report: Report, capture: Path | None) -> Dataset:
    if capture is not None:
        return Dataset.open(capture, "capture")
    baseline = Dataset.open(readable(report.baseline))
    found = baseline if baseline.kind == "capture" else captured_from(baseline)
    if found is None:
        raise InputError(
            f"the capture that {report.baseline} was made from is not there: name it with --capture"
        )
    return found


def _sessions(capture: Dataset, wanted: set[str]) -> list[list[Exchange]]:
    """The sessions of the wanted exchanges, whole and in order of time."""
    field = ds.field("exchange_id")
    names: set[str] = set()
    for batch in capture.batches(("session_id",), field.isin(pa.array(sorted(wanted)))):
        names.update(batch["session_id"].to_pylist())
    found: dict[str, list[Exchange]] = {}
    for row in capture.rows(ds.field("session_id").isin(pa.array(sorted(names), pa.string()))):
        assert isinstance(row, Exchange)
        found.setdefault(row.session_id, []).append(row)
    if not found:
        raise InputError(f"{capture.path} has none of the exchanges to ask again: is it the right --capture?")
    return list(found.values())


def _write(path: Path, source: Dataset, asked: Iterable[Exchange]) -> None:
    writer = DatasetWriter(path, "capture", source=source.meta["source"], settings={})
    written = 0
    for exchange in asked:
        writer.add(exchange)
        written += 1
    writer.close({"captured": written, "written": written})


def _calm(running: RunSettings) -> RunSettings:
    """The same requests to the same places, at the pace of the askings."""
    return replace(
        running, speed=1.0, rate=None, poisson=False, ramp=None, concurrency=None, duration=None, loop=1,
        connections="recorded", workers=1, address=None,
    )  # fmt: skip


def _answers(run: Path, names: set[str]) -> dict[str, Answer]:
    """What a build answered to the wanted exchanges, those that were sent."""
    return {
        answer.exchange_id: answer
        for answer in answers(Dataset.open(run, "run"))
        if answer.exchange_id in names and answer.skipped is None
    }
