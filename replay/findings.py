"""What a comparison found: plain nouns that the differ fills and the renderers read.

Frozen, slotted, standard library only, like `replay.model`: the differ and the reports never import each
other, they meet here. Shares are fractions of 1; times are milliseconds where a name says `_ms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

KINDS = (
    "error",  # no answer on one side
    "status",  # another status code
    "missing",  # was there, is gone
    "extra",  # was not there, is now
    "type",  # another type: number became text, object became list, 1 became 1.0
    "order",  # the same items in another order
    "value",  # another value of the same type
    "unexplained",  # they differ, and saying where would cost too much
    "slower",  # the time to answer grew
)
"""The closed vocabulary of differences, worst first."""

REGRESSION, SUSPECT, ACCEPTED, NOISE = "regression", "suspect", "accepted", "noise"
JUDGEMENTS = (REGRESSION, SUSPECT, ACCEPTED, NOISE)
"""What a finding may be judged as: the build's doing; too few to tell; a person has accepted it; the old build
does it too."""

PASS, FAIL, INVALID = "pass", "fail", "invalid"
EXIT_CODES: Mapping[str, int] = {PASS: 0, FAIL: 1, INVALID: 3}
"""Verdict → exit code of the command: the one place that says so."""


def finding_id(endpoint: str, path: str, kind: str) -> str:
    """A short name of a finding that is the same in every run, so that people can refer to it."""
    return blake2b(f"{endpoint}\0{path}\0{kind}".encode(errors="surrogatepass"), digest_size=4).hexdigest()


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where two answers differ. `left` is the baseline's; a side that lacks the place is `None`."""

    path: str
    kind: str
    left: Any = None
    right: Any = None


@dataclass(frozen=True, slots=True)
class Example:
    """One exchange in which a finding shows; `left` and `right` are short display texts."""

    exchange_id: str
    lap: int
    path: str
    left: str
    right: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Differences of one endpoint, erased path and kind, counted over exchanges and judged.

    `pairs` were compared with the candidate and `differing` of them differ here; `control_pairs` and
    `control_differing` say the same of the control. Among exchanges with all three answers,
    `odd_candidate` counts those where only the candidate disagreed here, `odd_control` and `odd_baseline`
    likewise: a build that did not change is the odd one out no oftener than the others. `p_value` and
    `q_value` are `None` where there was no control to test against.
    """

    id: str
    endpoint: str
    path: str
    kind: str
    pairs: int
    differing: int
    control_pairs: int
    control_differing: int
    odd_candidate: int
    odd_control: int
    odd_baseline: int
    sessions: int
    p_value: float | None
    q_value: float | None
    judgement: str
    reason: str
    examples: tuple[Example, ...]

    @property
    def share(self) -> float:
        """The fraction of compared exchanges in which the candidate differs here."""
        return self.differing / self.pairs if self.pairs else 0.0

    @property
    def noise_share(self) -> float | None:
        """The same of the control; `None` where there was nothing to measure it on."""
        return self.control_differing / self.control_pairs if self.control_pairs else None


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """Times to answer of one endpoint, old and new over the same exchanges.

    Ratios are candidate / baseline, with the bounds of a confidence interval; `noise_ratio` is
    control / baseline.
    """

    endpoint: str
    quantile: float
    pairs: int
    baseline_ms: float
    candidate_ms: float
    ratio: float
    low: float
    high: float
    noise_ratio: float | None
    judgement: str
    reason: str

    @property
    def path(self) -> str:
        """In place of a field's path: `p95`."""
        return f"p{100 * self.quantile:g}"

    @property
    def id(self) -> str:
        """The name by which this row is accepted, like a finding's."""
        return finding_id(self.endpoint, self.path, "slower")


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """How one endpoint fared: exchanges compared, and how many answered exactly alike."""

    endpoint: str
    pairs: int
    alike: int


@dataclass(frozen=True, slots=True)
class PairBook:
    """Where every row of two runs went: `paired + unpaired = all`, by side and reason.

    `unpaired` maps a reason such as `candidate: missing` to a count of exchanges.
    """

    exchanges: int
    paired: int
    unpaired: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RuleUse:
    """A rule as the user wrote it, and how many differences it took away."""

    rule: str
    matched: int


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a comparison has to say; renderers add nothing to it."""

    verdict: str
    reasons: tuple[str, ...]
    baseline: str
    candidate: str
    control: str | None
    findings: tuple[Finding, ...]
    latency: tuple[LatencyRow, ...]
    endpoints: tuple[EndpointRow, ...]
    book: PairBook
    control_book: PairBook | None
    rules: tuple[RuleUse, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    def judged(self, judgement: str) -> tuple[Finding, ...]:
        """The findings judged so, in the report's order."""
        return tuple(finding for finding in self.findings if finding.judgement == judgement)


@dataclass(frozen=True, slots=True)
class BindingRow:
    """A binding found in a capture: the answer's end, the request's end, how often and in how many sessions it was
    seen, and examples as (value, exchange of the answer, exchange of the request)."""

    maker: str
    user: str
    count: int
    sessions: int
    examples: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Check:
    """One measure of how faithful a run was, held against its limit; `advice` says what to change."""

    name: str
    value: float | None
    limit: float
    unit: str
    held: bool
    advice: str


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How faithfully a run drove its capture.

    `curve` has a point for each step of the run: its instant in seconds, and requests per second as the
    schedule wanted and as they were sent. `lag_ns` holds quantiles of the generator's own lateness.
    """

    run: str
    checks: tuple[Check, ...]
    curve: tuple[tuple[float, float, float], ...]
    lag_ns: Mapping[str, float]
    stopped: tuple[str, ...] = ()
    """What tripped the kill switch, where that fails the build: then the run is not to blame for its gaps."""

    @property
    def faithful(self) -> bool:
        """Whether every check held: a run that was not faithful neither passes nor fails."""
        return bool(self.stopped) or all(check.held for check in self.checks)

    @property
    def breaches(self) -> tuple[Check, ...]:
        """The checks that did not hold."""
        if self.stopped:
            return ()
        return tuple(check for check in self.checks if not check.held)
