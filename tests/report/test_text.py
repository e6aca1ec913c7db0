from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from replay.findings import NOISE, Report
from replay.report import words
from replay.report.text import render

from .dossiers import BROKEN, HELD, fidelity, run
from .reports import EMPTY, FULL, UNFAITHFUL, UNTRUSTED

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("width", [140, 100, 60])
def test_the_report_reads_as_the_golden_file(width: int) -> None:
    assert render(FULL, width) == (GOLDEN / f"full-{width}.txt").read_text("utf-8")


@pytest.mark.parametrize(
    ("report", "first"),
    [
        (FULL, "FAIL  2 regressions on 1 endpoint; 1 endpoint slower (1 more is suspect)"),
        (EMPTY, "PASS  no regression in 620 exchanges"),
        (UNFAITHFUL, "INVALID  20 of 100 exchanges have no pair"),
    ],
)
def test_the_verdict_and_its_reason_come_first(report: Report, first: str) -> None:
    assert render(report).splitlines()[0] == first


@pytest.mark.parametrize("width", [20, 33, 60, 100, 119, 120, 300])
@pytest.mark.parametrize("report", [FULL, EMPTY, UNTRUSTED])
def test_no_line_is_wider_than_the_terminal(report: Report, width: int) -> None:
    assert max(cell_len(line) for line in render(report, width).splitlines()) <= width


@pytest.mark.parametrize("width", [60, 140])
def test_untrusted_text_cannot_steer_the_terminal(width: int) -> None:
    text = render(UNTRUSTED, width)
    assert re.findall(r"[^\n\x20-\x7e\xa0-\u200d\u2010-\u2029\u2030-\uffff]", text) == []
    assert "\u202e" not in text
    assert "[bold]x[/bold]" in re.sub(r"\s", "", text)
    assert len(text) < 5000


def test_colours_only_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in render(FULL)
    assert "\x1b[1;31mFAIL" in render(FULL, color=True)
    assert re.sub(r"\x1b\[[\d;]*m", "", render(FULL, 140, color=True)).split() == render(FULL, 140).split()


@pytest.mark.parametrize("width", [20, 60, 140])
def test_limits_and_the_load_of_each_run_are_told(width: int) -> None:
    bad = replace(run("candidate", failed=3), fidelity=fidelity(BROKEN), skipped={"upgrade": 2})
    text = render(FULL, width, False, [run("baseline"), bad], [replace(HELD, name="error rate"), BROKEN])
    assert max(cell_len(line) for line in text.splitlines()) <= width
    told = " ".join(text.split())
    assert "baseline: 100 sent, 100 answered; faithful ▅█ up to 19/s" in told
    assert "97 answered, 3 failed (3 timeout), 2 skipped (2 upgrade); NOT FAITHFUL" in told
    assert "Limits error rate: 0.4 ms, at most 50 ms ✗ lag p99: 80 ms, at most 50 ms" in told


def test_a_long_curve_fits() -> None:
    long = replace(fidelity(), curve=tuple((float(n), 1.0, float(n)) for n in range(121)))
    text = render(FULL, 60, False, [replace(run("baseline"), fidelity=long)])
    (line,) = [line for line in text.splitlines() if "up to 120/s" in line]
    assert line.strip().startswith("▁▁▁▁▁▂")
    assert cell_len(line) <= 60


def test_the_hint_shows_what_matters() -> None:
    noise = replace(EMPTY, findings=tuple(finding for finding in FULL.findings if finding.judgement == NOISE))
    assert "replay show" not in render(noise)


PERCENT = [(0, 10, "0 %"), (10, 10, "100 %"), (12, 310, "3.9 %"), (1, 100_000, "<0.1 %"), (99_999, 100_000, ">99.9 %"),
           (999, 1000, "100 %"), (997, 1000, "100 %"), (500, 1000, "50 %"), (0, 0, "-")]  # fmt: skip


@pytest.mark.parametrize(("part", "whole", "text"), PERCENT)
def test_shares(part: int, whole: int, text: str) -> None:
    assert words.percent(part, whole) == text
