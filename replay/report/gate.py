"""The verdict of a gate: a comparison held against the limits that a team has set, and nothing guessed.

A run that was not faithful makes the verdict invalid, whatever was found in it: a verdict is only worth
something where the load was what it claims to be. No limit can make an invalid verdict another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from replay.findings import FAIL, INVALID, PASS, REGRESSION, SUSPECT, Check, Fidelity, LatencyRow, Report
from replay.report import words
from replay.report.dossier import ALL, BASELINE, CANDIDATE, Dossier, RunFacts


@dataclass(frozen=True, slots=True)
class Limits:
    """What a build may do and still pass; `None` is no limit.

    `regressions`, `suspects` and `slower` (endpoints) are counts. `error_rate` is the share of the candidate's
    requests that failed or were answered 5xx. Ratios are candidate / baseline of the time to answer:
    `ratios` maps a quantile to the limit for each endpoint, `overall` to that for all requests together,
    `endpoints` an endpoint to its own limits by quantile.
    """

    regressions: int | None = 0
    suspects: int | None = None
    slower: int | None = 0
    error_rate: float | None = None
    ratios: Mapping[float, float] = field(default_factory=dict)
    overall: Mapping[float, float] = field(default_factory=dict)
    endpoints: Mapping[str, Mapping[float, float]] = field(default_factory=dict)

    def quantiles(self) -> frozenset[float]:
        """Every quantile that some limit speaks of."""
        tables = (self.ratios, self.overall, *self.endpoints.values())
        return frozenset(quantile for table in tables for quantile in table)


def invalidated(report: Report, fidelities: Iterable[tuple[str, Fidelity]]) -> Report:
    """The report as it is, or invalid where a run (role, fidelity) was not faithful enough to judge."""
    fidelities = tuple(fidelities)
    reasons = (*_unfaithful(fidelities), *_stopped_before(fidelities))
    if not reasons:
        return _failed_by_stop(report, dict(fidelities).get(CANDIDATE))
    before = report.reasons if report.verdict == INVALID else ()
    return replace(report, verdict=INVALID, reasons=(*before, *reasons))


def _unfaithful(fidelities: Iterable[tuple[str, Fidelity]]) -> Iterator[str]:
    """A reason for each run that was not faithful; the same advice is given once."""
    given: set[str] = set()
    for role, fidelity in fidelities:
        told = []
        for check in fidelity.breaches:
            told.append(breach(replace(check, advice="") if check.advice in given else check))
            given.add(check.advice)
        if told:
            yield f"the {role} run was not faithful: {'; '.join(told)}"


def _stopped_before(fidelities: Iterable[tuple[str, Fidelity]]) -> Iterator[str]:
    """A reason for each run of the old build that the kill switch stopped: there is nothing to compare with."""
    for role, fidelity in fidelities:
        if fidelity.stopped and role != CANDIDATE:
            yield f"the {role} run was stopped: {'; '.join(fidelity.stopped)}"


def _failed_by_stop(report: Report, fidelity: Fidelity | None) -> Report:
    """The report of a candidate that the kill switch had to stop: whatever else was found, it fails."""
    if fidelity is None or not fidelity.stopped:
        return report
    before = report.reasons if report.verdict == FAIL else ()
    return replace(report, verdict=FAIL, reasons=(*map(_stop, fidelity.stopped), *before))


def _stop(text: str) -> str:
    return f"kill switch: {text}"


def judged(dossier: Dossier, limits: Limits) -> Dossier:
    """The dossier with the verdict that the limits make, its reasons, and the checks behind it."""
    checks = tuple(_checks(dossier, limits))
    verdict, reasons = _verdict(dossier.report, checks)
    return replace(dossier, report=replace(dossier.report, verdict=verdict, reasons=reasons), limits=checks)


def _verdict(report: Report, checks: tuple[Check, ...]) -> tuple[str, tuple[str, ...]]:
    if report.verdict == INVALID:
        return INVALID, report.reasons
    broken = tuple(_broken(check) for check in checks if not check.held)
    broken += tuple(reason for reason in report.reasons if reason.startswith(_stop("")))
    if broken:
        return FAIL, broken
    if report.verdict == FAIL:
        return PASS, (f"within the limits, although: {'; '.join(report.reasons)}",)
    return PASS, report.reasons


def breach(check: Check) -> str:
    """A check that did not hold, its limit, and what to change."""
    advice = f" ({check.advice})" if check.advice else ""
    value, limit = words.measure(check.value, check.unit), words.measure(check.limit, check.unit)
    return f"{check.name} {value}, limit {limit}{advice}"


_ONE = {"regressions": "regression", "suspects": "suspect", "endpoints slower": "endpoint slower"}


def _broken(check: Check) -> str:
    if check.unit:
        return breach(check)
    plain = f"{check.value:,.0f} {_ONE[check.name] if check.value == 1 else check.name}"
    return plain if not check.limit else f"{plain}, at most {check.limit:,.0f} allowed"


def _checks(dossier: Dossier, limits: Limits) -> Iterator[Check]:
    report = dossier.report
    slower = {row.endpoint for row in report.latency if row.judgement == REGRESSION}
    counts = (
        ("regressions", len(report.judged(REGRESSION)), limits.regressions),
        ("suspects", len(report.judged(SUSPECT)), limits.suspects),
        ("endpoints slower", len(slower), limits.slower),
    )
    for name, count, limit in counts:
        if limit is not None:
            yield Check(name, count, limit, "", count <= limit, "")
    candidate = next((run for run in dossier.runs if run.role == CANDIDATE), None)
    if limits.error_rate is not None and candidate is not None:
        rate = error_rate(candidate)
        yield Check("error rate", rate, limits.error_rate, "share", rate <= limits.error_rate, "")
    yield from _endpoint_ratios(report.latency, limits)
    yield from _overall_ratios(dossier, limits)


def error_rate(run: RunFacts) -> float:
    """The share of a run's requests that failed or were answered 5xx."""
    broken = sum(run.failed.values()) + sum(
        count for status, count in run.statuses.items() if status.startswith("5")
    )
    return broken / run.sent if run.sent else 0.0


_UNSURE = " (too few requests to be sure)"


def _endpoint_ratios(rows: tuple[LatencyRow, ...], limits: Limits) -> Iterator[Check]:
    """A check for each endpoint with a limit of its own, or beyond the common one; one for all the others."""
    for quantile in sorted(limits.quantiles()):
        worst: LatencyRow | None = None
        common = limits.ratios.get(quantile)
        for row in rows:
            own = limits.endpoints.get(row.endpoint, {}).get(quantile)
            limit = own if own is not None else common
            if row.quantile != quantile or limit is None:
                continue
            # A ratio beyond its limit by chance is no breach: the interval must say that it is slower at all.
            surely = row.low > (row.noise_ratio or 1.0)
            if row.ratio > limit or own is not None:
                yield _ratio(f"{_percentile(quantile)} of {row.endpoint}", row.ratio, limit, surely)
            elif worst is None or row.ratio > worst.ratio:
                worst = row
        if worst is not None and common is not None:
            yield _ratio(f"{_percentile(quantile)} of each other endpoint", worst.ratio, common, True)


def _overall_ratios(dossier: Dossier, limits: Limits) -> Iterator[Check]:
    old, new = dossier.curve(ALL, BASELINE), dossier.curve(ALL, CANDIDATE)
    for quantile, limit in sorted(limits.overall.items()):
        was, is_ = old and old.at(quantile), new and new.at(quantile)
        if not was or not is_ or not was.ms:
            continue
        surely = is_.low is not None and was.high is not None and is_.low > was.high
        yield _ratio(f"{_percentile(quantile)} of all requests", is_.ms / was.ms, limit, surely)


def _ratio(name: str, ratio: float, limit: float, surely: bool) -> Check:
    beyond = ratio > limit
    name += _UNSURE if beyond and not surely else ""
    return Check(name, ratio, limit, "ratio", not (beyond and surely), "candidate / baseline" * beyond)


def _percentile(quantile: float) -> str:
    return f"p{100 * quantile:g}"
