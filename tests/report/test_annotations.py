"""GitHub annotations: at most ten of a type, escaped as GitHub's own toolkit does."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from replay.findings import SUSPECT
from replay.report.annotations import MOST, failure, render
from replay.report.gate import Limits, judged

from .dossiers import dossier
from .reports import EMPTY, FULL, REGRESSION, UNFAITHFUL, UNTRUSTED, finding

COMMAND = re.compile(r"::(error|warning|notice) title=([^:,]*)::(.*)")


def annotations(text: str) -> list[tuple[str, str, str]]:
    """Every line is a whole command."""
    found = [COMMAND.fullmatch(line) for line in text.splitlines()]
    assert None not in found
    return [match.groups() for match in found if match]  # type: ignore[misc]


def test_findings_become_errors_and_suspects_warnings() -> None:
    example = ': 12.5 → "12.50"'
    assert annotations(render(dossier(FULL))) == [
        ("error", "replay%3A GET /products/{id}", f"status status in 310/310 = 100 %25 (regression){example}"),
        ("error", "replay%3A GET /orders/{id}", f"$.items[*].price type in 12/310 = 3.9 %25 (regression){example}"),
        ("error", "replay%3A GET /search", "p95 4.12 ms → 41.2 ms, 10x (8.89 to 11.2) (regression)"),
        ("warning", "replay%3A GET /orders/{id}", f"$.note value in 1/310 = 0.32 %25 (suspect){example}"),
    ]  # fmt: skip


def test_an_invalid_run_and_a_broken_limit_are_errors() -> None:
    assert annotations(render(dossier(UNFAITHFUL)))[0] == (
        "error", "replay%3A Invalid run", "20 of 100 exchanges have no pair",
    )  # fmt: skip
    broken = judged(dossier(EMPTY, failed=10), Limits(error_rate=0.05))
    assert annotations(render(broken))[0] == ("error", "replay%3A Limit", "error rate 10 %25, limit 5 %25")


@pytest.mark.parametrize("judgement", [REGRESSION, SUSPECT])
def test_at_most_ten_of_a_type(judgement: str) -> None:
    report = replace(FULL, findings=tuple(finding(judgement, f"$.{n}") for n in range(500)), latency=())
    found = annotations(render(dossier(report)))
    assert len(found) == MOST
    assert found[-1][1:] == ("replay%3A More", "and 491 more: see the report")


def test_untrusted_text_cannot_be_a_command() -> None:
    nasty = finding(REGRESSION, "$.a\n::error::x", endpoint="GET /a:b,c%0A\r\n::stop-commands::x")
    for report in (replace(FULL, findings=(nasty,)), UNTRUSTED):
        kinds = [kind for kind, _, _ in annotations(render(dossier(report)))]
        assert kinds == ["error", "error"]


def test_a_gate_that_could_not_run_is_one_error() -> None:
    text = failure("the candidate build did not start; the end of log:\n  100 %\n  boom")
    assert text.count("\n") == 1
    assert annotations(text) == [
        ("error", "replay%3A could not run",
         "the candidate build did not start; the end of log:%0A  100 %25%0A  boom"),
    ]  # fmt: skip
