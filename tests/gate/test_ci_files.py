"""What users copy into their CI: parsed, its commands checked against the command line, the action run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

from replay.cli import app
from replay.config import load
from replay.verbs.gate_settings import gate_settings

TOP = Path(__file__).parents[2]
ACTION = TOP / ".github" / "actions" / "replay-gate" / "action.yml"
OURS = TOP / ".github" / "workflows" / "ci.yml"
WORKFLOW = TOP / ".github" / "workflows" / "replay-gate.yml"
GITLAB = TOP / "docs" / "ci" / "gitlab-ci.yml"
DOCKERFILE = TOP / "docs" / "ci" / "Dockerfile"
PAGE = TOP / "docs" / "ci.md"


def read(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def scripts() -> list[str]:
    """Every piece of shell in the files."""
    action, workflow, gitlab = read(ACTION), read(WORKFLOW), read(GITLAB)
    ours = read(OURS)["jobs"]["test"]["steps"]
    steps = [*action["runs"]["steps"], *workflow["jobs"]["gate"]["steps"], *ours]
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [*(step["run"] for step in steps if "run" in step), *gitlab["replay-gate"]["script"], *blocks]


def test_every_replay_command_exists() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    lines = [
        line for script in scripts() for line in script.splitlines() if line.strip().startswith("replay ")
    ]
    for line in lines:
        _, verb, *arguments = shlex.split(line.strip(), comments=True)
        known = {option for parameter in commands[verb].params for option in parameter.opts}
        assert {word for word in arguments if word.startswith("--")} <= known
    assert len(lines) >= 5


@pytest.mark.parametrize("script", scripts())
def test_scripts_are_shell(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_what_is_named_is_there() -> None:
    inputs, steps = read(ACTION)["inputs"], read(ACTION)["runs"]["steps"]
    used = set(re.findall(r"inputs\.([a-z-]+)", ACTION.read_text("utf-8")))
    assert used == set(inputs)
    assert {step.get("shell") for step in steps if "run" in step} == {"bash"}
    (gate,) = [step for step in read(WORKFLOW)["jobs"]["gate"]["steps"] if step.get("id") == "gate"]
    assert (TOP / gate["uses"] / "action.yml").resolve() == ACTION
    assert set(gate["with"]) <= set(inputs)
    settings = gate_settings(load(TOP / gate["with"]["config"]))
    assert (settings.capture / "capture.json").exists()
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE.read_text("utf-8")):
        assert (PAGE.parent / link).exists(), link


def test_the_image_is_made_of_what_is_there() -> None:
    copied = [line.split()[1:-1] for line in DOCKERFILE.read_text().splitlines() if line.startswith("COPY ")]
    names = [name for line in copied for name in line if not name.startswith(("--", "/"))]
    assert {"replay", "pyproject.toml", "constraints.txt"} <= set(names)
    missing = {name for name in names if not (TOP / name).exists()}
    assert missing <= {"README.md"}  # which pyproject.toml names


def test_the_action_gates_and_tells(tmp_path: Path) -> None:
    outputs = run_action("Gate", tmp_path, CONFIG=str(TOP / "docs" / "ci" / "replay.toml"), OUT="out")
    assert outputs == {"verdict": "pass", "regressions": "0", "exit-code": "0"}
    assert (
        (tmp_path / "summary").read_text("utf-8").startswith("## ✅ Shop, the old build against itself: pass")
    )


def test_the_action_tells_of_a_gate_that_could_not_run(tmp_path: Path) -> None:
    outputs = run_action("Gate", tmp_path, CONFIG="none.toml", OUT="out")
    assert outputs == {"verdict": "none", "regressions": "0", "exit-code": "2"}
    assert not (tmp_path / "summary").exists()


@pytest.mark.parametrize(
    ("code", "allowed", "ends"),
    [("0", "false", 0), ("1", "true", 1), ("2", "true", 2), ("3", "false", 3), ("3", "true", 0)],
)
def test_the_action_ends_as_the_gate_did(tmp_path: Path, code: str, allowed: str, ends: int) -> None:
    assert step("Verdict", tmp_path, CODE=code, ALLOW_INVALID=allowed).returncode == ends


def run_action(name: str, directory: Path, **env: str) -> dict[str, str]:
    done = step(name, directory, **env)
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in (directory / "outputs").read_text().splitlines())


def step(name: str, directory: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a step of the action as GitHub does."""
    (script,) = [step["run"] for step in read(ACTION)["runs"]["steps"] if step.get("name") == name]
    github = {"GITHUB_OUTPUT": "outputs", "GITHUB_STEP_SUMMARY": "summary", "GITHUB_ACTIONS": "true"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=directory,
        env={**os.environ, "PATH": path, **github, **env},
        capture_output=True,
        text=True,
        timeout=100,
    )
