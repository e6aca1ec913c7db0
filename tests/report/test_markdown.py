"""Markdown: within what GitHub takes, complete where there is room, and text from the builds stays text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replay.findings import Example
from replay.report.dossier import CANDIDATE
from replay.report.gate import Limits, invalidated, judged
from replay.report.markdown import COMMENT_BYTES, SUMMARY_BYTES, code, render

from .dossiers import BROKEN, dossier, fidelity
from .reports import EMPTY, FULL, NOISE, REGRESSION, UNTRUSTED, finding


def test_the_verdict_comes_first_and_everything_has_its_place() -> None:
    text = render(judged(dossier(FULL), Limits(error_rate=0.05)))
    assert text.splitlines()[0] == "## ❌ Shop 2.0: fail"
    headings = [line for line in text.splitlines() if line.startswith("### ")]
    assert headings == [
        "### Regressions (2)",
        "### Time to answer",
        "### Suspects: different, but too few to tell (1)",
        "### Limits",
        "### Fidelity",
    ]
    assert (
        '| `GET /orders/{id}` | `$.items[*].price` | type | 12/310 = 3.9 % | 0 % | `12.5` → `"12.50"` |'
        in text
    )
    assert "| error rate | 0 % | 5 % | ✅ |" in text
    assert "- candidate: faithful (1 checks held)" in text


@pytest.mark.parametrize(("report", "mark"), [(EMPTY, "✅ Shop 2.0: pass"), (FULL, "❌ Shop 2.0: fail")])
def test_marks(report: object, mark: str) -> None:
    assert render(dossier(report)).startswith(f"## {mark}\n")  # type: ignore[arg-type]


def test_an_unfaithful_run_says_so_on_top() -> None:
    text = render(dossier(invalidated(FULL, [(CANDIDATE, fidelity(BROKEN))])))
    assert text.splitlines()[:3] == [
        "## ⚠️ Shop 2.0: invalid",
        "",
        "- the candidate run was not faithful: lag p99 80 ms, limit 50 ms (use more workers)",
    ]


BROAD = "§" * 200  # two bytes each
MANY = replace(
    FULL,
    findings=tuple(
        finding(judgement, f"$.{BROAD}[{n}]", examples=(Example(f"x-{n}", 0, "$", BROAD, BROAD),))
        for judgement in (REGRESSION, NOISE)
        for n in range(5000)
    ),
)


@pytest.mark.parametrize("limit", [SUMMARY_BYTES, COMMENT_BYTES])
def test_never_longer_than_github_takes(limit: int) -> None:
    text = render(dossier(MANY), limit)
    assert limit - 2000 < len(text.encode()) <= limit
    assert "Cut here" in text.splitlines()[-1]
    assert text.count("<details>") == text.count("</details>")


def test_cut_within_the_noise_closes_what_is_open() -> None:
    report = replace(FULL, findings=tuple(finding(NOISE, f"$.{n}") for n in range(3000)))
    text = render(dossier(report), COMMENT_BYTES)
    assert text.count("<details>") == text.count("</details>") == 1


SPANS = [
    ("a", "`a`"),
    ("a`b", "``a`b``"),
    ("`a`", "`` `a` ``"),
    ("a|b", "`a\\|b`"),
    (" ", "`   `"),
    ("``", "``` `` ```"),
]


@pytest.mark.parametrize(("text", "span"), SPANS)
def test_text_cannot_leave_its_code_span(text: str, span: str) -> None:
    assert code(text) == span


def test_untrusted_text_stays_in_its_row() -> None:
    text = render(dossier(UNTRUSTED))
    assert "\x1b" not in text
    assert "\u202e" not in text
    (row,) = [line for line in text.splitlines() if "gnp.exe" in line and line.startswith("| ")]
    assert row.count(" | ") == 6
