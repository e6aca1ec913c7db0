"""Fidelity: what breaks it is named, what does not is left alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from replay.model import Result
from replay.report.fidelity import FidelityLimits, lines
from replay.report.screen import render
from replay.store.writer import DatasetWriter
from replay.verbs import fidelity
from replay.verbs.fidelity import fidelity_of
from tests.rows import result

MS = 1_000_000


def run(path: Path, rows: list[Result], books: dict | None = None, **settings: object) -> Path:
    writer = DatasetWriter(path, "run", source={}, settings=settings)
    for row in rows:
        writer.add(row)
    writer.close({"planned": len(rows), "wall_ns": 20_000 * MS, "behind": 0, **(books or {})})
    return path


def arrivals(
    count: int = 2000, gap_ms: float = 10, late_ms: object = lambda number: 0.0, **values: object
) -> list:
    made = []
    for number in range(count):
        due = int(number * gap_ms * MS)
        made.append(result(number, due_ns=due, sent_ns=due + int(late_ms(number) * MS) + 4000, **values))
    return made


def breaches(path: Path, **limits: float) -> set[str]:
    return {check.name for check in fidelity_of(path, FidelityLimits(**limits)).breaches}


def test_a_run_on_time_is_faithful(tmp_path: Path) -> None:
    found = fidelity_of(run(tmp_path / "r", arrivals()))
    assert found.faithful
    assert found.lag_ns["p99"] == 4000


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (arrivals(late_ms=lambda n: 80.0 if n % 50 == 0 else 0.0), {"lag p99"}),
        (arrivals(late_ms=lambda n: 15.0 if n % 10 == 0 else 0.0, gap_ms=20), {"later than 10 ms"}),
        (arrivals(late_ms=lambda n: 1500.0), {"lag p99", "later than 10 ms", "rate, largest error"}),
        (
            arrivals(late_ms=lambda n: 60 - (n % 6) * 10 + 0.0),
            {"lag p99", "later than 10 ms", "gaps (Kolmogorov-Smirnov)"},
        ),
    ],
    ids=["rare stalls", "a tenth late", "constantly late", "in bursts"],
)
def test_lateness_is_named(tmp_path: Path, rows: list, named: set) -> None:
    assert breaches(run(tmp_path / "r", rows)) == named


def test_waiting_for_the_target_is_no_breach(tmp_path: Path) -> None:
    rows = arrivals(late_ms=lambda n: 700.0, held_ns=700 * MS)
    assert breaches(run(tmp_path / "r", rows)) == set()


def test_a_flattened_curve_is_named(tmp_path: Path) -> None:
    # Wanted: 10/s and 190/s in turns; sent: evenly.
    due = [
        int(s * 1000 * MS + i * 1000 * MS / n)
        for s in range(20)
        for n in (10 if s % 2 else 190,)
        for i in range(n)
    ]
    rows = [result(number, due_ns=at, sent_ns=max(at, number * 10 * MS)) for number, at in enumerate(due)]
    assert {"rate, correlation", "rate, largest error"} <= breaches(run(tmp_path / "r", rows))


def test_lost_arrivals_are_named(tmp_path: Path) -> None:
    path = run(tmp_path / "r", arrivals(), {"planned": 2001})
    (breach,) = fidelity_of(path).breaches
    assert (breach.name, breach.value) == ("arrivals lost", 1)
    assert "worker was lost" in breach.advice


def test_a_mix_bent_by_skipping_is_named(tmp_path: Path) -> None:
    rows = arrivals(1900) + [
        result(n, due_ns=n * MS, sent_ns=None, status=None, skipped="upgrade", endpoint="GET /ws")
        for n in range(200)
    ]
    assert breaches(run(tmp_path / "r", rows)) == {"skipped", "endpoint mix"}


def test_the_closed_loop_has_no_times_to_keep(tmp_path: Path) -> None:
    path = run(tmp_path / "r", arrivals(late_ms=lambda n: 5000.0), concurrency=8)
    assert breaches(path) == set()


def test_limits_can_be_set(tmp_path: Path) -> None:
    path = run(tmp_path / "r", arrivals(late_ms=lambda n: 3.0))
    assert breaches(path) == set()
    assert breaches(path, lag_p99_ms=1.0) == {"lag p99"}


def test_an_empty_run_can_be_looked_at(tmp_path: Path) -> None:
    assert fidelity_of(run(tmp_path / "r", [])).faithful


@pytest.mark.parametrize(
    ("left", "right", "distance"),
    [
        ({5000_000: 100}, {5000_000: 100}, 0),
        ({5000_000: 100}, {5000_000: 50, 5040_000: 25, 4960_000: 25}, 0),
        ({5000_000: 100}, {5000_000: 70, 9000_000: 30}, 0.3),
        ({5000_000: 100}, {1000_000: 100}, 1),
        ({1: 1, 10 * MS: 1}, {10 * MS: 2}, 0.5),
    ],
)
def test_distance_of_gaps(left: dict, right: dict, distance: float) -> None:
    assert fidelity._distance(Counter(left), Counter(right)) == pytest.approx(distance)
    assert fidelity._distance(Counter(right), Counter(left)) == pytest.approx(distance)


def test_text_names_the_breach_and_the_remedy(tmp_path: Path) -> None:
    path = run(tmp_path / "r", arrivals(late_ms=lambda n: 80.0 if n % 50 == 0 else 0.0))
    text = render(lines(fidelity_of(path)), 140, color=False)
    assert "NOT FAITHFUL" in text
    line = next(line for line in text.splitlines() if "lag p99" in line)
    assert "80 ms" in line
    assert "limit 50 ms" in line
    assert "more workers" in line
