"""The command line: one short function per verb, and the only place that prints results and exits.

Heavy libraries are imported inside the verbs, so that `replay --help` answers at once.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from replay import __version__
from replay.errors import ReplayError

if TYPE_CHECKING:
    from replay.config import Config
    from replay.findings import Fidelity
    from replay.progress import RunBars

app = typer.Typer(
    name="replay",
    help="Record production traffic, replay it against staging, and say with evidence what changed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="replay.toml [default: ./replay.toml if there]"),
]


def _dataset(text: str) -> Path:
    """A capture or run that is named on the command line: a directory, or an address of a store."""
    from replay.store.remote import readable

    return readable(text)


def _place(text: str) -> Path:
    """Where a new dataset is to be: a directory, or an address of a store."""
    from replay.store.remote import writable

    return writable(text)


OutOption = Annotated[
    Path, typer.Option("--out", metavar="DIR", parser=_place, help="new directory for the result, or s3://…")
]


def main() -> None:
    """Entry point of the console script: errors become one line and an exit code."""
    try:
        app(standalone_mode=True)
    except ReplayError as error:
        print(f"replay: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("replay: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe has seen enough; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="show the version and exit", is_eager=True)
    ] = False,
) -> None:
    if version:
        print(f"staging-replay {__version__}")
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="where to work")] = Path("demo-out"),
) -> None:
    """The whole job on an embedded shop: capture, replay to two builds, compare, report."""
    from replay.demo.run import run_demo

    outcome = run_demo(out, _say)
    _print(outcome.text)
    raise typer.Exit(outcome.exit_code)


@app.command()
def capture(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", parser=_place, help="the capture's directory, or s3://…")
    ],
    upstream: Annotated[
        str | None, typer.Option(metavar="URL", help="the service to stand in front of")
    ] = None,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="where clients connect")
    ] = "127.0.0.1:8080",
    mode: Annotated[
        str | None, typer.Option(help="any other mode of mitmproxy: regular, socks5, ...")
    ] = None,
    sink: Annotated[
        bool, typer.Option("--sink", help="answer at once and record, for traffic mirrored here")
    ] = False,
    sample: Annotated[str, typer.Option(metavar="SHARE", help="share of the sessions to record")] = "100%",
    sample_by: Annotated[str, typer.Option(metavar="WHAT", help="sample by session or request")] = "session",
    session_key: Annotated[
        str,
        typer.Option(metavar="KIND:NAME", help="what tells sessions apart: cookie:sid, header:X, query:q"),
    ] = "",
    floor: Annotated[
        str, typer.Option(metavar="RATE", help="at least so many of each endpoint: 20/min")
    ] = "0",
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD:PATTERN", help="record only these: path:/api/*, method:GET, status:5xx"),
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(metavar="FIELD:PATTERN", help="never record these")
    ] = None,
    max_body: Annotated[str, typer.Option(metavar="SIZE", help="bytes of each body to keep")] = "1m",
    duration: Annotated[
        str | None, typer.Option(metavar="TIME", help="stop by itself after 90s, 5m, ...")
    ] = None,
    key_file: Annotated[Path | None, typer.Option(metavar="FILE", help="key of the pseudonyms")] = None,
    rotate: Annotated[
        str, typer.Option(metavar="SIZE,TIME", help="when a Parquet file is made")
    ] = "64MB,5min",
    sync: Annotated[
        str, typer.Option(metavar="WHEN", help="force to disk by segment, second, or always")
    ] = "segment",
    on_error: Annotated[
        str, typer.Option(metavar="WHAT", help="when recording fails: pass traffic on, or stop")
    ] = "pass",
    metrics: Annotated[str, typer.Option(metavar="[HOST]:PORT", help="serve the books for Prometheus")] = "",
    cert: Annotated[Path | None, typer.Option(metavar="PEM", help="certificate shown to clients")] = None,
    cert_key: Annotated[
        Path | None, typer.Option(metavar="PEM", help="its key, if not in the same file")
    ] = None,
    upstream_ca: Annotated[
        Path | None, typer.Option(metavar="PEM", help="CA that the upstream is verified by")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="do not verify the upstream")] = False,
    option: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="an option of mitmproxy's own")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Record a sample of live traffic, secrets replaced, through mitmproxy."""
    from replay.plan.pacing import parse_duration
    from replay.store.delivering import delivered
    from replay.verbs.capture import CaptureSettings
    from replay.verbs.capture import capture as record

    made = CaptureSettings(
        out=out,
        upstream=upstream,
        mode=mode,
        listen=listen,
        sample=sample,
        max_body=max_body,
        key_file=key_file,
        config=config,
        duration=None if duration is None else parse_duration(duration, "--duration"),
        sample_by=sample_by,
        session_key=session_key,
        floor=floor,
        only=tuple(only or ()),
        skip=tuple(skip or ()),
        rotate=rotate,
        sync=sync,
        on_error=on_error,
        metrics=metrics,
        sink=sink,
        cert=cert,
        cert_key=cert_key,
        upstream_ca=upstream_ca,
        insecure=insecure,
        options=tuple(option or ()),
    )
    with delivered(out, keep=False):
        summary = record(
            made, lambda host, port: _say(f"recording: clients connect to {host}:{port}; Ctrl-C ends it")
        )
    _print(_books_line(out, summary.books))


@app.command("import")
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="HAR, mitmproxy flow dumps, GoReplay's .gor, access logs"),
    ],
    out: OutOption,
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="who was asked, for access logs that do not say it")
    ] = None,
    key_file: Annotated[Path | None, typer.Option(metavar="FILE", help="key of the pseudonyms")] = None,
    config: ConfigOption = None,
) -> None:
    """Make a capture of files recorded elsewhere."""
    from replay.store.delivering import delivered
    from replay.verbs.importing import import_files

    with delivered(out):
        summary = import_files(files, out, config=config, key_file=key_file, host=host)
    for reason, count in {**summary.not_taken, **summary.notes}.items():
        _say(f"{count} × {reason}")
    _print(_books_line(out, summary.books))


@app.command()
def diff(
    baseline: Annotated[
        Path,
        typer.Argument(
            metavar="BASELINE",
            parser=_dataset,
            help="the old build's run, or a capture: production's answers",
        ),
    ],
    candidate: Annotated[
        Path, typer.Argument(metavar="CANDIDATE", parser=_dataset, help="the new build's run")
    ],
    control: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", parser=_dataset, help="a second run of the old build: tells what is noise"
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="write one HTML page")] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="write the report as JSON")
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="write JUnit XML")] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="write Markdown, for a pull request")
    ] = None,
    openmetrics: Annotated[
        Path | None, typer.Option("--openmetrics", metavar="FILE", help="write metrics for Prometheus")
    ] = None,
    suggest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="write the rules that the noise suggests, for you to review; - to print"
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="processes that share the work [default: 2 where there is much]"
        ),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="compare on a Dask cluster that sees the same paths: tcp://host:8786"
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Compare what two builds answered. Exit 0: the same; 1: regressions; 3: a run was not faithful enough."""
    from replay import config as configuration
    from replay.errors import UsageError
    from replay.report import text
    from replay.report.gate import invalidated
    from replay.verbs.diff import diff_runs
    from replay.verbs.fidelity import fidelities_of
    from replay.verbs.gate_settings import fidelity_limits

    if dask is not None and jobs is not None:
        raise UsageError("--jobs are processes here, --dask is a cluster elsewhere: give one of them")
    configured = configuration.load(config)
    settings, runs = (
        configured.diff_settings(),
        {"baseline": baseline, "control": control, "candidate": candidate},
    )
    fidelities = fidelities_of(runs, fidelity_limits(configured))
    report = invalidated(diff_runs(baseline, candidate, control, settings, jobs, dask), fidelities.items())
    asked = {"html": html, "json": json, "junit": junit, "markdown": markdown, "openmetrics": openmetrics}
    files = {form: path for form, path in asked.items() if path is not None}
    if "-" not in map(str, (*files.values(), suggest)):
        _print(text.render(report, _width(), _color()))
    if suggest is not None:
        from replay.diff.suggest import suggest as rules_of
        from replay.verbs.reporting import put

        put(rules_of(report), suggest)
    if files:
        from replay.verbs.reporting import around, write_reports

        write_reports(around(report, settings, fidelities=fidelities), files)
    raise typer.Exit(report.exit_code)


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="BASELINE CANDIDATE [CONTROL]", parser=_dataset, help="two or three runs"),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="where the files go")] = Path("report"),
    form: Annotated[
        list[str] | None,
        typer.Option(
            "--form", metavar="NAME", help="html, json, junit, markdown, openmetrics [default: all]"
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="what the pages are headed")] = "Replay report",
    config: ConfigOption = None,
) -> None:
    """Write every report anew from the stored runs. Exit codes as of `replay diff`."""
    from replay import config as configuration
    from replay.report import text
    from replay.verbs.gate_settings import fidelity_limits
    from replay.verbs.reporting import FILES, dossier_of, files_for, sides_of, write_reports

    files, configured = files_for(form or list(FILES), out), configuration.load(config)
    limits = fidelity_limits(configured)
    dossier = dossier_of(*sides_of(runs), configured.diff_settings(), title=title, limits=limits)
    write_reports(dossier, files)
    _print(text.render(dossier.report, _width(), _color(), dossier.runs))
    _say(f"written: {', '.join(map(str, files.values()))}")
    raise typer.Exit(dossier.report.exit_code)


@app.command()
def confirm(
    baseline: Annotated[
        Path, typer.Argument(metavar="BASELINE", parser=_dataset, help="the old build's run")
    ],
    candidate: Annotated[
        Path, typer.Argument(metavar="CANDIDATE", parser=_dataset, help="the new build's run")
    ],
    target: Annotated[
        list[str],
        typer.Option("--target", metavar="NAME=URL", help="baseline=URL and candidate=URL, both up"),
    ],
    control: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", parser=_dataset, help="a second run of the old build: tells what is noise"
        ),
    ] = None,
    times: Annotated[int, typer.Option(min=1, help="how often each suspect is asked again")] = 5,
    capture: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=_dataset, help="where the requests are, if the capture has moved"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="keep what was asked and answered there")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="write one HTML page")] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="write the report as JSON")
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="write JUnit XML")] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="write Markdown, for a pull request")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Ask the suspects of a comparison again, both builds at once: is it reproducible, or a flake?"""
    from replay import config as configuration
    from replay.report import text
    from replay.send.options import parse_targets
    from replay.verbs.confirm import confirm_runs

    configured = configuration.load(config)
    runs = {"baseline": baseline, "control": control, "candidate": candidate}
    with _bars("confirm") as bars:
        dossier = confirm_runs(
            runs,
            parse_targets(target),
            configured,
            times=times,
            capture=capture,
            out=out,
            progress=bars.of("confirm"),
        )
    asked = {"html": html, "json": json, "junit": junit, "markdown": markdown}
    files = {form: path for form, path in asked.items() if path is not None}
    if "-" not in map(str, files.values()):
        _print(text.render(dossier.report, _width(), _color()))
    if files:
        from replay.verbs.reporting import write_reports

        write_reports(dossier, files)
    raise typer.Exit(dossier.report.exit_code)


@app.command()
def accept(
    finding: Annotated[str, typer.Argument(metavar="FINDING", help="its id, as reports show it")],
    until: Annotated[str, typer.Option(metavar="DAY", help="the last day it is accepted: 2027-01-31")],
    because: Annotated[str, typer.Option(metavar="TEXT", help="why, for whoever reads it then")],
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON report [default: the newest of gate and report]")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Accept a difference until a day: kept in replay-accepted.toml beside replay.toml."""
    from replay import config as configuration
    from replay.verbs.accepting import accept as put

    entry, path = put(configuration.load(config), finding, until, because, report)
    _say(f"{path}: {entry.finding} ({entry.endpoint} {entry.path} {entry.kind}) until {entry.until}")


@app.command()
def show(
    exchange_id: Annotated[str, typer.Argument(metavar="ID", help="an exchange's id, or its beginning")],
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", parser=_dataset, help="runs; the first is compared with")
    ],
    capture: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=_dataset, help="where the request is, if the capture has moved"),
    ] = None,
    lap: Annotated[int, typer.Option(help="of a looped run: the pass, counted from 0")] = 0,
    target: Annotated[
        str | None, typer.Option(metavar="URL", help="where the curl line goes [default: the runs' targets]")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Show one exchange: the request, each build's answer side by side, and a curl line."""
    from replay import config as configuration
    from replay.report.exchange import render
    from replay.verbs.showing import show as look_up

    settings = configuration.load(config).diff_settings().compare
    shown = look_up(exchange_id, runs, settings=settings, capture=capture, lap=lap, target=target)
    _print(render(shown, _width(), _color()))


@app.command()
def gate(
    config: ConfigOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="where the results go, instead of `out` in replay.toml"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan and its length")] = False,
) -> None:
    """The whole CI stage: start both builds, replay to each, compare, judge, report.

    Exit 0: pass; 1: regressions; 2: could not run; 3: a run was not faithful enough to judge.
    """
    from replay import config as configuration
    from replay.progress import Watch
    from replay.report import annotations, text
    from replay.verbs.gate import plan, plan_text, run_gate

    settings = configuration.load(config)
    if dry_run:
        _print(plan_text(plan(settings, out)))
        raise typer.Exit
    on_github = os.environ.get("GITHUB_ACTIONS") == "true"
    try:
        outcome = run_gate(settings, Watch(sys.stderr), out)
    except ReplayError as error:
        _print(annotations.failure(str(error)) if on_github else "")
        raise
    dossier = outcome.dossier
    _print(text.render(dossier.report, _width(), _color(), dossier.runs, dossier.limits))
    _print(annotations.render(dossier) if on_github else "")
    _say(f"reports: {', '.join(map(str, outcome.files.values()))}")
    raise typer.Exit(outcome.exit_code)


@app.command()
def init(
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="the file to write")] = Path(
        "replay.toml"
    ),
) -> None:
    """Write a commented replay.toml to begin with."""
    from replay.verbs.init import write_template

    write_template(config)
    _say(f"{config} is written: say in it where the capture is and how to start both builds")


@app.command()
def inspect(
    dataset: Annotated[Path, typer.Argument(metavar="DIR", parser=_dataset, help="a capture or a run")],
    json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
    bindings: Annotated[
        bool, typer.Option("--bindings", help="of a capture: what later requests carry of earlier answers")
    ] = False,
    scan: Annotated[
        bool, typer.Option("--scan", help="look for secrets that were left: exit 1 if any is suspected")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Show what is in a capture or a run: mix, rate over time, sessions, sizes, books."""
    from replay import config as configuration
    from replay.report.overview import to_text
    from replay.verbs.inspecting import inspect as run

    if bindings:
        from replay.report import bindings as listing
        from replay.verbs.binding import rules_of

        rules = rules_of(dataset, configuration.load(config).bind)
        _print(listing.to_json(rules) if json else listing.to_text(rules, _width(), _color()))
        return
    if scan:
        from replay.verbs import scanning

        leaks = scanning.scan(dataset, configuration.load(config))
        _print(scanning.to_text(leaks))
        raise typer.Exit(1 if leaks else 0)
    overview = run(dataset)
    if json:
        _print(overview.to_json().decode())
        return
    _print(to_text(overview, _width(), _color()))
    if overview.kind == "run":
        _fidelity(dataset, configuration.load(config))


@app.command("run")
def run_(
    capture: Annotated[
        Path, typer.Argument(metavar="CAPTURE", parser=_dataset, help="the capture to replay")
    ],
    target: Annotated[
        list[str],
        typer.Option(
            "--target",
            metavar="URL",
            help="where to: http://staging:8080; or several builds at once, each NAME=URL, their runs in DIR/NAME",
        ),
    ],
    out: OutOption,
    speed: Annotated[float | None, typer.Option(help="times as fast as recorded [default: 1]")] = None,
    rate: Annotated[
        float | None, typer.Option(help="requests per second, instead of the recorded times")
    ] = None,
    poisson: Annotated[
        bool | None, typer.Option("--poisson", help="with --rate: random (Poisson) arrivals")
    ] = None,
    ramp: Annotated[str | None, typer.Option(metavar="STAGES", help="rates over time: 0:100,60s:500")] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="closed loop: as fast as this many connections get answers")
    ] = None,
    duration: Annotated[str | None, typer.Option(metavar="TIME", help="stop after 90s, 5m, ...")] = None,
    loop: Annotated[int | None, typer.Option(help="passes over the capture; 0: until --duration")] = None,
    include: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="only these: GET, '/orders/*', 'POST /cart*'")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="not these")] = None,
    host_header: Annotated[
        str | None, typer.Option(metavar="keep|target", help="keep the recorded Host, or set the target's")
    ] = None,
    tag: Annotated[
        str | None, typer.Option(metavar="HEADER", help="carries each exchange_id, for the target's own logs")
    ] = None,
    spin: Annotated[
        float | None, typer.Option(help="seconds to spin before a deadline; 0: never [default: 0.0015]")
    ] = None,
    set_header: Annotated[
        list[str] | None, typer.Option(metavar="NAME:VALUE", help="set in every request")
    ] = None,
    remove_header: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="leave out of every request")
    ] = None,
    connections: Annotated[
        str | None, typer.Option(metavar="recorded|pooled", help="one here for each there, or any free one")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="seconds to wait for an answer [default: 30]")] = None,
    max_body: Annotated[
        int | None, typer.Option(help="bytes of each answer to keep [default: 1 MiB]")
    ] = None,
    insecure: Annotated[bool | None, typer.Option("--insecure", help="do not verify the certificate")] = None,
    ca: Annotated[str | None, typer.Option(metavar="FILE", help="CA certificates to trust")] = None,
    sessions: Annotated[
        str | None,
        typer.Option(
            metavar="live|ordered|off",
            help="wait for the answers that requests had waited for, and carry what this target hands out [live]",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="of the random arrivals")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="processes that share the sessions")] = None,
    writes: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="send these although they write: 'POST /cart*', or all"),
    ] = None,
    deny: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="never send: '/payments*'")
    ] = None,
    allow_target: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="hit exactly this host, production or not")
    ] = None,
    ramp_up: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="in which a --rate above 500/s grows [default: 5]")
    ] = None,
    max_rate: Annotated[float | None, typer.Option(help="never more requests per second")] = None,
    max_concurrency: Annotated[int | None, typer.Option(help="never more requests under way")] = None,
    key_file: Annotated[Path | None, typer.Option(metavar="FILE", help="key of the pseudonyms")] = None,
    expect_workers: Annotated[
        int | None,
        typer.Option(min=1, help="be the master of so many workers from elsewhere: `replay worker`"),
    ] = None,
    master_port: Annotated[
        int, typer.Option(min=1, max=65535, help="with --expect-workers: where to listen")
    ] = 5557,
    master_bind: Annotated[
        str, typer.Option(metavar="ADDRESS", help="with --expect-workers: the address to listen at")
    ] = "0.0.0.0",  # noqa: S104 - workers are on other machines
    wait_workers: Annotated[
        str, typer.Option(metavar="TIME", help="with --expect-workers: how long to wait for them")
    ] = "5m",
    config: ConfigOption = None,
) -> None:
    """Replay a capture against a target; record every answer. Exit 3: the replay was not faithful."""
    from replay import config as configuration
    from replay.errors import UsageError
    from replay.plan.pacing import parse_duration
    from replay.report.overview import to_text
    from replay.send.options import parse_header, parse_targets
    from replay.store.delivering import delivered
    from replay.store.remote import address_of
    from replay.verbs.inspecting import inspect as look
    from replay.verbs.run import Remote, replay_abreast, replay_run

    remote = None
    if expect_workers is not None:
        wait_s = max(1, round(parse_duration(wait_workers, "--wait-workers")))
        remote = Remote(expect_workers, master_port, master_bind, wait_s)
        if workers is not None:
            raise UsageError(
                "--workers are processes here, --expect-workers come from elsewhere: give one of them"
            )
    configured = configuration.load(config)
    settings = configured.run_settings(
        speed=speed,
        rate=rate,
        poisson=poisson,
        ramp=ramp,
        concurrency=concurrency,
        duration=None if duration is None else parse_duration(duration, "--duration"),
        loop=loop,
        include=_tuple(include),
        exclude=_tuple(exclude),
        host_header=host_header,
        tag=tag,
        spin=spin,
        set_headers=None if not set_header else tuple(parse_header(text) for text in set_header),
        remove_headers=_tuple(remove_header),
        connections=connections,
        timeout=timeout,
        max_body=max_body,
        insecure=insecure,
        ca=ca,
        seed=seed,
        sessions=sessions,
        workers=workers,
        writes=_tuple(writes),
        deny=_tuple(deny),
        allow_target=_tuple(allow_target),
        ramp_up=ramp_up,
        max_rate=max_rate,
        max_concurrency=max_concurrency,
        key_file=None if key_file is None else str(key_file),
    )
    with delivered(out):
        with _bars() as bars:
            show = bars.of("replay")
            if len(target) == 1 and "=" not in target[0]:
                summaries = [replay_run(capture, target[0], out, settings, show, remote)]
            else:
                builds = parse_targets(target)
                summaries = list(replay_abreast(capture, builds, out, settings, show, remote).values())
        for summary in summaries:
            _print(to_text(look(summary.out), _width(), _color()))
        fidelities = [_fidelity(summary.out, configured) for summary in summaries]
    if any(summary.interrupted for summary in summaries):
        _say(f"interrupted: what was sent is in {address_of(out)}")
        raise typer.Exit(130)
    if any(fidelity.stopped for fidelity in fidelities):
        raise typer.Exit(1)
    if not all(fidelity.faithful for fidelity in fidelities):
        raise typer.Exit(3)


@app.command()
def worker(
    master: Annotated[str, typer.Option(metavar="HOST", help="where `replay run --expect-workers` is")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="its --master-port")] = 5557,
) -> None:
    """Be a worker of a run that another machine is the master of."""
    from replay.verbs.run import work

    work(master, port)


@app.command()
def stop(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="the directory, or the address, of a run under way")
    ],
) -> None:
    """Stop a run from elsewhere: nothing more is sent, what was recorded stays."""
    from replay.verbs.run import stop as stop_run

    stop_run(run)
    _say(f"{run} is told to stop")


def _fidelity(run: Path, config: Config) -> Fidelity:
    """Print how faithful a run was, by the limits of replay.toml."""
    from replay.report.fidelity import lines
    from replay.report.screen import render
    from replay.verbs.fidelity import fidelity_of
    from replay.verbs.gate_settings import fidelity_limits

    fidelity = fidelity_of(run, fidelity_limits(config))
    _print(render(lines(fidelity), _width(), _color()))
    return fidelity


def _bars(label: str = "replay") -> RunBars:
    from replay.progress import RunBars

    return RunBars(sys.stderr, (label,))


def _books_line(out: Path, books: Mapping[str, Any]) -> str:
    told = (
        f"{count:,} {name.replace('_', ' ')}"
        for name, count in books.items()
        if isinstance(count, int) and count
    )
    from replay.store.remote import address_of

    return f"{address_of(out)}: {', '.join(told)}\n"


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return tuple(values) if values else None


def _print(text: str) -> None:
    sys.stdout.write(text)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _width() -> int:
    return max(40, min(200, shutil.get_terminal_size((110, 24)).columns))


def _color() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
