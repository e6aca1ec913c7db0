"""Partitions: merged in any order and by any number of processes they say the same, to the byte."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import pytest

from replay.diff.answers import CompareSettings
from replay.diff.pairs import Trio
from replay.diff.partial import Partial
from replay.diff.rules import compile_rules
from replay.diff.session import Comparison
from replay.diff.settings import DiffSettings
from replay.errors import InputError
from replay.findings import Report
from replay.report import json_
from replay.verbs import partitions
from replay.verbs.diff import diff_runs
from tests.bench import pairs

from .conftest import make_answer

SETTINGS = DiffSettings(compare=CompareSettings(rules=compile_rules([{"path": "$.seen", "ignore": True}])))


def trios(count: int) -> list[Trio]:
    draw = random.Random(5)
    found = []
    for number in range(count):
        body = {"at": draw.random(), "total": number, "seen": draw.random(), f"k{number}": 1}
        sides = [{**body, "at": draw.random(), "total": number + (draw.random() < 0.1)} for _ in range(3)]
        sides[1] = {key: 2 if key.startswith("k") else value for key, value in sides[1].items()}
        given = {"endpoint": f"GET /{number % 3}", "duration_ns": draw.randrange(10**7)}
        found.append(Trio(*(make_answer(number, side, **given) for side in sides)))
    return found


def tallied(some: list[Trio]) -> Partial:
    comparison = Comparison(SETTINGS, has_control=True)
    for trio in some:
        comparison.add(trio)
    return pickle.loads(pickle.dumps(comparison.partial()))


def merged(parts: list[Partial]) -> str:
    comparison = Comparison(SETTINGS, has_control=True)
    for part in parts:
        comparison.absorb(part)
    return json_.render(comparison.report("old", "new", "again"))


@pytest.mark.parametrize("places", [4000, 20])
def test_partials_merge_in_any_order_to_the_same_report(monkeypatch: pytest.MonkeyPatch, places: int) -> None:
    monkeypatch.setattr("replay.diff.tally.MAX_PLACES", places)
    monkeypatch.setattr("replay.diff.latency.SAMPLE", 30)
    draw = random.Random(3)
    all_of_them = trios(300)
    whole = merged([tallied(all_of_them)])
    for _ in range(4):
        draw.shuffle(all_of_them)
        cut = sorted(draw.sample(range(300), 5))
        parts = [tallied(all_of_them[a:b]) for a, b in zip([0, *cut], [*cut, 300], strict=True)]
        assert merged(parts) == whole


def runs(tmp_path: Path, count: int) -> tuple[Path, Path]:
    return (
        pairs.write(tmp_path / "baseline", count, 0.5),
        pairs.write(tmp_path / "candidate", count, 0.5, candidate=True),
    )


def test_any_number_of_jobs_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 1 << 20)
    monkeypatch.setattr(pairs, "_PART_ROWS", 2048)
    old, new = runs(tmp_path, 12_000)
    sources = [partitions.Source(path, "run") for path in (old, new)]
    assert len(partitions.partitions(sources, SETTINGS)) > 5

    def report(jobs: int) -> Report:
        return diff_runs(old, new, settings=SETTINGS, jobs=jobs)

    first = report(1)
    assert first.book.paired == 12_000
    assert {finding.path for finding in first.findings} == {"$.at", "$.total"}
    assert sum(finding.differing for finding in first.findings if finding.path == "$.total") == 12
    assert [json_.render(report(jobs)) for jobs in (2, 3)] == [json_.render(first)] * 2
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 1 << 30)
    assert json_.render(report(1)) == json_.render(first)


def test_an_error_in_a_partition_is_told_as_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 1 << 20)
    monkeypatch.setattr(pairs, "_PART_ROWS", 2048)
    old, new = runs(tmp_path, 4_096)
    (new / "part-000009.parquet").write_bytes((new / "part-000001.parquet").read_bytes())
    for jobs in (1, 2):
        with pytest.raises(InputError, match=r"the candidate holds exchange .* twice"):
            diff_runs(old, new, jobs=jobs)


CUTS = [
    ([], []),
    ([("a", "c", 10), ("c", "e", 10)], []),
    ([("a", "c", 60), ("c", "e", 60), ("e", "g", 60)], ["c", "e"]),
    ([("a", "c", 60), ("a", "c", 60), ("c", "e", 60)], ["c"]),
    ([("a", "e", 160), ("c", "g", 160)], ["c", "e"]),
    ([("a", "a", 500)], []),
]  # fmt: skip


@pytest.mark.parametrize(("spans", "found"), CUTS)
def test_cuts_leave_about_so_much_between_them(spans: list[tuple[str, str, int]], found: list[str]) -> None:
    assert partitions.cuts(spans, 100) == found
    assert partitions.cuts(spans[::-1], 100) == found
