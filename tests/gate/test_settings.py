"""replay.toml: every error names the table and key, and what to write instead; the template works."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from replay.config import load
from replay.errors import ConfigError
from replay.report.fidelity import FidelityLimits
from replay.report.gate import Limits
from replay.verbs.gate_settings import GateSettings, gate_settings
from replay.verbs.init import TEMPLATE, write_template

BUILDS = '[baseline]\nurl = "http://old:80"\n[candidate]\ncommand = "./serve"\n'
WHOLE = f'[gate]\ncapture = "c"\n{BUILDS}'


def read(tmp_path: Path, text: str) -> GateSettings:
    path = tmp_path / "replay.toml"
    path.write_text(text, "utf-8")
    return gate_settings(load(path))


ERRORS = [
    ("", r"\[gate\] needs a capture: capture = "),
    ("[gates]", r"unknown table \[gates\]; known are auth, baseline, bind, candidate"),
    ("gate = 3", r"gate must be a table: write \[gate\]"),
    ("[gate]\ncaptur = 'x'", r"\[gate\] has no key 'captur'; known are at_once, capture"),
    ("[gate]\ncapture = 3", r"\[gate\] capture = 3 must be a text in quotes"),
    ("[gate]\ncapture = 'c'\ncontrol = 'no'", r"\[gate\] control = 'no' must be true or false"),
    ("[gate]\ncapture = 'c'\nat_once = 1", r"\[gate\] at_once = 1 must be true or false"),
    ("[gate]\ncapture = 'c'", r"\[baseline\] is missing: say where that build is \(url\) or how to start it"),
    ("[gate]\ncapture = 'c'\n[baseline]\nurl = 'http://h'", r"\[candidate\] is missing"),
    (f"{WHOLE}[limits]\nregressions = -1", r"\[limits\] regressions = -1 must be a whole number, 0 or more, or \"any"),
    (f"{WHOLE}[limits]\nregressions = 1.5", r"\[limits\] regressions = 1.5 must be a whole number"),
    (f"{WHOLE}[limits]\nsuspects = 'none'", r"\[limits\] suspects = 'none' must be a whole number"),
    (f"{WHOLE}[limits]\nerrors = 1", r"\[limits\] has no key 'errors'; known are regressions, suspects"),
    (f"{WHOLE}[limits]\nerror_rate = '1%'", r"\[limits\] error_rate = '1%' must be a number, not negative"),
    (f"{WHOLE}[limits]\np95_ratio = true", r"\[limits\] p95_ratio = True must be a number"),
    (f"{WHOLE}[limits.all]\np90_ratio = 2", r"\[limits.all\] has no key 'p90_ratio'; known are p50_ratio"),
    (f"{WHOLE}[limits]\nall = 2", r"\[limits.all\] must be a table"),
    (f"{WHOLE}[limits]\nendpoint = 2", r'limits are a table of their own: \[limits.endpoint."GET /x"\]'),
    (f"{WHOLE}[limits.endpoint.'GET /x']\np95 = 2", r"\[limits.endpoint.\"GET /x\"\] has no key 'p95'"),
    (f"{WHOLE}[limits]\nfidelity = 2", r"write \[limits.fidelity\]"),
    (f"{WHOLE}[limits.fidelity]\nlag = 2", r"\[limits.fidelity\] has no key 'lag'; known are lag_p99_ms, late_share"),
    (f"{WHOLE}[limits.fidelity]\nlag_p99_ms = -2", r"\[limits.fidelity\] lag_p99_ms = -2 must be a number"),
    (f"{WHOLE}[control]\nport = 1", r"\[control\] has no key 'port'; known are command, directory"),
    (f"{WHOLE}[control]\n", r"\[control\] needs a url \(where it runs\) or a command \(how to start it\)"),
    (f"[gate]\ncapture = 'c'\ncontrol = false\n{BUILDS}[control]\nurl = 'http://h'",
     r"\[gate\] control = false, but there is a \[control\]"),
    (f"{WHOLE}[control]\nurl = 'ftp://h'", r"\[control\] url 'ftp://h'"),
    (f"{WHOLE}[control]\nurl = 'http://h/path'", r"\[control\] url 'http://h/path': give scheme, host and port only"),
    (f"{WHOLE}[control]\nurl = 'http://h:{{port}}'", r"\[control\] url: {port} is for builds with a command"),
    (f"{WHOLE}[control]\ncommand = 'x'\nurl = 'http://{{port}}/x'", r"\[control\] url 'http://1/x': give scheme"),
    (f"{WHOLE}[control]\ncommand = ['x', 1]", r"\[control\] command must be a text, or a list of texts"),
    (f"{WHOLE}[control]\ncommand = 'x'\nready = 'health'", r"ready = 'health' must be a path \(\"/health\"\) or an"),
    (f"{WHOLE}[control]\ncommand = 'x'\ntimeout = 0", r"\[control\] timeout = 0 must be above 0 seconds"),
    (f"{WHOLE}[control]\ncommand = 'x'\ngrace = '5s'", r"\[control\] grace = '5s' must be a number"),
    (f"{WHOLE}[control]\ncommand = 'x'\nenv = ['A=1']", r"\[control\] env = \['A=1'\] must be a table"),
    (f"{WHOLE}[control]\ncommand = 'x'\nenv = {{ A = true }}", r"env: A = True must be a text in quotes"),
    (f"{WHOLE}[run]\nspeeed = 2", r"\[run\] has no key 'speeed'; known are .*concurrency"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), ERRORS)
def test_errors_name_the_key_and_the_fix(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        read(tmp_path, text)
    assert str(raised.value).startswith(f"{tmp_path / 'replay.toml'}: ")
    assert "\n" not in str(raised.value)


def test_no_file_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"a gate needs a replay.toml: `replay init` writes one"):
        gate_settings(load(None))


def test_the_template_is_a_working_file_and_shows_the_defaults(tmp_path: Path) -> None:
    write_template(tmp_path / "replay.toml")
    plain = gate_settings(load(tmp_path / "replay.toml"))
    assert plain.roles == ("baseline", "control", "candidate")
    assert plain.limits == Limits()
    assert plain.fidelity == FidelityLimits()
    assert plain.build("control") is plain.build("baseline")
    with pytest.raises(ConfigError, match="is there already"):
        write_template(tmp_path / "replay.toml")


def test_every_commented_line_of_the_template_works_as_well(tmp_path: Path) -> None:
    lines = [line.removeprefix("# ") if _is_setting(line) else line for line in TEMPLATE.splitlines()]
    # A build has a url or a command, arrivals a rate or a speed: both are shown.
    text = "\n".join(line for line in lines if not line.startswith('url = "https:'))
    whole = read(tmp_path, text)
    assert whole.build("baseline").env == {"DATABASE_URL": "postgres://staging/old"}
    assert whole.limits.endpoints == {"GET /search": {0.95: 2.0}}
    assert whole.fidelity == FidelityLimits()
    config = load(tmp_path / "replay.toml")
    assert config.run_settings().rate == 500
    assert len(config.diff_settings().compare.rules) == 1
    assert set(tomllib.loads(text)) >= {"gate", "baseline", "candidate", "run", "limits", "diff"}


def _is_setting(line: str) -> bool:
    if not line.startswith("# "):
        return False
    key = line.removeprefix("# ").split(" ")[0]
    return line.startswith("# [") or (" = " in line and key.replace("_", "").isalnum() and key.islower())


def test_paths_count_from_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, f"{WHOLE}directory = 'app'\nlog = 'app.log'\n")
    assert (found.capture, found.out) == (tmp_path / "c", tmp_path / "gate-out")
    candidate = found.build("candidate")
    assert (candidate.directory, candidate.log) == (tmp_path / "app", tmp_path / "app.log")
    assert candidate.url == "http://127.0.0.1:{port}"
    assert candidate.command == ("/bin/sh", "-c", "./serve")
    assert found.build("baseline").command == ()
