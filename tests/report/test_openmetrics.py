"""OpenMetrics: what Prometheus' own parser reads out of the file."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

from replay.findings import Report
from replay.report.dossier import Dossier
from replay.report.openmetrics import render

from .dossiers import dossier
from .reports import EMPTY, FULL, UNFAITHFUL, UNTRUSTED

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    found = {}
    for family in parse(text):
        assert family.name.startswith("staging_replay_")
        assert family.documentation
        for sample in family.samples:
            key = (family.name.removeprefix("staging_replay_"), frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


@pytest.mark.parametrize("report", [FULL, EMPTY, UNFAITHFUL, UNTRUSTED])
def test_prometheus_reads_it(report: Report) -> None:
    for whole in (Dossier(report), dossier(report)):
        found = samples(render(whole))
        verdicts = {
            verdict: value(found, "verdict", verdict=verdict) for verdict in ("pass", "fail", "invalid")
        }
        assert verdicts == {**dict.fromkeys(verdicts, 0.0), report.verdict: 1.0}


def test_figures_are_those_of_the_report() -> None:
    found = samples(render(dossier(FULL, failed=3)))
    assert value(found, "findings", judgement="regression") == 2
    assert value(found, "endpoint_findings", endpoint="GET /orders/{id}", judgement="suspect") == 1
    assert value(found, "alike_exchanges", endpoint="GET /orders/{id}") == 1
    assert value(found, "requests", run="candidate", outcome="failed") == 3
    assert value(found, "latency_ratio", endpoint="GET /search", quantile="0.95") == 10
    assert value(found, "fidelity_held", run="control", check="lag p99") == 1
    # Times in seconds.
    assert value(found, "latency_seconds", endpoint="all endpoints", quantile="0.5", run="candidate") == 0.005


def test_without_curves_the_comparison_gives_the_times() -> None:
    found = samples(render(Dossier(FULL)))
    times = {
        run: value(found, "latency_seconds", endpoint="GET /search", quantile="0.95", run=run)
        for run in ("baseline", "candidate")
    }
    assert times == {"baseline": 0.004123, "candidate": 0.041234}
