from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from replay.findings import Report
from replay.report.json_ import SCHEMA_VERSION, render

from .reports import EMPTY, FULL, UNFAITHFUL, UNTRUSTED, latency

GOLDEN = Path(__file__).parent / "golden" / "full.json"


def test_the_document_is_the_golden_file() -> None:
    # A change of a key that is there already needs another SCHEMA_VERSION.
    assert render(FULL) == GOLDEN.read_text("utf-8")
    assert json.loads(GOLDEN.read_text("utf-8"))["schema_version"] == SCHEMA_VERSION


@pytest.mark.parametrize(("report", "code"), [(EMPTY, 0), (FULL, 1), (UNFAITHFUL, 3)])
def test_verdicts_carry_their_exit_code(report: Report, code: int) -> None:
    assert json.loads(render(report))["exit_code"] == code


def test_an_open_interval_has_no_upper_end() -> None:
    report = replace(FULL, latency=(latency("suspect", high=float("inf")),))
    assert json.loads(render(report))["latency"][0]["high"] is None


def test_untrusted_text_stays_data() -> None:
    found = json.loads(render(UNTRUSTED))["findings"][0]
    assert found["endpoint"].startswith("GET /\x1b[31mred")
