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

**The company it keeps.** With n requests to an endpoint p is at best 3^-n, and one request in a hundred that
goes wrong is too few for it. But places are not alone: those of its group (outcomes, shapes, values) that ever
differed in this run show how places flake here. p is then the chance that a place drawn from among them, at
the rate its old runs showed, makes the candidate odd this often and no old run ever: the mean of
beta-binomial predictive tails with Jeffreys' prior (empirical Bayes; Robbins 1956; Gelman et al., Bayesian
Data Analysis, 5.3). It is asked only where the old build was steady. A run whose old build never fails makes
three errors out of three loud; a run full of flakes does not. This p and the sign test's are combined by
Bonferroni (twice the smaller).

**Many fields.** Benjamini-Hochberg (1995, J. R. Stat. Soc. B 57:289) keeps the expected share of false
regressions below `fdr`. Its p-values are weighted, errors and shapes before values (Genovese, Roeder and
Wasserman 2006, Biometrika 93:509). Hypotheses whose p could not have been at most `fdr` whichever build had
been the odd one are not counted among those tested (the idea of Tarone 1990, Biometrics 46:515: how often any
was odd does not depend on which): timestamps and single flakes do not make a wrong price harder to see. Places
that seldom differ, by the same count, are one family of tests and those that often do another, each with its
own control (Efron 2008, Ann. Appl. Stat. 2:197).

**Unsteady places.** Where the old build disagreed with itself, p counts a hundredfold: the three runs are not
made at one instant, and what drifts with the time of day or the state of a cache is not quite exchangeable. It
costs little: what is wrong there is mostly wrong in every request.

**Effect, not only significance.** A regression must also be odd `min_ratio` times as often as either old run,
in `min_share` of the exchanges, five times at the least (fewer where it hits most requests), and not in one
session only where there were many: one failed login is one event, however many requests follow from it.
"""

from __future__ import annotations

from collections import Counter
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

_WEIGHTS = {"outcome": 2.0, "shape": 1.5, "value": 1.0}
_UNSTEADY = 100.0
_SELDOM = 25

_ENOUGH = 5
_ENOUGH_LOUD = {"outcome": 2, "shape": 3, "value": 4}
"""How often a difference must be seen at least, whatever its p; and in half of an endpoint's exchanges."""

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
    company = _Company(counts, trios)
    near = [company.p(count) for count in counts]
    ps = [_p_value(count, p) for count, p in zip(counts, near, strict=True)]
    least = [
        min(_CHANCE ** (count.odd_candidate + count.odd_old), p)
        for count, p in zip(counts, near, strict=True)
    ]
    weights = [_WEIGHTS[GROUPS[count.kind]] for count in counts]
    qs = [1.0] * len(counts)
    for family in _families(counts):
        p, attainable, weight = ([values[i] for i in family] for values in (ps, least, weights))
        for i, q in zip(family, adjusted(p, attainable, weight, settings.fdr), strict=True):
            qs[i] = q
    return [_judged(count, p, q, settings) for count, p, q in zip(counts, ps, qs, strict=True)]


def _families(counts: Sequence[Counts]) -> list[list[int]]:
    """Places that seldom differ apart from those that often do: see the module's head."""
    odd = [count.odd_candidate + count.odd_old for count in counts]
    return [[i for i, n in enumerate(odd) if n <= _SELDOM], [i for i, n in enumerate(odd) if n > _SELDOM]]


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
    loud = 2 * count.odd_candidate >= count.trios
    if count.odd_candidate < (_ENOUGH_LOUD[GROUPS[count.kind]] if loud else _ENOUGH):
        return "too few to tell"
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


def _p_value(count: Counts, near: float) -> float:
    if not count.steady:
        return min(1.0, _UNSTEADY * sign_p(count))
    return min(1.0, 2 * min(sign_p(count), near))


def sign_p(count: Counts) -> float:
    """P(the candidate is odd this often or oftener | how often any was odd)."""
    return binomial_tail(count.odd_candidate, count.odd_candidate + count.odd_old, _CHANCE)


class _Company:
    """How places flake in this run, group by group, and what a steady place's count is worth beside them."""

    def __init__(self, counts: Sequence[Counts], trios: int) -> None:
        self._of: dict[str, Counter[tuple[int, int]]] = {group: Counter() for group in _WEIGHTS}
        for count in counts:
            # A clock differs among all three: it says nothing of how often one alone is odd.
            if count.trios and 2 * (count.control_differing - count.odd_old) < count.trios:
                self._of[GROUPS[count.kind]][_coarse(count.odd_old), _coarse(count.trios)] += 1
        for places in self._of.values():
            flakes = sum(odd * number for (odd, _), number in places.items())
            places[_coarse(min(flakes, 2 * trios)), _coarse(trios)] += 1
        self._known: dict[tuple[str, int, int], float] = {}

    def p(self, count: Counts) -> float:
        """The chance of this count, or a larger one, beside no flake of an old run; 1 where it is not asked."""
        if not count.steady or not count.odd_candidate:
            return 1.0
        key = (GROUPS[count.kind], count.odd_candidate, count.trios)
        if key not in self._known:
            places = self._of[key[0]]
            total = sum(number * _predictive(odd, n, *key[1:]) for (odd, n), number in places.items())
            self._known[key] = total / places.total()
        return self._known[key]


def _coarse(number: int) -> int:
    """Two significant digits: few distinct places, whatever their number."""
    step = int(10 ** max(0, len(str(number)) - 2))
    return number // step * step


def _predictive(odd: int, trios: int, k: int, n: int) -> float:
    """P(the candidate odd in >= k of n exchanges, no old run in any) where 2 * trios old answers had `odd`.

    An exchange with an odd one out has one only; in each of the others there were three that might have been.
    """
    a, b = odd + 0.5, max(0, 2 * trios - odd) + 0.5
    whole = _log_beta(a, b)
    return _sum(_log_choose(n, i) + _log_beta(a + i, b + 3 * (n - i)) - whole for i in range(k, n + 1))


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def binomial_tail(k: int, n: int, chance: float) -> float:
    """P(X >= k) for X binomial(n, chance): the sum of its terms, each exp of a sum of logarithms."""
    if k <= 0:
        return 1.0
    if k <= n * chance:  # the longer tail: one minus the shorter
        return max(0.0, 1.0 - _sum(_log_binomial(i, n, chance) for i in range(k - 1, -1, -1)))
    return min(1.0, _sum(_log_binomial(i, n, chance) for i in range(k, n + 1)))


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
