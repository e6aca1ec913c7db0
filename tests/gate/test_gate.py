"""`replay gate` as its user meets it: a replay.toml, one command, an exit code, and reports."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from replay.demo.builds import PLANTED
from replay.demo.children import shop
from replay.store.reader import Dataset
from tests.processes import processes_with

from .gates import PATIENT, SHOP, Gate, build, until

OLD = build(f"{SHOP} old")
CLAIMS = {(sign.endpoint, sign.path, sign.kind) for planted in PLANTED for sign in planted.signs}


def report(gate: Gate) -> dict:
    return json.loads((gate.out / "report.json").read_text("utf-8"))


@dataclass(frozen=True)
class Failed:
    """The gate of a bad build, as a step of a GitHub workflow."""

    gate: Gate
    code: int
    out: str
    err: str


def test_a_bad_build_fails(gate: Gate) -> None:
    # One gate, looked at from all sides: it is the dearest.
    failed = Failed(gate.configure(), *gate.run(GITHUB_ACTIONS="true"))
    names_what_is_broken(failed)
    shows_it_on_github(failed)
    can_be_read_anew(failed)
    is_replaced_by_the_next(failed)


def names_what_is_broken(failed: Failed) -> None:
    assert failed.code == 1, failed.err
    verdict, *_ = failed.out.splitlines()
    assert verdict.startswith("FAIL  ")
    assert " regressions; " in verdict
    assert " slower" in verdict  # one endpoint; on a busy machine perhaps truly more
    found = report(failed.gate)
    claimed = {
        (item["endpoint"], item["path"], item["kind"])
        for item in found["findings"]
        if item["judgement"] == "regression"
    }
    claimed |= {
        (row["endpoint"], "", "slower") for row in found["latency"] if row["judgement"] == "regression"
    }
    assert claimed >= CLAIMS
    files = {path.name for path in failed.gate.out.iterdir()}
    assert files >= {"report.html", "junit.xml", "report.md", "metrics.txt"}
    assert "1/3 baseline → " in failed.err
    # Of so few orders some totals are only suspects at first.
    assert "confirm " in failed.err
    assert any(note.startswith("asked again: ") for note in found["notes"])
    assert "    candidate: 584 of 584 sent, 584 answered; 99 % within " in failed.err


def shows_it_on_github(failed: Failed) -> None:
    lines = [line for line in failed.out.splitlines() if line.startswith("::error ")]
    assert 2 < len(lines) <= 10
    assert any(line.startswith("::error title=replay%3A GET /products/{id}::$.price type") for line in lines)


def can_be_read_anew(failed: Failed) -> None:
    config, runs = failed.gate.directory / "replay.toml", ("gate-out/baseline", "gate-out/control")
    strict = failed.gate.directory / "strict.toml"
    strict.write_text(config.read_text("utf-8").replace("lag_p99_ms = 2000", "lag_p99_ms = 0"), "utf-8")
    assert failed.gate.run("diff", *runs, "--control", runs[1])[0] == 0
    for verb in ("diff", "report"):
        code, out, _ = failed.gate.run(verb, *runs, "--config", "strict.toml")
        assert (code, out.split()[:4]) == (3, ["INVALID", "the", "baseline", "run"])
    assert (failed.gate.directory / "report" / "junit.xml").exists()


def is_replaced_by_the_next(failed: Failed) -> None:
    # Also what it asked again; and this time there is no such build.
    assert (failed.gate.out / "confirm").exists()
    other = Gate(failed.gate.directory, failed.gate.mark).configure(baseline=build("exit 1"))
    assert other.run()[0] == 2
    assert {path.name for path in failed.gate.out.iterdir()} == {
        "baseline.log",
        "control.log",
        "candidate.log",
    }


def test_a_wrong_file_shows_on_github(gate: Gate) -> None:
    (gate.directory / "replay.toml").write_text("[gate]\ncapture = 'nowhere'", "utf-8")
    code, out, err = gate.run(GITHUB_ACTIONS="true")
    wrong = "replay.toml: [baseline] is missing: say where that build is (url) or how to start it (command)"
    assert (code, err) == (2, f"replay: {wrong}\n")
    assert out == f"::error title=replay%3A could not run::{wrong}\n"


def test_the_old_build_passes_all_at_once(gate: Gate) -> None:
    code, out, err = gate.configure(candidate=OLD, gate="at_once = true").run()
    assert (code, out.split("  ")[0]) == (0, "PASS"), err
    assert "baseline, control, candidate at once" in err
    assert {run["role"]: run["answered"] for run in report(gate)["run_facts"]} == {
        "baseline": 584,
        "control": 584,
        "candidate": 584,
    }
    assert processes_with(gate.mark) == []


def test_a_starved_generator_is_not_judged(gate: Gate) -> None:
    gate.configure(candidate=OLD, gate="control = false", run="speed = 3", rest="")
    with gate.started() as process:
        until(lambda: list((gate.out / "baseline").glob("journal-*")), process)
        (generator,) = [pid for pid in processes_with(gate.mark) if _is_the_sending_one(pid)]
        os.kill(generator, signal.SIGSTOP)
        time.sleep(0.5)  # this long it gets no processor
        os.kill(generator, signal.SIGCONT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert out.startswith("INVALID  the baseline run was not faithful: lag p99 ")
    assert "give the replayer a core of its own" in " ".join(out.split())
    assert "NOT FAITHFUL: lag p99" in err
    assert report(gate)["exit_code"] == 3


def _is_the_sending_one(pid: int) -> bool:
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"locustfile.py" in command and b"locust" in command.split(b"\0")


def test_a_build_that_does_not_start_shows_its_log(gate: Gate) -> None:
    failing = "for i in $(seq 30); do echo line $i; done; echo no database >&2; exit 7"
    code, out, err = gate.configure(candidate=build(failing), gate="control = false", run="speed = 30").run()
    assert (code, out) == (2, "")
    last = err.splitlines()
    assert last[-21].startswith(f"replay: the candidate build did not start: {failing[:20]}")
    assert "ended with exit 7; the end of " in last[-21]
    assert last[-20:] == [*(f"  line {number}" for number in range(12, 31)), "  no database"]
    assert Dataset.open(gate.out / "baseline").count == 584  # what was done is kept
    assert not list(gate.out.glob("report*"))


def test_a_candidate_that_dies_under_load_fails(gate: Gate) -> None:
    dying = f"{SHOP} old".replace("exec ", "") + " & echo $! > pid; wait $!; echo out of memory; exit 137"
    gate.configure(candidate=build(dying), gate="control = false\nconfirm = false")
    with gate.started() as process:
        until(lambda: list((gate.out / "candidate").glob("journal-*")), process)
        os.kill(int((gate.directory / "pid").read_text()), signal.SIGKILL)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert out.startswith("FAIL  the candidate build ended while it was replayed to: exit 137; ")
    assert "  out of memory" in err


def test_an_old_build_that_dies_is_no_measure(gate: Gate) -> None:
    dying = f"{SHOP} old".replace("exec ", "") + " & echo $! > pid; wait $!; echo out of memory; exit 137"
    with gate.configure(baseline=build(dying)).started() as process:
        until(lambda: list((gate.out / "baseline").glob("journal-*")), process)
        os.kill(int((gate.directory / "pid").read_text()), signal.SIGKILL)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "replay: the baseline build ended while it was replayed to: exit 137; the end of" in err


def test_builds_that_run_elsewhere_are_reached(gate: Gate) -> None:
    with shop("old", trust_tokens=True) as url:
        there = f"url = '{url}'\nready = '/health'\n"
        code, out, err = gate.configure(baseline=there, candidate=there, gate="control = false").run()
    # Without a control all noise counts; and one address cannot be two builds at once.
    assert code == 1, err
    assert f"suspects could not be asked again: both builds are at {url}, one after the other" in " ".join(
        out.split()
    )


def test_dry_run_shows_the_plan_and_starts_nothing(gate: Gate) -> None:
    gate.configure(candidate=build(f"{SHOP} new", reset="touch was-reset"), run="rate = 100\nloop = 5")
    code, out, _ = gate.run("gate", "--dry-run")
    assert code == 0
    lines = out.splitlines()
    assert [line.split(". ")[0] for line in lines[:-1]] == [str(number) for number in range(1, 10)]
    assert "5. candidate: reset by touch was-reset" in lines
    assert any("584 exchanges) → gate-out/candidate  (about 29 s)" in line for line in lines)
    assert lines[-1] == "about 88 s of load, besides starting, resetting and comparing"
    assert {path.name for path in gate.directory.iterdir()} == {"replay.toml"}


@pytest.mark.parametrize(("name", "noun"), [("control", "run"), ("confirm", "confirmation")])
def test_what_lies_in_the_way_is_left_alone(gate: Gate, name: str, noun: str) -> None:
    (gate.out / name).mkdir(parents=True)
    (gate.out / name / "thesis.txt").touch()
    code, _, err = gate.configure().run()
    wrong = f"gate-out/{name} holds something that is no {noun}: name another directory with --out"
    assert (code, err) == (2, f"replay: {wrong}\n")
    assert (gate.out / name / "thesis.txt").exists()


def test_limits_decide_and_a_terminal_sees_bars_and_no_colour_where_none_is_wanted(gate: Gate) -> None:
    lenient = 'regressions = "any"\nslower = "any"\nerror_rate = 0.5\n[limits.all]\np99_ratio = 1000'
    gate.configure(
        gate="control = false\nconfirm = false", run="speed = 4", rest=f"[limits]\n{lenient}\n{PATIENT}"
    )
    shown, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "replay", "gate"],
        cwd=gate.directory,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "60", "NO_COLOR": "1"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    text = b""
    try:
        while chunk := _read(shown):
            text += chunk
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(shown)
    assert b"under way" in text
    assert "━".encode() in text
    assert b"\x1b[3" not in text  # no colour
    assert b"PASS  within the limits, although: " in text
    assert [check["name"] for check in report(gate)["limits"]] == ["error rate", "p99 of all requests"]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other side has hung up
        return b""
