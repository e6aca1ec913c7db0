"""The noise of a run becomes rules, and under these rules the noise is gone."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from replay.diff.answers import Answer, CompareSettings
from replay.diff.pairs import Trio
from replay.diff.rules import compile_rules
from replay.diff.session import Comparison
from replay.diff.settings import DiffSettings
from replay.diff.suggest import suggest
from replay.findings import NOISE, Example, Report

from .conftest import make_answer


def build(seed: int, n: int = 300) -> Iterator[Answer]:
    draw = random.Random(seed)
    for number in range(n):
        tags = ["a", "b", "c", "d"]
        draw.shuffle(tags)
        body = {
            "at": f"2026-03-01T12:00:{draw.randrange(60):02d}Z",
            "score": number + 1 + draw.random() * 1e-6,
            "tags": tags,
            "tip": draw.choice("xyz"),
            "odd key": {"id": draw.random()},
            "total": number,
        }
        if draw.random() < 0.02:
            yield make_answer(number, {"error": "later"}, status=503, endpoint="GET /a/{id}")
        else:
            yield make_answer(number, body, endpoint="GET /a/{id}")


def compared(settings: DiffSettings) -> Report:
    comparison = Comparison(settings, has_control=True)
    for old, new, again in zip(build(1), build(2), build(3), strict=True):
        comparison.add(Trio(old, new, again))
    return comparison.report("old", "new", "again")


def actions(text: str) -> dict[str, str]:
    rules = tomllib.loads(text).get("diff", {}).get("rule", [])
    return {rule["path"]: next(key for key in rule if key not in ("path", "endpoint")) for rule in rules}


def test_each_place_gets_the_mildest_rule_that_would_do() -> None:
    text = suggest(compared(DiffSettings()))
    assert actions(text) == {
        "$.at": "time",
        "$.score": "relative",
        "$.tags": "unordered",
        "$.tip": "ignore",
        '$["odd key"].id': "ignore",
    }
    assert "# GET /a/{id}: status differed in" in text


def test_under_the_rules_the_noise_is_gone_and_each_matched() -> None:
    rules = compile_rules(tomllib.loads(suggest(compared(DiffSettings())))["diff"]["rule"])
    report = compared(DiffSettings(compare=CompareSettings(rules=rules)))
    assert {finding.path for finding in report.findings} == {"status"}
    assert all(use.matched for use in report.rules)


def test_without_noise_it_says_so() -> None:
    report = compared(DiffSettings())
    assert "Nothing differed" in suggest(replace(report, findings=()))


@pytest.mark.parametrize("text", ['"', "\\", "\x7f", "\n[evil]\n", "é\u2028", "\ud800"])
def test_a_builds_text_stays_text(text: str) -> None:
    report = compared(DiffSettings())
    finding = next(finding for finding in report.judged(NOISE) if finding.path == "$.tip")
    hostile = replace(
        finding, endpoint=f"GET /{text}", examples=(Example("1", 0, "$.tip", text, f"{text}\r\n[[x]]"),)
    )
    made = suggest(replace(report, findings=(hostile,))).encode("utf-8", "replace").decode()
    rules = tomllib.loads(made)["diff"]["rule"]
    assert len(rules) == 1
    if text != "\ud800":
        assert rules[0]["endpoint"] == f"GET /{text}"


def test_one_rule_covers_a_place_of_many_kinds() -> None:
    report = compared(DiffSettings())
    noisy = next(finding for finding in report.findings if finding.judgement == NOISE)
    kinds = [replace(noisy, path="$.ids[*]", kind=kind, examples=()) for kind in ("missing", "extra", "type")]
    below = replace(noisy, path="$.ids[*].name", kind="type", examples=())
    rules = tomllib.loads(suggest(replace(report, findings=(*kinds, below))))["diff"]["rule"]
    assert [(rule["path"], rule["ignore"]) for rule in rules] == [("$.ids[*]", True)]
