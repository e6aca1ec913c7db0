"""The whole job, on a shop of its own: record, replay to two builds, compare, and hold the answer to account.

The shop's old build stands for production: a real mitmproxy records what a crowd of shoppers does there. The
recording goes to the old build, to the old build again (what differs between those two is noise) and to the
new one, which breaks what `builds.PLANTED` lists. Then the report is compared with that list.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from replay.config import RunSettings
from replay.demo.builds import PLANTED
from replay.demo.children import shop
from replay.demo.conclusion import conclusion
from replay.demo.shoppers import Crowd, Tally, go_shopping
from replay.demo.verify import Verdict, verify
from replay.errors import InputError, ReplayError
from replay.findings import Report
from replay.plan.dispatch import ALL
from replay.verbs.capture import CaptureProcess, CaptureSettings
from replay.verbs.inspecting import inspect
from replay.verbs.reporting import dossier_of, write_reports
from replay.verbs.run import RunSummary, replay_run
from replay.verbs.signals import terminable

Say = Callable[[str], None]

RUNS = (("old", "old"), ("old-again", "old"), ("new", "new"))
"""The runs by the names of their directories, and the build that each goes to."""

MADE_HERE = frozenset(
    {"capture", "key", "replay.toml", "report.json", "report.html", *(name for name, _ in RUNS)}
)
"""What a demonstration leaves in its directory: all that the next one may take away."""

_SETTINGS = (
    "# Of `replay demo`, which works without settings. What is in this directory is replaced by the next.\n"
)
# It also stands in for a replay.toml that happens to lie around and is about another service.


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """What came of the demonstration; `text` is what to print at the end."""

    verdict: Verdict
    report: Report
    seconds: float
    text: str

    @property
    def exit_code(self) -> int:
        return 0 if self.verdict.held else 1


def run_demo(workdir: Path, say: Say, crowd: Crowd | None = None, speed: float = 2.0) -> DemoOutcome:
    """Do the whole job below `workdir`; `say` gets a line or two for each step.

    What an earlier demonstration left in `workdir` is replaced. Raises `ReplayError` where a step cannot be
    done, and `KeyboardInterrupt` on SIGINT and SIGTERM; either way no child process stays behind.
    """
    began = time.monotonic()
    with terminable():
        prepare(workdir)
        say(f"1/5 record a crowd of shoppers, at a shop behind mitmproxy → {workdir / 'capture'}")
        say(f"    {record(workdir, crowd or Crowd(), say)}")
        for step, (name, build) in enumerate(RUNS, 2):
            again = ", again: what differs now is noise" if name == "old-again" else ""
            say(f"{step}/5 replay to the {build} build{again} → {workdir / name}")
            say(f"    {replay(workdir / 'capture', build, workdir / name, speed)}")
        say(f"5/5 compare → {workdir / 'report.html'}")
        report = compare(workdir)
    verdict = verify(report, PLANTED)
    seconds = time.monotonic() - began
    return DemoOutcome(verdict, report, seconds, conclusion(report, verdict, workdir, seconds))


def prepare(workdir: Path) -> None:
    """Make the directory, or clear it of an earlier demonstration. `InputError` where it holds other things."""
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"{workdir} is a file: name a directory for the demonstration")
    workdir.mkdir(parents=True, exist_ok=True)
    inside = sorted(workdir.iterdir())
    mark = workdir / "replay.toml"
    others = [path.name for path in inside if path.name not in MADE_HERE]
    if others or (inside and not (mark.is_file() and mark.read_bytes() == _SETTINGS.encode())):
        raise InputError(
            f"{workdir} holds other things ({(others or [inside[0].name])[0]}):"
            " name a new directory for the demonstration"
        )
    for path in inside:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    mark.write_text(_SETTINGS, encoding="utf-8")


def record(workdir: Path, crowd: Crowd, say: Say) -> str:
    """Send the crowd to the old build and capture what it does; says what was recorded.

    `ReplayError` where shoppers went unanswered, or not all they did is in the capture.
    """
    began = time.monotonic()
    with shop("old") as upstream:
        settings = CaptureSettings(
            out=workdir / "capture",
            upstream=upstream,
            listen="127.0.0.1:0",
            key_file=workdir / "key",
            config=workdir / "replay.toml",
        )
        tally, books = _record(CaptureProcess(settings), crowd, say)
    if tally.lost or books["written"] != tally.requests:
        raise ReplayError(
            f"of {tally.requests:,} requests {tally.lost:,} got no answer and {books['written']:,} were recorded:"
            " the machine may be too busy for a demonstration, try again"
        )
    seconds = time.monotonic() - began
    return f"{tally.requests:,} requests recorded, a health check's among them, in {seconds:.0f} s"


def _record(capture: CaptureProcess, crowd: Crowd, say: Say) -> tuple[Tally, dict[str, int]]:
    try:
        host, port = capture.start()
        say(f"    {crowd.shoppers} shoppers come to http://{host}:{port}")
        tally = asyncio.run(go_shopping(host, port, crowd))
    except BaseException:
        # Also when it had only half begun; and what ended it all is what to report.
        with suppress(ReplayError):
            capture.__exit__()
        raise
    return tally, capture.stop().books


def replay(capture: Path, build: str, out: Path, speed: float) -> str:
    """Replay the capture to a freshly started build; says how it went."""
    with shop(build) as target:
        summary = replay_run(
            capture,
            target,
            out,
            RunSettings(
                speed=speed, writes=(ALL,), allow_target=(target,), key_file=str(capture.parent / "key")
            ),
        )
    if summary.interrupted:
        raise KeyboardInterrupt
    return _books(summary)


def _books(summary: RunSummary) -> str:
    books = summary.books
    lag_ms = inspect(summary.out).lag_ns.get("p99", 0.0) / 1e6
    return (
        f"{books['sent']:,} of {books['planned']:,} requests sent when they were due (99 % within {lag_ms:.1f} ms),"
        f" {books['answered']:,} answered"
    )


def compare(workdir: Path) -> Report:
    """Compare the runs, and keep the report beside them: one for people, one for programs."""
    dossier = dossier_of(
        workdir / "old", workdir / "new", workdir / "old-again", title="The demonstration's shop, old and new"
    )
    write_reports(dossier, {"html": workdir / "report.html", "json": workdir / "report.json"})
    return dossier.report
