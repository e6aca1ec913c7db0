"""`replay gate`: the whole CI stage. Start the builds, replay to each, compare, judge, write every report.

Whatever happens on the way, no build is left running, and what was recorded so far stays readable.
"""

from __future__ import annotations

import shutil
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from replay.config import Config, RunSettings, parse_target
from replay.diff.confirm import suspects
from replay.diff.settings import DiffSettings
from replay.errors import ConfigError, InputError, ReplayError, TargetError
from replay.findings import FAIL, INVALID, Fidelity, Report
from replay.plan.pacing import parse_ramp, ramp
from replay.report import words
from replay.report.dossier import BASELINE, CANDIDATE, CONTROL, ROLES, Dossier
from replay.report.gate import breach, invalidated, judged
from replay.report.screen import milliseconds
from replay.send.target import resolve
from replay.store import metadata
from replay.store.reader import Dataset
from replay.verbs.builds import Running, running
from replay.verbs.confirm import confirm
from replay.verbs.diff import diff_runs
from replay.verbs.fidelity import fidelity_of
from replay.verbs.gate_settings import GateSettings, gate_settings, shown
from replay.verbs.reporting import FILES, around, files_for, write_reports
from replay.verbs.run import Progress, replay_abreast, replay_run
from replay.verbs.signals import terminable

CONFIRM = "confirm"
"""Where a gate keeps what it asked again."""


class Bars(Protocol):
    """Shows how far runs have come; `of` gives what takes the counts of one."""

    def of(self, label: str) -> Callable[[Progress], None]: ...


class Watch(Protocol):
    """Who watches: takes lines, shows bars, and knows what is being waited for."""

    def say(self, text: str) -> None: ...
    def bars(self, labels: Sequence[str]) -> AbstractContextManager[Bars]: ...
    def wait(self, text: str) -> AbstractContextManager[None]: ...


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


def run_gate(config: Config, watch: Watch, out: Path | None = None) -> GateOutcome:
    """Do all of it. `ReplayError` where it cannot be done, `KeyboardInterrupt` on SIGINT and SIGTERM."""
    gate = gate_settings(config, out)
    began = time.monotonic()
    with terminable():
        try:
            dossier = _judged(gate, config, watch)
            dossier = replace(dossier, seconds=time.monotonic() - began)
            files = files_for(list(FILES), gate.out)
            write_reports(dossier, files)
        except KeyboardInterrupt:
            watch.say(f"interrupted: every build is ended, what was recorded is in {gate.out}")
            raise
    return GateOutcome(dossier, files)


def _judged(gate: GateSettings, config: Config, watch: Watch) -> Dossier:
    """Make the runs, compare them, and hold what was found against the limits."""
    settings, diffing = config.run_settings(), _diff_settings(config, gate)
    if settings.ramp is not None:
        parse_ramp(settings.ramp)  # before anything is started or taken away
    _prepare(gate)
    runs = _Runs(gate, settings, watch)
    runs.make()
    with watch.wait("compare"):
        report = invalidated(_compare(gate, diffing), runs.fidelities.items())
    report = runs.confirmed(report, diffing)
    with watch.wait("report"):
        dossier = around(report, diffing, title=gate.title, fidelities=runs.fidelities)
    dossier = judged(dossier, gate.limits)
    return replace(dossier, report=_with_crash(dossier.report, runs.crash))


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
        sent = "" if settings.writes else ", writes left out: [run] writes sends them"
        text = f"{role}: replay {gate.capture} ({capture.count:,} exchanges{sent}) → {gate.out / role}"
        together = gate.at_once and role != BASELINE
        stages.append(Stage(f"{text}{', at the same time' * together}", 0.0 if together else seconds))
    if gate.confirm:
        stages.append(Stage("compare; where there are suspects, start both builds and ask those again"))
    stages.append(
        Stage(f"{'' if gate.confirm else 'compare, and '}write {', '.join(FILES.values())} → {gate.out}")
    )
    return tuple(stages)


def plan_text(stages: tuple[Stage, ...]) -> str:
    """The plan, one line a step, and its length."""
    total = sum(stage.seconds or 0.0 for stage in stages)
    lines = [
        f"{number}. {stage.text}" + (f"  (about {stage.seconds:,.0f} s)" if stage.seconds else "")
        for number, stage in enumerate(stages, 1)
    ]
    length = f"about {total:,.0f} s of load" if total else "as long as the closed loop takes"
    return "\n".join([*lines, f"{length}, besides starting, resetting and comparing"]) + "\n"


def _length(capture: Dataset, settings: RunSettings) -> float | None:
    """Seconds that one run takes, as far as that is known before."""
    if settings.loop == 0 or settings.concurrency is not None:
        return settings.duration
    count = capture.count * settings.loop
    if settings.rate is not None:
        seconds = count / settings.rate
    elif settings.ramp is not None:
        seconds = ramp(parse_ramp(settings.ramp))(count - 1, 0) / 1e9
    else:
        seconds = _recorded_seconds(capture) * settings.loop / settings.speed
    return seconds if settings.duration is None else min(seconds, settings.duration)


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
    for role in ROLES:
        run = gate.out / role
        if run.is_dir() and any(run.iterdir()) and not (run / "run.json").exists():
            raise InputError(f"{run} holds something that is no run: name another directory with --out")
    asked = gate.out / CONFIRM
    if asked.exists() and any(not path.match("run-*") and path.name != "capture" for path in asked.iterdir()):
        raise InputError(
            f"{asked} holds something that is no confirmation: name another directory with --out"
        )
    shutil.rmtree(asked, ignore_errors=True)
    for role in ROLES:
        shutil.rmtree(gate.out / role, ignore_errors=True)
        (gate.out / f"{role}.log").unlink(missing_ok=True)
    for name in FILES.values():
        (gate.out / name).unlink(missing_ok=True)
    for role in gate.roles:
        _begin_log(_log(gate, role), gate.build(role).role)


def _begin_log(log: Path, table: str) -> None:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
    except OSError as error:
        raise ConfigError(f"[{table}] log: cannot write {log}: {error.strerror}") from None


def _log(gate: GateSettings, role: str) -> Path:
    """Where a build's output goes. A log that the user named is shared by baseline and control."""
    return gate.build(role).log or gate.out / f"{role}.log"


def _compare(gate: GateSettings, diffing: DiffSettings) -> Report:
    control = gate.out / CONTROL if gate.with_control else None
    return diff_runs(gate.out / BASELINE, gate.out / CANDIDATE, control, diffing)


def _with_crash(report: Report, crash: str) -> Report:
    """A candidate that ended by itself while it was replayed to does not pass, whatever it had answered."""
    if not crash:
        return report
    reason = f"the candidate build ended while it was replayed to: {crash.splitlines()[0].partition(';')[0]}"
    before = report.reasons if report.verdict in (FAIL, INVALID) else ()
    verdict = INVALID if report.verdict == INVALID else FAIL
    return replace(report, verdict=verdict, reasons=(reason, *before))


# --- the runs --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Runs:
    """The runs of a gate, made one after the other or at once; what is known of them when they are made."""

    gate: GateSettings
    settings: RunSettings
    watch: Watch
    fidelities: dict[str, Fidelity] = field(default_factory=dict)
    crash: str = ""

    def make(self) -> None:
        if self.gate.at_once:
            self._at_once()
        else:
            self._in_turn()

    def _in_turn(self) -> None:
        for number, role in enumerate(self.gate.roles, 1):
            self.watch.say(f"{number}/{len(self.gate.roles)} {role} → {self.gate.out / role}")
            with self._up(role) as build, self.watch.bars((role,)) as bars:
                out = self.gate.out / role
                # From the second run on, the old build tells how many failures are usual.
                beside = None if role == BASELINE else str(self.gate.out / BASELINE)
                settings = replace(self.settings, allow_target=self._allowed(build), abort_beside=beside)
                with _told_of(role):
                    summary = replay_run(self.gate.capture, build.url, out, settings, bars.of(role))
                self._look_at(role, build)
            if summary.interrupted:
                raise KeyboardInterrupt
            self._tell(role)

    def _at_once(self) -> None:
        """All builds up, each arrival to all of them: equal conditions, at the price of sharing the machine."""
        roles, together = self.gate.roles, self.gate.out / "runs"
        with ExitStack() as stack:
            builds = {role: stack.enter_context(self._up(role)) for role in roles}
            self.watch.say(f"{', '.join(roles)} at once → {self.gate.out}")
            bars = stack.enter_context(self.watch.bars(("all",)))
            settings = replace(self.settings, allow_target=self._allowed(*builds.values()))
            urls = {role: build.url for role, build in builds.items()}
            try:
                summaries = replay_abreast(self.gate.capture, urls, together, settings, bars.of("all"))
            finally:
                _spread(together, self.gate.out)
            for role, build in builds.items():
                self._look_at(role, build)
        if any(summary.interrupted for summary in summaries.values()):
            raise KeyboardInterrupt
        for role in roles:
            self._tell(role)

    def confirmed(self, report: Report, diffing: DiffSettings) -> Report:
        """The report with its suspects asked again, both builds at once, and settled where that can be."""
        old, new = self.gate.build(BASELINE), self.gate.build(CANDIDATE)
        count = len(suspects(report)) if self.gate.confirm else 0
        if not count:
            return report
        if old.url == new.url and not (old.command or new.command):
            return _unconfirmed(report, f"both builds are at {old.url}, one after the other")
        self.watch.say(f"confirm {count:,} suspect{'s' * (count > 1)} → {self.gate.out / CONFIRM}")
        try:
            with self._up(BASELINE) as first, self._up(CANDIDATE) as second:
                running = replace(self.settings, allow_target=self._allowed(first, second))
                with self.watch.bars((CONFIRM,)) as bars:
                    return confirm(
                        report,
                        {BASELINE: first.url, CANDIDATE: second.url},
                        self.gate.out / CONFIRM,
                        settings=diffing,
                        running=running,
                        capture=self.gate.capture,
                        progress=bars.of(CONFIRM),
                    )
        except ReplayError as error:
            # Everything else is known by now: no reason to lose it.
            self.watch.say(f"not confirmed: {error}")
            return _unconfirmed(report, str(error).partition("\n")[0])

    @contextmanager
    def _up(self, role: str) -> Iterator[Running]:
        """The build of a run, up and ready."""
        build, log = self.gate.build(role), _log(self.gate, role)
        what = f"{'reset and ' * bool(build.reset)}{'start' if build.command else 'reach'} the build"
        with ExitStack() as stack:
            with (
                self.watch.wait(f"{role}: {what}"),
                _told_of(role),
            ):
                up = stack.enter_context(running(build, role, log, self._tls(build.url)))
            yield up

    def _tls(self, url: str) -> ssl.SSLContext | None:
        """What to trust at an https URL: what the replay itself trusts there."""
        return resolve(parse_target(url), self.settings).tls if url.startswith("https:") else None

    def _allowed(self, *builds: Running) -> tuple[str, ...]:
        """Targets that are meant: a build that we started cannot be what the capture was recorded from."""
        ours = (build.url for build in builds if build.process is not None)
        return (*self.settings.allow_target, *ours)

    def _look_at(self, role: str, build: Running) -> None:
        """Take note of a build that ended by itself. `TargetError` where it was the old one: no measure then."""
        gone = build.gone()
        if gone and role != CANDIDATE:
            raise TargetError(f"the {role} build ended while it was replayed to: {gone}")
        if gone:
            self.crash = gone
            self.watch.say(f"the candidate build ended while it was replayed to: {gone}")

    def _tell(self, role: str) -> None:
        """Measure how faithful the run was, and say what became of it."""
        run = self.gate.out / role
        fidelity = self.fidelities[role] = fidelity_of(run, self.gate.fidelity)
        books = metadata.load(run, "run")["books"]
        failed = sum(books["failed"].values())
        lag = fidelity.lag_ns.get("p99")
        text = f"    {role}: {books['sent']:,} of {books['planned']:,} sent, {books['answered']:,} answered"
        text += f", {failed:,} failed" if failed else ""
        left_out = books.get("left_out") or {}
        text += f", left out {words.counted(left_out)}" if left_out else ""
        text += "" if lag is None else f"; 99 % within {milliseconds(lag)} ms of their time"
        breaches = "; ".join(map(breach, fidelity.breaches))
        self.watch.say(text + (f"; NOT FAITHFUL: {breaches}" if breaches else ""))


def _unconfirmed(report: Report, why: str) -> Report:
    return replace(report, notes=(*report.notes, f"suspects could not be asked again: {why}"))


def _spread(together: Path, out: Path) -> None:
    """Runs that were made together to where those are that were made in turn; also of a gate that failed."""
    for run in together.glob("*/run.json"):
        run.parent.rename(out / run.parent.name)
    shutil.rmtree(together, ignore_errors=True)


@contextmanager
def _told_of(role: str) -> Iterator[None]:
    """Errors about a target that do not say whose it is: its role and how replay.toml spells the option."""
    try:
        yield
    except TargetError as error:
        text = str(error)
        if not text.startswith("--target"):
            raise
        text = text.replace("--allow-target ", "[run] allow_target = ").removeprefix("--target ")
        raise TargetError(f"the {role} build at {text}") from None
