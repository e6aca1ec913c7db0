"""A capture as the baseline: what production answered beside one run, and what that cannot tell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from replay.diff.session import CAPTURED, NO_CONTROL
from replay.errors import InputError
from replay.findings import FAIL, NOISE, PASS, REGRESSION, SUSPECT
from replay.store.writer import DatasetWriter
from replay.verbs.diff import diff_runs
from tests.rows import exchange, result

JSON = (("Content-Type", "application/json"),)


def capture(path: Path, count: int, body: Any) -> Path:
    writer = DatasetWriter(path, "capture", source={}, settings={})
    for number in range(count):
        content = orjson.dumps(body(number))
        given = {"response_headers": (*JSON, ("Via", "edge")), "response_body": content}
        given |= {"response_size": len(content), "session_id": f"s{number % 20}"}
        writer.add(exchange(number, **given, duration_ns=1_000_000))
    writer.close({})
    return path


def run(path: Path, count: int, body: Any, lap: int = 0, capture: Path | None = None, **given: Any) -> Path:
    writer = DatasetWriter(path, "run", source={"capture": str(capture), "target": "http://x"}, settings={})
    for number in range(count):
        for turn in range(lap + 1):
            content = orjson.dumps(body(number))
            row = {"response_headers": JSON, "response_body": content, "response_size": len(content), **given}
            writer.add(result(number, lap=turn, duration_ns=90_000_000, session_id=f"s{number % 20}", **row))
    writer.close({"planned": count, "sent": count, "answered": count, "failed": {}, "skipped": {}})
    return path


def shop(number: int) -> dict[str, Any]:
    return {"id": number, "price": number * 3}


def test_outcome_and_shape_tell_and_values_are_suspects(tmp_path: Path) -> None:
    old = capture(tmp_path / "capture", 60, shop)
    new = run(tmp_path / "new", 60, lambda n: {"id": n, "price": n * 3 + 1, "stock": 1})
    report = diff_runs(old, new)
    assert report.verdict == FAIL
    assert {(finding.path, finding.judgement) for finding in report.findings} == {
        ("$.stock", REGRESSION),
        ("$.price", SUSPECT),
        ("headers.via", SUSPECT),
    }
    assert report.notes[:2] == (CAPTURED, NO_CONTROL)
    assert report.latency == ()


def test_the_same_answers_pass_and_only_the_part_that_was_run_counts(tmp_path: Path) -> None:
    old = capture(tmp_path / "capture", 60, shop)
    new = run(tmp_path / "new", 25, shop, lap=1, response_headers=(*JSON, ("Via", "edge")))
    report = diff_runs(old, new)
    assert (report.verdict, report.findings) == (PASS, ())
    assert (report.book.exchanges, report.book.paired) == (25, 25)
    assert "35 exchanges of the capture left out of the run" in report.notes


def test_a_control_of_the_old_build_tells_what_is_the_environments(tmp_path: Path) -> None:
    old = capture(tmp_path / "capture", 60, shop)
    staging = lambda n: {"id": n, "price": n * 3 + 7}  # noqa: E731
    new = run(tmp_path / "new", 60, lambda n: {**staging(n), "id": str(n)})
    again = run(tmp_path / "again", 60, staging)
    report = diff_runs(old, new, again)
    judged = {finding.path: finding.judgement for finding in report.findings}
    assert judged == {"$.id": REGRESSION, "$.price": NOISE, "headers.via": NOISE}
    assert NO_CONTROL not in report.notes


def test_only_the_baseline_may_be_a_capture(tmp_path: Path) -> None:
    old = capture(tmp_path / "capture", 3, shop)
    with pytest.raises(InputError, match="is a capture, and a run is needed here"):
        diff_runs(run(tmp_path / "new", 3, shop), old)


def test_the_command_writes_every_report_of_it(tmp_path: Path) -> None:
    old = capture(tmp_path / "capture", 40, shop)
    new = run(tmp_path / "new", 40, lambda n: {"id": n}, capture=old)
    forms = {form: tmp_path / form for form in ("json", "junit", "markdown", "openmetrics", "html")}
    options = [text for form, path in forms.items() for text in (f"--{form}", str(path))]
    done = subprocess.run(
        [sys.executable, "-m", "replay", "diff", str(old), str(new), "--jobs", "2", *options],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.stderr == ""
    assert "the baseline is a capture" in done.stdout.replace("\n", " ")
    report = json.loads(forms["json"].read_text("utf-8"))
    assert done.returncode == report["exit_code"]
    assert [fact["role"] for fact in report["run_facts"]] == ["candidate"]
    assert all(path.stat().st_size for path in forms.values())
