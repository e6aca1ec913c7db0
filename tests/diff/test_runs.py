"""`diff_runs` on datasets on disk."""

from __future__ import annotations

import json
import random
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from replay.cli import app
from replay.diff.answers import Answer
from replay.errors import InputError
from replay.findings import REGRESSION
from replay.model import Result
from replay.store.writer import DatasetWriter
from replay.verbs.diff import diff_runs

from .conftest import make_answer


def write(directory: Path, answers: list[Answer]) -> Path:
    writer = DatasetWriter(directory, "run", source={}, settings={})
    for answer in answers:
        writer.add(_result(answer))
    writer.close(books={})
    return directory


def _result(answer: Answer) -> Result:
    given = answer._asdict()
    return Result(
        **given, connection_id="c", held_ns=0, connect_ns=None, tls_ns=None, ttfb_ns=1, reused=True,
        exact=True, sent_head=None, sent_body=None,
    )  # fmt: skip


def test_runs_are_joined_whatever_the_order_they_were_sent_in(tmp_path: Path) -> None:
    old = [make_answer(n, {"n": n, "s": "x"}) for n in range(40)]
    new = [make_answer(n, {"n": n, "s": "y"}) for n in range(40)]
    baseline = write(tmp_path / "old", old)
    candidate = write(tmp_path / "new", [row._replace(due_ns=-row.due_ns) for row in new])
    control = write(tmp_path / "again", old[::-1])
    report = diff_runs(baseline, candidate, control)
    assert report.book.paired == 40
    (finding,) = report.findings
    assert (finding.path, finding.judgement, finding.share, finding.noise_share) == (
        "$.s",
        REGRESSION,
        1.0,
        0.0,
    )
    assert (report.baseline, report.candidate, report.control) == (
        str(baseline),
        str(candidate),
        str(control),
    )


def test_the_same_runs_give_the_same_report(tmp_path: Path) -> None:
    baseline = write(tmp_path / "old", [make_answer(n, {"n": n}) for n in range(20)])
    candidate = write(tmp_path / "new", [make_answer(n, {"n": n // 2}) for n in range(20)])
    assert diff_runs(baseline, candidate) == diff_runs(baseline, candidate)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    baseline = write(tmp_path / "old", [make_answer()])
    with pytest.raises(InputError, match="does not exist"):
        diff_runs(baseline, tmp_path / "nowhere")


def test_the_rules_that_noise_suggests_silence_it(tmp_path: Path) -> None:
    """By the command line: what `--suggest` writes is a replay.toml under which the same runs are alike."""
    rng = random.Random(7)

    def run(name: str) -> Path:
        bodies = [
            {
                "at": 1_700_000_000 + n + rng.randrange(3),
                "ids": rng.sample(range(9), 9),
                "token": rng.random(),
            }
            for n in range(60)
        ]
        return write(tmp_path / name, [make_answer(n, body) for n, body in enumerate(bodies)])

    old, again, new = map(str, (run("old"), run("again"), run("new")))
    rules = tmp_path / "rules.toml"
    done = CliRunner().invoke(app, ["diff", old, new, "--control", again, "--suggest", str(rules)])
    assert done.exit_code == 0, done.output
    places = [rule["path"] for rule in tomllib.loads(rules.read_text())["diff"]["rule"]]
    assert sorted(places) == ["$.at", "$.ids", "$.token"]
    done = CliRunner().invoke(app, ["diff", old, new, "--config", str(rules), "--json", "-"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["findings"] == []
