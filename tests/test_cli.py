"""The command line as a whole: light to start, clear when misused, the same words everywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("locust", "gevent", "mitmproxy", "pyarrow", "deepdiff", "numpy", "msgpack", "orjson")


def replay(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "replay", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "COLUMNS": "100", "NO_COLOR": "1"},
    )


def test_help_imports_nothing_heavy() -> None:
    code = f"import sys, replay.cli; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def verbs() -> list[str]:
    return re.findall(r"^│ (\w+) ", replay("--help").stdout.partition("Commands")[2], re.MULTILINE)


def test_every_verb_explains_itself() -> None:
    names = verbs()
    assert {"demo", "capture", "import", "inspect", "run", "diff", "show", "report", "gate", "init"} <= set(
        names
    )
    for name in names:
        done = replay(name, "--help")
        assert done.returncode == 0, done.stderr
        assert f"{name} [OPTIONS]" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("inspect", "nowhere"), "nowhere does not exist"),
        (("inspect", "README.md"), "README.md"),
        (("import", "nowhere.har", "--out", "out"), "nowhere.har"),
        (("import", "pyproject.toml", "--out", "out"), "pyproject.toml"),
        (("diff", "nowhere", "nowhere-else"), "nowhere does not exist"),
        (("diff", "README.md", "captures/shop"), "README.md"),
        (("show", "18ea", "nowhere"), "nowhere"),
        (("report", "nowhere", "nowhere-else"), "nowhere"),
        (("gate", "--config", "nowhere.toml"), "nowhere.toml does not exist"),
        (("run", "captures/shop", "--target", "http://127.0.0.1:1", "--out", "out", "--config", "no.toml"), "no.toml"),
        (("capture", "--upstream", "ftp://x", "--out", "out"), "ftp://x"),
        (("demo", "--out", "captures"), "captures"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_2(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    # In a place of its own, with what is named beside it: nothing may be written.
    for name in ("README.md", "pyproject.toml", "captures"):
        (tmp_path / name).symlink_to(ROOT / name)
    before = sorted(tmp_path.iterdir())
    done = replay(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stdout == ""
    assert sorted(tmp_path.iterdir()) == before
