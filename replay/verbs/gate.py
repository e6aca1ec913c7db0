"""`replay gate`: the whole CI stage. Start the builds, replay to each, compare, judge, write every report.

Whatever happens on the way, no build is left running, and what was recorded so far stays readable.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from replay.config import Config, RunSettings
from replay.diff.settings import DiffSettings
from replay.errors import InputError, ReplayError
from replay.report.dossier import BASELINE, CANDIDATE, CONTROL, Dossier
from replay.report.gate import judged
from replay.store.reader import Dataset
from replay.verbs.builds import end_group, running
from replay.verbs.gate_settings import GateSettings, gate_settings, shown
from replay.verbs.reporting import FILES, dossier_of, files_for, write_reports
from replay.verbs.run import Progress, replay_run

Say = Callable[[str], None]


class Bar(Protocol):
    """Shows how far one run has come."""

    def update(self, counts: Progress) -> None: ...


Bars = Callable[[str], AbstractContextManager[Bar]]
"""A label → a bar to use for one run."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the plan: what it does, and about how long it takes (`None`: as long as it takes)."""

    text: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class GateOutcome:
    """What came of a gate; `files` are the reports by form."""

    dossier: Dossier
    files: Mapping[str, Path]

    @property
    def exit_code(self) -> int:
        return self.dossier.report.exit_code


def run_gate(config: Config, say: Say, bars: Bars, out: Path | None = None) -> GateOutcome:
    """Do all of it. `ReplayError` where it cannot be done, `KeyboardInterrupt` on SIGINT and SIGTERM."""
    gate = gate_settings(config, out)
    settings, diffing = config.run_settings(), _diff_settings(config, gate)
    began = time.monotonic()
    with terminable():
        _prepare(gate)
        _replay_all(gate, config, settings, say, bars)
        say("compare")
        dossier = _dossier(gate, diffing)
        dossier = judged(replace(dossier, seconds=time.monotonic() - began), gate.limits)
        files = files_for(list(FILES), gate.out)
        write_reports(dossier, files)
    return GateOutcome(dossier, files)


def plan(config: Config, out: Path | None = None) -> tuple[Stage, ...]:
    """What a gate would do, step by step. Raises what the gate itself would raise of its settings."""
    gate = gate_settings(config, out)
    settings = config.run_settings()
    _diff_settings(config, gate)
    capture = Dataset.open(gate.capture, "capture")
    seconds = _length(capture, settings)
    stages = []
    for role in gate.roles:
        build = gate.build(role)
        if build.reset:
            stages.append(Stage(f"{role}: reset by {shown(build.reset)}"))
        how = f"start {shown(build.command)}" if build.command else f"reach {build.url}"
        stages.append(Stage(f"{role}: {how}, wait up to {build.timeout:g} s"))
        text = f"{role}: replay {gate.capture} ({capture.count:,} exchanges) → {gate.out / role}"
        stages.append(Stage(text, None if gate.at_once and role != BASELINE else seconds))
    stages.append(Stage(f"compare, and write {', '.join(FILES.values())} → {gate.out}"))
    return tuple(stages)


def plan_text(stages: tuple[Stage, ...]) -> str:
    """The plan, one line a step, and its length."""
    total = sum(stage.seconds or 0.0 for stage in stages)
    lines = [
        f"{number}. {stage.text}" + (f"  (about {stage.seconds:,.0f} s)" if stage.seconds else "")
        for number, stage in enumerate(stages, 1)
    ]
    return (
        "\n".join([*lines, f"about {total:,.0f} s of load, besides starting, resetting and comparing"]) + "\n"
    )


def _length(capture: Dataset, settings: RunSettings) -> float:
    """Seconds that one run takes, as far as that is known before."""
    if settings.rate:
        seconds = capture.count * max(1, settings.loop) / settings.rate
    else:
        seconds = _recorded_seconds(capture) * max(1, settings.loop) / settings.speed
    return seconds if settings.duration is None else min(seconds, settings.duration) or settings.duration


def _recorded_seconds(capture: Dataset) -> float:
    first = last = None
    for batch in capture.batches(("started_at",)):
        column = batch["started_at"].cast("int64")
        first = column[0].as_py() if first is None else first
        last = column[-1].as_py()
    return 0.0 if first is None or last is None else (last - first) / 1e9


def _diff_settings(config: Config, gate: GateSettings) -> DiffSettings:
    """Those of the file; latency is measured at every quantile that a limit speaks of."""
    settings = config.diff_settings()
    if settings.latency is None:
        return settings
    quantiles = tuple(sorted({*settings.latency.quantiles, *gate.limits.quantiles()}))
    return replace(settings, latency=replace(settings.latency, quantiles=quantiles))


def _prepare(gate: GateSettings) -> None:
    """Check the capture, make the directory, and take away what an earlier gate left of these names."""
    Dataset.open(gate.capture, "capture")
    if gate.out.exists() and not gate.out.is_dir():
        raise InputError(f"{gate.out} is a file: name a directory for what the gate writes")
    gate.out.mkdir(parents=True, exist_ok=True)
    for role in (BASELINE, CONTROL, CANDIDATE):
        run = gate.out / role
        if run.is_dir() and any(run.iterdir()) and not (run / "run.json").exists():
            raise InputError(f"{run} holds something that is no run: name another directory with --out")
        shutil.rmtree(run, ignore_errors=True)
        (gate.out / f"{role}.log").unlink(missing_ok=True)
    for name in FILES.values():
        (gate.out / name).unlink(missing_ok=True)


def _log(gate: GateSettings, role: str) -> Path:
    """Where a build's output goes. A log that the user named is shared by baseline and control."""
    return gate.build(role).log or gate.out / f"{role}.log"


def _replay_all(gate: GateSettings, config: Config, settings: RunSettings, say: Say, bars: Bars) -> None:
    if gate.at_once:
        _replay_at_once(gate, config, say)
        return
    for number, role in enumerate(gate.roles, 1):
        say(f"{number}/{len(gate.roles)} {role} → {gate.out / role}")
        with running(gate.build(role), role, _log(gate, role)) as url, bars(role) as bar:
            summary = replay_run(gate.capture, url, gate.out / role, settings, bar.update)
        if summary.interrupted:
            raise KeyboardInterrupt


def _replay_at_once(gate: GateSettings, config: Config, say: Say) -> None:
    """All builds up, all runs together: equal conditions, at the price of sharing the machine."""
    with ExitStack() as stack:
        runs = []
        for role in gate.roles:
            url = stack.enter_context(running(gate.build(role), role, _log(gate, role)))
            runs.append((role, url))
        say(f"{', '.join(gate.roles)} at once → {gate.out}")
        processes = [(role, stack.enter_context(_run_process(gate, config, role, url))) for role, url in runs]
        for role, process in processes:
            _wait(gate, role, process)


@contextmanager
def _run_process(
    gate: GateSettings, config: Config, role: str, url: str
) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [sys.executable, "-m", "replay", "run", str(gate.capture), "--target", url]
    arguments += ["--out", str(gate.out / role), "--config", str(config.path)]
    with (gate.out / f"{role}.replay.log").open("wb") as output:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    except BaseException:
        # As Ctrl-C would: it drains and closes its run.
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        raise
    finally:
        end_group(process, 10.0)


def _wait(gate: GateSettings, role: str, process: subprocess.Popen[bytes]) -> None:
    code = process.wait()
    if code == 130:
        raise KeyboardInterrupt
    if code in (0, 3):
        return
    lines = (gate.out / f"{role}.replay.log").read_text(errors="replace").splitlines()
    last = lines[-1].removeprefix("replay: ") if lines else f"exit {code}"
    raise ReplayError(f"the {role} run could not be made: {last}")


def _dossier(gate: GateSettings, diffing: DiffSettings) -> Dossier:
    return dossier_of(
        gate.out / BASELINE,
        gate.out / CANDIDATE,
        gate.out / CONTROL if gate.with_control else None,
        diffing,
        title=gate.title,
        limits=gate.fidelity,
    )


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM is a Ctrl-C meanwhile, so that it too leaves no build behind; where that can be set."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: Any = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
