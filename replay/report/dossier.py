"""All that a report may tell beyond the comparison itself: runs, fidelity, limits, curves, errors, drift.

The verbs fill a dossier from what is on disk; every renderer takes one and leaves out what is empty. With a
`Report` alone it is complete enough for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from replay.findings import Check, Fidelity, Report
from replay.report.exchange import Row

BASELINE, CONTROL, CANDIDATE = "baseline", "control", "candidate"
ROLES = (BASELINE, CONTROL, CANDIDATE)
"""The runs of a comparison, in the order in which they are shown."""

ALL = "all endpoints"
"""In place of an endpoint: every request of the run."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One run: where it is, where it went, its books, and how faithful it was (`None`: not measured).

    `failed` and `skipped` count by reason; `statuses` by status code.
    """

    role: str
    path: str
    target: str
    started_at: str
    seconds: float
    planned: int
    sent: int
    answered: int
    failed: Mapping[str, int]
    skipped: Mapping[str, int]
    statuses: Mapping[str, int]
    fidelity: Fidelity | None = None


@dataclass(frozen=True, slots=True)
class Percentile:
    """A quantile of the time to answer in ms, with the bounds of its interval (`None`: open)."""

    quantile: float
    ms: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class LatencyCurve:
    """The percentiles of one endpoint (or `ALL`) in one run."""

    endpoint: str
    role: str
    count: int
    points: tuple[Percentile, ...]

    def at(self, quantile: float) -> Percentile | None:
        return next((point for point in self.points if point.quantile == quantile), None)


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """Requests of one endpoint that failed, or were answered 5xx, by kind; a count for each role."""

    endpoint: str
    kind: str
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MixRow:
    """Requests of one endpoint: in the capture (`None`: not at hand), and sent by each run, by role."""

    endpoint: str
    captured: int | None
    sent: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class DriftRow:
    """Where staging with the old build is not like production: the baseline against the capture.

    `pairs` exchanges have both answers. `status` counts those with another status, `shape` those of the rest
    whose fields or types are others. Sizes are mean bytes of a body, times medians in ms. `example` is an
    exchange that shows it.
    """

    endpoint: str
    pairs: int
    status: int
    shape: int
    captured_bytes: float
    staged_bytes: float
    captured_ms: float | None
    staged_ms: float | None
    statuses: str = ""
    paths: tuple[str, ...] = ()
    example: str | None = None


@dataclass(frozen=True, slots=True)
class Asking:
    """The request of an example: its first line, and a shell line that sends it again."""

    line: str
    curl: str


@dataclass(frozen=True, slots=True)
class Dossier:
    """A report with everything around it.

    `made_at` is ISO 8601. `limits` are the checks that decided the verdict, those of a gate. `requests` maps
    an exchange id to its request, `contexts` a finding's id to lines around the change in its first example.
    """

    report: Report
    title: str = "Replay report"
    made_at: str = ""
    tool: str = "staging-replay"
    capture: str | None = None
    seconds: float = 0.0
    runs: tuple[RunFacts, ...] = ()
    limits: tuple[Check, ...] = ()
    curves: tuple[LatencyCurve, ...] = ()
    errors: tuple[ErrorRow, ...] = ()
    mix: tuple[MixRow, ...] = ()
    drift: tuple[DriftRow, ...] = ()
    requests: Mapping[str, Asking] = field(default_factory=dict)
    contexts: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[str, ...]:
        """Baseline, candidate and, where there is one, control: as `replay show` takes them."""
        report = self.report
        return (report.baseline, report.candidate, *((report.control,) if report.control else ()))

    def fidelities(self) -> tuple[tuple[str, Fidelity], ...]:
        """Role and fidelity of the runs whose fidelity was measured."""
        return tuple((run.role, run.fidelity) for run in self.runs if run.fidelity is not None)

    def curve(self, endpoint: str, role: str) -> LatencyCurve | None:
        return next((c for c in self.curves if c.endpoint == endpoint and c.role == role), None)
