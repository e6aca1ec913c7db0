"""What the demonstration says at its end: what was found, whether that was all, and what to try next.

Pure: a report and a verdict in, text out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from replay.demo.builds import PLANTED, Sign
from replay.demo.verify import Verdict
from replay.findings import NOISE, Report
from replay.report import words


def conclusion(report: Report, verdict: Verdict, workdir: Path, seconds: float) -> str:
    """The closing text, in whole lines."""
    parts = (
        _found(report, verdict),
        _judgement(report, verdict, seconds),
        _next(report, workdir),
        _open(workdir),
    )
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _found(report: Report, verdict: Verdict) -> Iterator[str]:
    yield "Broken in the new build, and what the report says of it:"
    for regression in PLANTED:
        yield f"  {'found ' if regression in verdict.found else 'MISSED'} {regression.name}"
        yield from (f"           {_evidence(report, sign)}" for sign in regression.signs)


def _evidence(report: Report, sign: Sign) -> str:
    if sign.kind == "slower":
        found = (row for row in report.latency if row.endpoint == sign.endpoint)
        times = (f"{words.milliseconds(r.baseline_ms)} → {words.milliseconds(r.candidate_ms)}" for r in found)
        return f"{sign.endpoint}: {next(times, 'no times')} at the median"
    found_here = (f for f in report.findings if Sign(f.endpoint, f.path, f.kind) == sign)
    shares = (f"{words.share(f.differing, f.pairs)}, {f.judgement}" for f in found_here)
    return f"{_place(sign)} in {next(shares, 'none')}"


def _place(sign: Sign) -> str:
    return " ".join([f"{sign.endpoint}:", *dict.fromkeys(filter(None, (sign.path, sign.kind)))])


def _judgement(report: Report, verdict: Verdict, seconds: float) -> Iterator[str]:
    noise = len(report.judged(NOISE))
    found, all_of_them = len(verdict.found), len(PLANTED)
    if verdict.held:
        yield f"The demonstration held, in {seconds:.0f} s: all {all_of_them} were found, and nothing else."
        yield f"{noise} more places differ from run to run of the old build as well, and were left out as noise."
        return
    yield f"The demonstration did NOT hold, in {seconds:.0f} s: {found} of {all_of_them} were found."
    yield from (f"  missing: {_place(sign)}" for sign in verdict.missing)
    yield from (f"  not planted: {_place(sign)}" for sign in verdict.unexpected)
    if any(sign.kind == "slower" for sign in verdict.unexpected):
        yield "  (A machine that is busy with other things is slower at times: try again when it is not.)"


def _next(report: Report, workdir: Path) -> Iterator[str]:
    old, again, new = (workdir / name for name in ("old", "old-again", "new"))
    yield f"Everything is in {workdir}: the capture, three runs (Parquet), report.json, report.html. Look around:"
    yield f"  replay inspect {workdir / 'capture'}"
    yield f"  replay diff {old} {new} --control {again}"
    for finding in report.findings[:1]:
        for example in finding.examples[:1]:
            yield f"  replay show {example.exchange_id} {old} {new}"
    parts = workdir / "capture" / "*.parquet"
    yield f"  duckdb -c \"from '{parts}' select endpoint, count(*) group by 1\""
    yield "Then your own service:"
    yield "  replay capture --upstream http://localhost:8000 --out captures/mine"


def _open(workdir: Path) -> Iterator[str]:
    yield "And the report itself, to open in a browser:"
    yield f"  {workdir / 'report.html'}"
