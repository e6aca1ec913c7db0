"""`make bench-accuracy`: recall and precision on planted regressions, beside Diffy's rule, as Markdown."""

from __future__ import annotations

import argparse
import random
from collections import Counter

from replay.diff.latency import Latencies, LatencySettings
from replay.findings import REGRESSION
from tests.accuracy.corpus import FAULTS, answers, endpoints
from tests.accuracy.judges import Score, diffys, ours, score
from tests.bench.machine import described, table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.accuracy", description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="services, each of other noise (default 20)")
    parser.add_argument("--endpoints", type=int, default=52, help="of each service (default 52)")
    parser.add_argument("--requests", type=int, default=500, help="of each endpoint at least (default 500)")
    arguments = parser.parse_args()
    print(f"{described()}\n")
    us, them = Score(Counter(), Counter()), Score(Counter(), Counter())
    for seed in range(arguments.runs):
        service = endpoints(seed, arguments.endpoints, arguments.requests)
        us.add(score(service, ours(service, seed)))
        them.add(score(service, diffys(service, seed)))
    print(f"{_summary(us, them)}\n\n{_by_kind(us, them)}\n")
    print(f"Slower endpoints called in 200 pairs of identical builds: {false_alarms(200)} (level 1 %).")


def _summary(us: Score, them: Score) -> str:
    rows = [
        [name, f"{one.recall:.4f}", f"{one.precision:.4f}", str(one.missed.total()), str(one.wrong)]
        for name, one in (("replay diff", us), ("Diffy's rule, same differences", them))
    ]
    return table(("", "recall", "precision", "planted but missed", "flagged but not planted"), rows)


def _by_kind(us: Score, them: Score) -> str:
    rows = []
    for fault in FAULTS:
        planted = us.found[fault.name] + us.missed[fault.name]
        rows.append([fault.name, str(planted), str(us.found[fault.name]), str(them.found[fault.name])])
    return table(("planted", "times", "found", "found by Diffy's rule"), rows)


def false_alarms(pairs: int, endpoints_each: int = 5, requests: int = 500) -> int:
    """How many of so many A/A comparisons call any endpoint slower."""
    alarms = 0
    for seed in range(pairs):
        service = endpoints(random.Random(seed).randrange(10**6), endpoints_each, requests)
        latencies = Latencies()
        for endpoint in service:
            runs = (answers(endpoint, 3 * seed + n, broken=False) for n in range(3))
            for old, new, again in zip(*runs, strict=True):
                latencies.add(old, new, again)
        alarms += any(row.judgement == REGRESSION for row in latencies.rows(LatencySettings()))
    return alarms


if __name__ == "__main__":
    main()
