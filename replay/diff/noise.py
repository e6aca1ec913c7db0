"""Is it the build, or does the old build do that too? Measured noise, an exact test, few false alarms.

**The odd one out.** Three answers to one exchange: baseline b, control k (the old build again), candidate c.
If the new build behaves as the old one here, the three are draws from one distribution, whatever it is for
this very request, and so exchangeable: when two agree and one does not, each is the odd one with chance 1/3.
Over independent exchanges the number in which c is odd is binomial with 1/3 given how many had an odd one,
and P(X >= observed) is an exact one-sided p-value. It is the sign test on discordant pairs (McNemar 1947,
Psychometrika 12:153) with the baseline's own flakes as a third side, which buys 3^-n in place of 2^-n for n
clean findings. Pairing matters: Fisher's test on two rates would ask of a wrong total for 3 % of products to
stand out from the spread among products; here each exchange is its own yardstick. Exchanges in which all
three differ (a timestamp) say nothing and weigh nothing.

**Few requests, loud differences.** With n requests to an endpoint p is at best 3^-n. For errors, statuses and
shapes that hit (nearly) every request of an endpoint whose old build was steady, the noise of their group
over the whole run is the second yardstick, taken twice, and the larger p counts: Fisher's exact test
(hypergeometric tail; Fisher 1935) of this endpoint's count against all flakes of the group in both old runs,
as if flakes fell anywhere alike; and the chance of this count at a place drawn from those of the run that
ever differed in this way, each at its own rate (empirical Bayes; Robbins 1956), as flakes do not fall anywhere
alike. The result and the sign test's p are combined by Bonferroni (twice the smaller).

**Many fields.** Benjamini-Hochberg (1995, J. R. Stat. Soc. B 57:289) keeps the expected share of false
regressions below `fdr`. Its p-values are weighted, errors and shapes before values, and places where the old
build was steady before those where it was not (Genovese, Roeder and
Wasserman 2006, Biometrika 93:509). Hypotheses whose p could not have been at most `fdr` whichever build had
been the odd one are not counted among those tested (the idea of Tarone 1990, Biometrics 46:515: how often any
was odd does not depend on which): timestamps and single flakes do not make a wrong price harder to see.

**Effect, not only significance.** A regression must also be odd `min_ratio` times as often as either old run,
in `min_share` of the exchanges, at least twice, and not in one session only where there were many: one failed
login is one event, however many requests follow from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, lgamma, log
from typing import NamedTuple

from replay.findings import NOISE, REGRESSION, SUSPECT

GROUPS: Mapping[str, str] = {
    "error": "outcome",
    "status": "outcome",
    "missing": "shape",
    "extra": "shape",
    "type": "shape",
    "order": "value",
    "value": "value",
    "unexplained": "value",
}

_WEIGHTS = {"outcome": 4.0, "shape": 2.0, "value": 1.0}
_UNSTEADY = 0.05
_LOUD = {"outcome": (2, 0.5), "shape": (3, 0.9)}
"""Group → how often, and in which share of an endpoint's exchanges, a difference is loud."""

_MANY_SESSIONS = 8
_CHANCE = 1 / 3


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """`fdr`: expected share of false ones among regressions. See the module's head for the others."""

    fdr: float = 0.01
    min_ratio: float = 1.5
    min_share: float = 0.001


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted of one endpoint × path × kind; `trios` are exchanges with all three answers."""

    kind: str
    pairs: int
    differing: int
    control_differing: int
    trios: int
    odd_candidate: int
    odd_control: int
    odd_baseline: int
    sessions: int
    endpoint_sessions: int

    @property
    def odd_old(self) -> int:
        return self.odd_control + self.odd_baseline

    @property
    def steady(self) -> bool:
        """Whether the old build never disagreed with itself here."""
        return not self.odd_old and not self.control_differing


class Judgement(NamedTuple):
    judgement: str
    reason: str
    p: float | None
    q: float | None


def judge(counts: Sequence[Counts], trios: int, settings: JudgeSettings) -> list[Judgement]:
    """One judgement for each of the counts, in their order, with a control run as the yardstick.

    `counts` are all there are, those in which only the control differs too; `trios` counts the exchanges of
    the whole run with all three answers.
    """
    groups = {group: [count for count in counts if GROUPS[count.kind] == group] for group in _WEIGHTS}
    loud = [_loud_p(count, groups[GROUPS[count.kind]], trios) for count in counts]
    ps = [
        min(1.0, 2 * min(sign_p(count), p)) if p < 1 else sign_p(count)
        for count, p in zip(counts, loud, strict=True)
    ]
    least = [
        min(_CHANCE ** (count.odd_candidate + count.odd_old), p)
        for count, p in zip(counts, loud, strict=True)
    ]
    weights = [_WEIGHTS[GROUPS[count.kind]] * (1.0 if count.steady else _UNSTEADY) for count in counts]
    qs = adjusted(ps, least, weights, settings.fdr)
    return [_judged(count, p, q, settings) for count, p, q in zip(counts, ps, qs, strict=True)]


def judge_without_control(counts: Iterable[Counts]) -> list[Judgement]:
    """Judgements under an assumed zero noise: differences are the build's, a single value is too few."""
    return [
        Judgement(SUSPECT, "seen once, and noise is not known", None, None)
        if count.differing == 1 and count.pairs > 1 and GROUPS[count.kind] == "value"
        else Judgement(REGRESSION, "noise is not known", None, None)
        for count in counts
    ]


def _judged(count: Counts, p: float, q: float, settings: JudgeSettings) -> Judgement:
    if not count.trios:
        return Judgement(SUSPECT, "the control has no answer here", None, None)
    if q <= settings.fdr:
        weak = _weakness(count, settings)
        return Judgement(SUSPECT, weak, p, q) if weak else Judgement(REGRESSION, _measure(count), p, q)
    if not count.odd_candidate:
        return Judgement(NOISE, "the old build does it too", p, q)
    if count.steady:
        return Judgement(SUSPECT, "too few to tell", p, q)
    if p <= settings.fdr:
        return Judgement(SUSPECT, "oftener than in the old build, but too few to tell", p, q)
    return Judgement(NOISE, "the old build does it too", p, q)


def _weakness(count: Counts, settings: JudgeSettings) -> str:
    """Why a significant count is no regression yet; empty if it is one."""
    old = max(count.odd_control, count.odd_baseline)
    if count.odd_candidate < 2:
        return "seen once"
    if count.odd_candidate < settings.min_ratio * old:
        return "hardly oftener than in the old build"
    if (count.odd_candidate - old) / count.trios < settings.min_share:
        return "in too small a share"
    if count.sessions == 1 and count.endpoint_sessions >= _MANY_SESSIONS:
        return "in one session only"
    return ""


def _measure(count: Counts) -> str:
    if count.steady:
        return "the old build never did this"
    old = max(count.odd_control, count.odd_baseline)
    return f"the candidate alone {count.odd_candidate}x, an old run alone {old}x"


# Tests.


def sign_p(count: Counts) -> float:
    """P(the candidate is odd this often or oftener | how often any was odd)."""
    return binomial_tail(count.odd_candidate, count.odd_candidate + count.odd_old, _CHANCE)


def _loud_p(count: Counts, group: Sequence[Counts], trios: int) -> float:
    """The p against the noise of the whole group where a difference is loud and the old build steady, else 1."""
    least, share = _LOUD.get(GROUPS[count.kind], (0, 2.0))
    if not count.steady or count.odd_candidate < least or count.odd_candidate < share * count.trios:
        return 1.0
    flakes = min(2 * trios, sum(other.odd_old for other in group))
    marked, answers = count.odd_candidate + flakes, count.trios + 2 * trios
    anywhere = hypergeometric_tail(count.odd_candidate, count.trios, marked, answers)
    others = [other for other in group if other is not count and other.trios]
    if not others:
        return anywhere
    somewhere = sum(binomial_tail(count.odd_candidate, count.trios, _flake_rate(other)) for other in others)
    return max(anywhere, somewhere / len(others))


def _flake_rate(count: Counts) -> float:
    """How often one old run alone is odd at a place, with half a flake more than seen (Jeffreys' prior)."""
    return (count.odd_old + 0.5) / (2 * count.trios + 1)


def binomial_tail(k: int, n: int, chance: float) -> float:
    """P(X >= k) for X binomial(n, chance): the sum of its terms, each exp of a sum of logarithms."""
    if k <= 0:
        return 1.0
    if k <= n * chance:  # the longer tail: one minus the shorter
        return max(0.0, 1.0 - _sum(_log_binomial(i, n, chance) for i in range(k - 1, -1, -1)))
    return min(1.0, _sum(_log_binomial(i, n, chance) for i in range(k, n + 1)))


def hypergeometric_tail(k: int, draws: int, marked: int, total: int) -> float:
    """P(X >= k) for X marked among `draws` out of `total`, `marked` in all: Fisher's one-sided p."""
    if k <= max(0, draws + marked - total):
        return 1.0
    whole = _log_choose(total, draws)
    most = min(draws, marked)
    terms = (
        _log_choose(marked, i) + _log_choose(total - marked, draws - i) - whole for i in range(k, most + 1)
    )
    return min(1.0, sum(map(exp, terms)))


def _log_binomial(i: int, n: int, chance: float) -> float:
    return _log_choose(n, i) + i * log(chance) + (n - i) * log(1.0 - chance)


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _sum(logs: Iterable[float]) -> float:
    """The sum of falling terms, stopped where the rest no longer shows."""
    total = 0.0
    for value in logs:
        term = exp(value)
        total += term
        if term < total * 1e-17:
            break
    return total


def adjusted(
    ps: Sequence[float], least: Sequence[float], weights: Sequence[float], level: float
) -> list[float]:
    """Weighted Benjamini-Hochberg q-values among the hypotheses that could be significant; else 1."""
    tested = [i for i, p in enumerate(least) if p <= level]
    qs = [1.0] * len(ps)
    if not tested:
        return qs
    mean = sum(weights[i] for i in tested) / len(tested)
    ranked = sorted(tested, key=lambda i: (ps[i] * mean / weights[i], i))
    q = 1.0
    for rank in range(len(ranked), 0, -1):
        i = ranked[rank - 1]
        q = min(q, ps[i] * mean / weights[i] * len(ranked) / rank)
        qs[i] = q
    return qs
