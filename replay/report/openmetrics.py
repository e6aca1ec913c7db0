"""The report as an OpenMetrics text file, for a Prometheus textfile collector or push gateway.

Figures of one verdict, so that a dashboard can follow builds over time. Names begin with `staging_replay_`;
times are in seconds, shares are ratios, as the OpenMetrics specification asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from replay.findings import FAIL, INVALID, JUDGEMENTS, PASS
from replay.report import words
from replay.report.dossier import Dossier

Sample = tuple[Mapping[str, str], float]


def render(dossier: Dossier) -> str:
    """The report as OpenMetrics text, with its closing `# EOF`."""
    return "\n".join([*_families(dossier), "# EOF"]) + "\n"


def _families(dossier: Dossier) -> Iterator[str]:
    report = dossier.report
    yield from _family(
        "verdict",
        "1 for the verdict of this comparison",
        [({"verdict": verdict}, float(report.verdict == verdict)) for verdict in (PASS, FAIL, INVALID)],
    )
    yield from _family(
        "findings",
        "places where the builds differ, by judgement",
        [({"judgement": judgement}, len(report.judged(judgement))) for judgement in JUDGEMENTS],
    )
    places = Counter((finding.endpoint, finding.judgement) for finding in report.findings)
    yield from _family(
        "endpoint_findings",
        "places where the builds differ, by endpoint and judgement",
        [({"endpoint": e, "judgement": j}, count) for (e, j), count in sorted(places.items())],
    )
    yield from _family(
        "compared_exchanges",
        "exchanges compared, by endpoint",
        [({"endpoint": row.endpoint}, row.pairs) for row in report.endpoints],
    )
    yield from _family(
        "alike_exchanges",
        "exchanges answered alike, by endpoint",
        [({"endpoint": row.endpoint}, row.alike) for row in report.endpoints],
    )
    yield from _family(
        "latency_seconds", "time to answer, by endpoint, quantile and run", _times(dossier), "seconds"
    )
    yield from _family(
        "latency_ratio",
        "candidate / baseline of the time to answer",
        [({"endpoint": r.endpoint, "quantile": f"{r.quantile:g}"}, r.ratio) for r in report.latency],
        "ratio",
    )
    yield from _runs(dossier)


def _times(dossier: Dossier) -> Iterator[Sample]:
    if dossier.curves:
        for curve in dossier.curves:
            for point in curve.points:
                labels = {"endpoint": curve.endpoint, "quantile": f"{point.quantile:g}", "run": curve.role}
                yield labels, point.ms / 1e3
        return
    for row in dossier.report.latency:
        for run, ms in (("baseline", row.baseline_ms), ("candidate", row.candidate_ms)):
            yield {"endpoint": row.endpoint, "quantile": f"{row.quantile:g}", "run": run}, ms / 1e3


def _runs(dossier: Dossier) -> Iterator[str]:
    counts = [
        ({"run": run.role, "outcome": outcome}, count)
        for run in dossier.runs
        for outcome, count in (
            ("answered", run.answered),
            ("failed", sum(run.failed.values())),
            ("skipped", sum(run.skipped.values())),
        )
    ]
    yield from _family("requests", "arrivals of each run, by outcome", counts)
    checks = [
        ({"run": role, "check": check.name}, check)
        for role, fidelity in dossier.fidelities()
        for check in fidelity.checks
    ]
    yield from _family(
        "fidelity_held",
        "1 where a measure of fidelity is within its limit",
        [(labels, float(check.held)) for labels, check in checks],
    )
    yield from _family(
        "fidelity_value",
        "measures of fidelity, each in its own unit",
        [({**labels, "in": check.unit}, check.value) for labels, check in checks if check.value is not None],
    )


def _family(name: str, text: str, samples: Iterable[Sample], unit: str = "") -> Iterator[str]:
    full = f"staging_replay_{name}"
    lines = [f"{full}{_labels(labels)} {float(value):.9g}" for labels, value in samples]
    if not lines:
        return
    yield f"# TYPE {full} gauge"
    if unit:
        yield f"# UNIT {full} {unit}"
    yield f"# HELP {full} {text}"
    yield from lines


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_value(value)}"' for name, value in labels.items()) + "}"


def _value(text: str) -> str:
    return words.clean(text).replace("\\", "\\\\").replace('"', '\\"')
