"""The whole job, small: a real proxy, real replays, a real comparison; and what Ctrl-C leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from replay.demo.builds import PLANTED
from replay.demo.run import MADE_HERE, prepare, run_demo
from replay.demo.shoppers import Crowd
from replay.errors import InputError
from replay.store import sealing
from replay.store.reader import Dataset
from tests.processes import ends, processes_with

SMALL = Crowd(shoppers=20, visits=3, think=0.05)


def test_it_finds_what_was_planted_and_nothing_else(tmp_path: Path) -> None:
    lines: list[str] = []
    outcome = run_demo(tmp_path / "demo", lines.append, SMALL, speed=1.5)
    # On a machine that other tests keep busy, something else may truly have been slower for a while.
    invented = [sign for sign in outcome.verdict.unexpected if sign.kind != "slower"]
    assert (outcome.verdict.missing, invented) == ((), [])
    assert outcome.verdict.found == PLANTED
    assert outcome.text.count("found ") >= len(PLANTED)
    assert [line[:3] for line in lines if not line.startswith(" ")] == [f"{step}/5" for step in range(1, 6)]
    assert {path.name for path in (tmp_path / "demo").iterdir()} == MADE_HERE
    counts = {Dataset.open(tmp_path / "demo" / name).count for name in ("capture", "old", "old-again", "new")}
    assert len(counts) == 1


@pytest.mark.real
def test_it_does_so_with_everything_encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sealing.KEY, "a key for the whole demonstration")
    outcome = run_demo(tmp_path / "demo", lambda line: None, SMALL, speed=1.5)
    assert outcome.verdict.missing == ()
    # What run.json tells of latencies names the endpoints; no row of a dataset is anywhere to be read.
    files = [path for path in (tmp_path / "demo").glob("*/*") if path.suffix != ".json"]
    data = b"".join(path.read_bytes() for path in files)
    assert not [
        text for text in (b"Content-Type", b"GET /products", b"response_body", b"PAR1") if text in data
    ]
    monkeypatch.setenv(sealing.KEY, "another key that is long enough")
    with pytest.raises(InputError, match="another key"):
        Dataset.open(tmp_path / "demo" / "new")


def test_a_directory_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    (tmp_path / "capture").mkdir()
    with pytest.raises(InputError, match=r"holds other things \(thesis.txt\)"):
        prepare(tmp_path)
    assert (tmp_path / "capture").is_dir()
    with pytest.raises(InputError, match="is a file"):
        prepare(tmp_path / "thesis.txt")
    (tmp_path / "thesis.txt").unlink()
    with pytest.raises(InputError, match=r"holds other things \(capture\)"):  # by chance of that name
        prepare(tmp_path)


def test_an_earlier_demonstration_is_replaced(tmp_path: Path) -> None:
    prepare(tmp_path / "demo")
    (tmp_path / "demo" / "old").mkdir()
    (tmp_path / "demo" / "old" / "part-1.parquet").touch()
    prepare(tmp_path / "demo")
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["replay.toml"]


PROGRAM = """
import sys
from pathlib import Path
from replay.demo.run import run_demo
try:
    run_demo(Path(sys.argv[1]), lambda line: print(line, flush=True))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(
    ("step", "number"), [("1/5", signal.SIGINT), ("    40 shoppers", signal.SIGINT), ("2/5", signal.SIGTERM)]
)
def test_an_interrupted_demonstration_leaves_no_process(
    tmp_path: Path, step: str, number: signal.Signals
) -> None:
    mark = f"DEMONSTRATION={uuid.uuid4()}"
    name, _, value = mark.partition("=")
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "demo")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, name: value},
    )
    try:
        assert program.stdout is not None
        for line in program.stdout:
            if line.startswith(step):
                break
        program.send_signal(number)
        program.communicate(timeout=60)
        assert program.returncode == 130
        assert [process for process in processes_with(mark) if not ends(process)] == []
    finally:
        program.kill()
        for process in processes_with(mark):
            os.kill(process, signal.SIGKILL)
        program.communicate()
