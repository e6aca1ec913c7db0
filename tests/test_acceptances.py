"""replay-accepted.toml and the verb that writes it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from replay.acceptances import NAME, load, save
from replay.config import Config
from replay.config import load as load_config
from replay.diff.accepted import Acceptance
from replay.errors import ConfigError, InputError, ReplayError, UsageError
from replay.findings import ACCEPTED, NOISE, REGRESSION, Report
from replay.report import json_, text
from replay.store.writer import DatasetWriter
from replay.verbs.accepting import accept
from replay.verbs.diff import diff_runs
from tests.report.reports import FULL, finding, latency
from tests.rows import result

DAY = date(2999, 1, 31)
PRICE = replace(finding(REGRESSION, "$.price", "type"), id="db0c5c35")


def entry(number: int) -> Acceptance:
    return Acceptance(
        f"{number:08x}", DAY, f'"why" {number}\n\x7f', f"GET /{number % 3}", f"$.é[*].{number}", "type"
    )


def test_what_is_saved_is_loaded_and_sorted_whatever_the_order(tmp_path: Path) -> None:
    entries = [entry(number) for number in range(12)]
    save(tmp_path / "a", entries)
    save(tmp_path / "b", random.Random(1).sample(entries, 12))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert set(load(tmp_path / "a")) == set(entries)
    assert load(tmp_path / "none") == ()


BAD = [
    ("[[accepted]]\n", "last day"),
    ('[[accepted]]\nuntil = "2027-01-31"\n', "without quotes"),
    ('[[accepted]]\nuntil = 2027-01-31\nfinding = "x"\n', "eight hexadecimal digits"),
    ('[[accepted]]\nuntil = 2027-01-31\nfinding = "0123abcd"\nbecause = " "\n', "needs a reason"),
    ('[[accepted]]\nuntil = 2027-01-31\nfinding = "0123abcd"\nwhy = "x"\n', "no key 'why'"),
    ("[[accepted]]\nuntil = 2027-01-31\nfinding = 7\n", "must be text"),
    ("accepted = 3\n", r"headed \[\[accepted\]\]"),
    ("rule = 3\n", "nothing but tables"),
    ("[[accepted\n", "cannot be read"),
    ('[[accepted]]\nuntil = 2027-01-31\nfinding = "0123abcd"\nbecause = "x"\n' * 2, "twice"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_bad_file_is_named_with_the_fix(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / NAME).write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=message):
        Config(path=tmp_path / "replay.toml").diff_settings()


@pytest.fixture
def report(tmp_path: Path) -> Path:
    full = replace(
        FULL, findings=(PRICE, replace(PRICE, path="$.at", judgement=NOISE)), latency=(latency(REGRESSION),)
    )
    (tmp_path / "report.json").write_text(json_.render(full), "utf-8")
    return tmp_path / "report.json"


def ids(report: Path) -> tuple[str, str]:
    document = json.loads(report.read_text("utf-8"))
    return document["findings"][0]["id"], document["latency"][0]["id"]


def test_accepting_writes_the_words_of_the_report(tmp_path: Path, report: Path) -> None:
    config = Config(path=tmp_path / "replay.toml")
    wanted = PRICE.id
    first, path = accept(config, wanted[:5], "2999-01-31", "text since 4", report)
    assert (first.endpoint, first.path, first.kind) == (PRICE.endpoint, "$.price", "type")
    slow, _ = accept(config, ids(report)[1], "2999-01-31", "a bigger index", report)
    again, _ = accept(config, wanted, "2999-02-28", "still", report)
    assert path == tmp_path / NAME
    assert set(load(path)) == {slow, again} == set(config.diff_settings().accepted)
    assert slow.kind == "slower"


REFUSED = [
    ({"until": "soon"}, UsageError, "write a day"),
    ({"until": "2020-01-01"}, UsageError, "over already"),
    ({"because": " "}, UsageError, "say why"),
    ({"finding": "ffffffff"}, UsageError, "has no finding"),
    ({"finding": ""}, UsageError, "has no finding"),
    ({"report": Path("nowhere.json")}, InputError, "does not exist"),
    ({"report": Path(__file__)}, InputError, "no JSON report"),
]


@pytest.mark.parametrize(("given", "kind", "message"), REFUSED)
def test_what_cannot_be_accepted_is_refused_and_nothing_written(
    tmp_path: Path, report: Path, given: dict, kind: type[ReplayError], message: str
) -> None:
    words = {"finding": PRICE.id, "until": "2999-01-31", "because": "x", "report": report, **given}
    with pytest.raises(kind, match=message):
        accept(Config(path=tmp_path / "replay.toml"), **words)
    assert not (tmp_path / NAME).exists()


def test_the_newest_report_is_looked_in_by_itself(tmp_path: Path, report: Path) -> None:
    (tmp_path / "replay.toml").write_text('[gate]\nout = "out"\n', "utf-8")
    config = load_config(tmp_path / "replay.toml")
    with pytest.raises(UsageError, match="--report"):
        accept(config, ids(report)[1], "2999-01-31", "x")
    (tmp_path / "out").mkdir()
    report.rename(tmp_path / "out" / "report.json")
    found = subprocess.run(
        [sys.executable, "-m", "replay", "accept", ids(tmp_path / "out" / "report.json")[1], "--until", "2999-01-31",
         "--because", "x", "--config", str(tmp_path / "replay.toml")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (found.returncode, found.stdout) == (0, "")
    assert len(load(tmp_path / NAME)) == 1


def test_what_is_accepted_no_longer_fails_a_comparison(tmp_path: Path) -> None:
    for name, body in (("old", b'{"price": 1}'), ("new", b'{"price": "1"}')):
        writer = DatasetWriter(tmp_path / name, "run", source={}, settings={})
        for number in range(50):
            writer.add(result(number, response_body=body, response_size=len(body), session_id=f"s{number}"))
        writer.close({"planned": 50, "sent": 50, "answered": 50, "failed": {}, "skipped": {}, "statuses": {}})
    config = Config(path=tmp_path / "replay.toml")

    def compare() -> Report:
        return diff_runs(tmp_path / "old", tmp_path / "new", tmp_path / "old", config.diff_settings())

    before = compare()
    assert (before.verdict, before.findings[0].judgement) == ("fail", REGRESSION)
    (tmp_path / "report.json").write_text(json_.render(before), "utf-8")
    accept(config, before.findings[0].id, "2999-01-31", "texts now", tmp_path / "report.json")
    after = compare()
    assert (after.verdict, after.findings[0].judgement) == ("pass", ACCEPTED)
    assert "1 difference accepted" in after.reasons
    assert "Accepted (1)" in text.render(after, 120)
    assert before.findings[0].id in text.render(after, 120)
